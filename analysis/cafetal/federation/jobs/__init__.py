"""Jobs of batch systems: their providers, their polling, what they have written."""
