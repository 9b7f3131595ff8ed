"""Parsl over many endpoints: one executor that stands before them, and what each is made of."""
