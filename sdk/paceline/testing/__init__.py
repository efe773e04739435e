"""Runs your tasks in a Paceline in memory under a virtual clock, for tests: without AWS, and without waiting.

from paceline.testing import MemoryPaceline

paceline = MemoryPaceline(LIMITS="1/second")
"""

try:
    from paceline.testing.memory_paceline import MemoryPaceline, RefusedError
    from paceline.testing.values import Start, SubmittedTask, Task
except ModuleNotFoundError as error:
    if error.name not in ("boto3", "botocore", "uuid6"):
        raise
    hint = "paceline.testing needs further packages: pip install 'paceline[testing]'"
    raise ModuleNotFoundError(hint, name=error.name) from error

__all__ = ["MemoryPaceline", "RefusedError", "Start", "SubmittedTask", "Task"]
