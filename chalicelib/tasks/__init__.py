"""What a module of your own tasks imports: `task` registers a function, the errors say what happened in it."""

from chalicelib.core.errors import PayloadError, PermanentError, RetryAfter
from chalicelib.tasks.registry import Context, task

__all__ = ["Context", "PayloadError", "PermanentError", "RetryAfter", "task"]
