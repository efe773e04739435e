"""Runs a lane's messages: decides the next step, claims the start, runs the task, logs its outcome."""
