"""Partials of a run: where they lie, how they are reduced, fetched, reused and merged."""
