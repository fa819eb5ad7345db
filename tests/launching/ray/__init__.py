"""What docs/launch/ray_train.py asks of Ray, without Ray: the names and arguments of Ray 2.60, by
which the driver was run once for real."""
