"""What a finished run has to show: its page, and runs side by side. Nothing here loads torch."""
