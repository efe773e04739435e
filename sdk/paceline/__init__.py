"""The API for your own tasks: `task` registers a function; the exceptions control retries."""

from chalicelib.tasks import Context, PayloadError, PermanentError, RetryAfter, task

__all__ = ["Context", "PayloadError", "PermanentError", "RetryAfter", "task"]
