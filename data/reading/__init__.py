"""Files become rows: what a file really is, its lines, and the records in it."""
