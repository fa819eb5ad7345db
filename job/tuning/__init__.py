"""The best model in the time there is: trials, their plan, the winner."""
