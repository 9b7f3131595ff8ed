"""The live run: one process, one loop, one thread."""
