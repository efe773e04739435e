"""Runs your tasks in a Paceline in memory under a virtual clock, for tests: without AWS, and without waiting.

from paceline.testing import MemoryPaceline

paceline = MemoryPaceline(LIMITS="1/second")
"""

from paceline.testing.memory_paceline import MemoryPaceline, RefusedError
from paceline.testing.values import Start, SubmittedTask, Task

__all__ = ["MemoryPaceline", "RefusedError", "Start", "SubmittedTask", "Task"]
