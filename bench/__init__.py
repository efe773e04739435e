"""Benchmarks: Paceline against the fastest possible implementation. `python -m bench` runs all; see README.md."""
