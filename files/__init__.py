"""Safe reading and writing of files, by the standard library alone; every room may import it."""
