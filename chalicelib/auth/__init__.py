"""Authenticates callers."""
