"""Views and controls of lanes: limits, pause, cancel, overview."""
