"""The one place that says which client this is."""

__version__ = "0.1.0"
