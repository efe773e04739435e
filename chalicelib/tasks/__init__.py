"""The API for your own tasks: `task` registers a function; the exceptions control retries."""

from chalicelib.core.errors import PayloadError, PermanentError, RetryAfter
from chalicelib.tasks.registry import Context, task

__all__ = ["Context", "PayloadError", "PermanentError", "RetryAfter", "task"]
