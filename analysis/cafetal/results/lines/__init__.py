"""The lines of the journal of a run: their kinds, and how they are written."""
