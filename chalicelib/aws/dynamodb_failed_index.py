"""The keys of the index of failed tasks. Only records of failed tasks have them, so other tasks pay nothing for it."""

import zlib

from chalicelib.core.task import failure_key

#: A sparse index that projects only keys.
FAILED_INDEX = "failed"
#: Its partition key has one of FAILED_SHARDS values, since one partition of an index takes 1,000 writes a second.
FAILED, FAILED_AT = "failed", "failed_at"
FAILED_SHARDS = 8
FAILED_KEYS = tuple(f"failed#{shard}" for shard in range(FAILED_SHARDS))


def failed_keys(task_id: str, completed_at: int) -> dict[str, str]:
    """The attributes that put a failed task's record into the index."""
    shard = FAILED_KEYS[zlib.crc32(task_id.encode()) % FAILED_SHARDS]
    return {FAILED: shard, FAILED_AT: failure_key(task_id, completed_at)}
