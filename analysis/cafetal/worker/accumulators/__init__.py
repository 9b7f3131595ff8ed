"""The output of a processor as plain data that merges exactly, in any order."""
