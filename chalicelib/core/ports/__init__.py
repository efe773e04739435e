"""Interfaces that the core needs from stores, queues and clocks. One contract test runs over each implementation."""

from chalicelib.core.ports.lanes import (
    LaneStore,
    Stale,
    Write,
    Written,
    after_newest,
    corrected_at,
    own_admission,
    own_claim,
    own_correction,
)
from chalicelib.core.ports.process import Backlog, Clock, CompletionLog, Presence, SharedBacklog
from chalicelib.core.ports.queues import ScheduledQueue, TaskQueue
from chalicelib.core.ports.scheduled import CallbackSlots, DueTasks, ScheduledCounts, ScheduleStore
from chalicelib.core.ports.shared_limits import (
    Correction,
    SharedClaim,
    SharedLimitStore,
    SharedStale,
    SharedWrite,
    SharedWritten,
    is_corrected,
    own_shared_claim,
)
from chalicelib.core.ports.tasks import FailedTasks, LaneDirectory, RequestRecord, RequestStore, TaskStore

__all__ = [
    "Backlog",
    "CallbackSlots",
    "Clock",
    "CompletionLog",
    "Correction",
    "DueTasks",
    "FailedTasks",
    "LaneDirectory",
    "LaneStore",
    "Presence",
    "RequestRecord",
    "RequestStore",
    "ScheduleStore",
    "ScheduledCounts",
    "ScheduledQueue",
    "SharedBacklog",
    "SharedClaim",
    "SharedLimitStore",
    "SharedStale",
    "SharedWrite",
    "SharedWritten",
    "Stale",
    "TaskQueue",
    "TaskStore",
    "Write",
    "Written",
    "after_newest",
    "corrected_at",
    "is_corrected",
    "own_admission",
    "own_claim",
    "own_correction",
    "own_shared_claim",
]
