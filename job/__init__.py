"""The wiring of one run between the packages, for train.py and predict.py alone."""
