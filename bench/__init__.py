"""Measures Paceline against what can't be faster. `python -m bench` runs all of it; see README.md."""
