"""A run from Runner's call to the merged output: what is shipped, executed, counted and written."""
