"""A trained model as other people's tools open it, and the hub it is sent to."""
