"""Benchmarks: Paceline against the fastest possible implementation. `python -m bench` runs all; see README.md."""

from chalicelib.tasks.outside import expose_sdk

expose_sdk()  # some benchmarks run over the stores of paceline.testing
