"""Reads the completion log: follows it, audits it."""
