"""Runs that never happen: sites, queues and failures with a clock of their own, for the scheduler of real runs."""
