"""What a run is about: one file a task, one table."""
