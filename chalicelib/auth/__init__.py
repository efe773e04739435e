"""Decides who a caller is."""
