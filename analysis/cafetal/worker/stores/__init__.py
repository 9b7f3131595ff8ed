"""Stores: where the tasks of a site leave things for each other, by name."""
