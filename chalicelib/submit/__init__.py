"""Submits tasks: reserves their planned starts and queues them, once for each idempotency key."""
