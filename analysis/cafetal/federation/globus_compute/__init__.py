"""A Globus Compute endpoint as a Parsl executor: submission, rate limit, liveness, login."""
