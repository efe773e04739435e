"""The first hour on a real account: deploys a stage of its own, measures AWS with it, and removes everything again.

It answers questions that AWS's documents leave open and emulators can't answer. docs/production/first-hour.md has the
questions, and the remedies for unexpected answers.
"""
