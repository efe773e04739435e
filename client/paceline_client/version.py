"""The one place that says which client this is."""

__version__ = "1.0.0"
