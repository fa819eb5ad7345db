"""Training rows that are read while a run trains: in blocks, from any row on."""
