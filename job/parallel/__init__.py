"""How the model of a run is spread over its processes."""
