"""A whole federation on one machine: data to try things on, laid out over sites."""
