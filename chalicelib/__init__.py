"""Paceline: a task queue that keeps every user to a pace."""
