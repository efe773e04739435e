"""Admits scheduled tasks when they are due, and sends callbacks."""
