"""train.py's back room: the wiring between the rooms. Only train.py and predict.py import it."""
