"""The sites of a run: started, watched, logged in, given files, cleaned up."""
