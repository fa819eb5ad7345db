"""Safe reading and writing of files, by the standard library alone; every package may import it."""
