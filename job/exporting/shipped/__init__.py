"""Programs that go with an export and run without openloop; data/clean.py goes with them."""
