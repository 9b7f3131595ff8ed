"""Scenarios, rivals and the lower bound, for benchmarks and tests of the scheduler in the simulator."""
