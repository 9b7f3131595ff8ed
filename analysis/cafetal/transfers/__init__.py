"""Files, brought from one site to another: a protocol, and two ways to do it."""
