"""Schedules: stores them, submits a task at each tick, and sends their messages again when they are lost."""
