"""Behaviours that were recorded on AWS, as small scenarios that run over every port; docs/explanation/emulators.md."""
