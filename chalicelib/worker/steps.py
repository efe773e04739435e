"""The facts that a worker's next step with a task follows from, and the steps that there are."""

from msgspec import Struct

from chalicelib.core.claim import Gap, SharedStart, Start
from chalicelib.core.lane import Lane
from chalicelib.core.limits import Limit, Limits
from chalicelib.core.task import Task, TaskRecord

#: Milliseconds before its time at which a start is claimed, so that the write's duration makes no start late.
LEAD_MS = 150
#: Milliseconds, from its own submit, for which a task waits for a predecessor that is in no record.
GAP_GRACE_MS = 2_000
#: Milliseconds between two looks for that predecessor.
GAP_POLL_MS = 50
#: Milliseconds from its receive for which a worker keeps looking for a predecessor's start, or a slot of brief tasks.
#: Meanwhile it handles no other message, which matters where all workers are busy.
LOOK_FOR_MS = 1_000
#: Milliseconds after which the worker looks again at a task whose lease ran out while the worker that runs it lives.
SERVED_POLL_MS = 2_500

#: Age of a message, in milliseconds, from which on a task without a record has finished: a submit stores the record
#: within seconds, and it is kept for longer than this after the task's end.
RECORD_EXPIRED_AFTER_MS = 600_000


class Facts(Struct, frozen=True):
    """The facts about a task that a worker has read so far."""

    #: None: not read; the lane is then assumed to be idle, with this task next
    lane: Lane | None = None
    #: `lane` was read or written since this message arrived, so it needs no second read
    is_lane_fresh: bool = False
    #: the record as stored; None if there is none, or before `is_record_read`
    record: TaskRecord | None = None
    is_record_read: bool = False
    #: records of the tasks in the gap before this one; None before they are read
    predecessors: tuple[TaskRecord, ...] | None = None
    #: all of the user's records were searched for them
    is_search_whole: bool = False
    #: a live process of this machine runs the task, although its lease ran out
    is_served: bool = False
    #: how many of the user's other tasks in slots live processes of this machine run, although their leases ran out
    served_beside: int = 0
    #: its message is in a group of its own, where it delays no other task
    is_forwarded: bool = False
    #: how often SQS delivered its message, this time included, and when it did now, epoch ms
    receives: int = 1
    received_at: int = 0
    #: the start that the task has taken of its shared limit, not yet in its lane
    shared_start: SharedStart | None = None
    #: when its message was sent to the group that it is in, epoch ms
    sent_at: int = 0
    #: the shared limit that the task or its lane's next one needs opens within LOOK_FOR_MS; None before it is read
    is_shared_near: bool | None = None
    #: the lane's next task, submitted after the emptying that cancelled this one, has had its chance to start
    gave_way: bool = False


class ReadLane(Struct, frozen=True):
    """Read the lane: it is unknown, or perhaps too old to decide on."""


class ReadRecord(Struct, frozen=True):
    """Read the task's record: the task may be finished already."""


class ReadPredecessors(Struct, frozen=True):
    """Read the records of the tasks in the gap. is_whole: search all of the user's records for them."""

    gap: Gap
    is_whole: bool = False


class ReadNewest(Struct, frozen=True):
    """Read the record of the lane's newest task, which is the only one in the gap: a search would read hundreds."""

    gap: Gap


class ReadShared(Struct, frozen=True):
    """Read the shared limit: whether it soon lets a task of the lane start."""

    name: str


class RunFirst(Struct, frozen=True):
    """Run these tasks first, in order: their messages have not arrived."""

    predecessors: tuple[Task, ...]


class WaitUntil(Struct, frozen=True):
    """Wait until `wake_at`, epoch ms, or defer the message until shortly before `until`; then decide again."""

    until: int
    wake_at: int
    #: it waits for a slot of its lane
    is_for_slot: bool = False
    #: it waits for its shared limit to open, or for a task that runs under it to end
    is_for_shared: bool = False


class Forward(Struct, frozen=True):
    """Send these tasks' messages to groups of their own. Then the message in hand is done, or hidden until then."""

    tasks: tuple[Task, ...]
    #: epoch ms; None if the message in hand is done
    then_wait_until: int | None = None


class SendBack(Struct, frozen=True):
    """Send the forwarded message to the lane's group again, where each change of the lane wakes it; drop this one."""


class Claim(Struct, frozen=True):
    """Claim the start. is_fast: by the conditional write that needs no knowledge of the lane."""

    start: Start
    is_fast: bool


class Skip(Struct, frozen=True):
    """Drop the message: the task is finished."""


class DropCancelled(Struct, frozen=True):
    """Log that the task was cancelled, and take it out of the lane. `last`: its last attempt, None before the first."""

    last: Start | None = None


class DropEmptied(Struct, frozen=True):
    """Log that the task was cancelled by an emptying of its lane at that time, epoch ms."""

    at: int


class ForwardNext(Struct, frozen=True):
    """Send this task's message, which is behind this one, to a group of its own. Then go on with the task in hand."""

    following: Task


class GiveUp(Struct, frozen=True):
    """Fail the task: each of its attempts lost its worker. `start` would be one attempt too many."""

    start: Start


class FailTooLarge(Struct, frozen=True):
    """Fail the task: it has more units than this limit ever allows. `last`: its last attempt, None before the first."""

    limit: Limit
    last: Start | None = None
    #: it has failed already, and only the lane does not show it yet
    is_finished: bool = False


Step = (
    ReadLane
    | ReadRecord
    | ReadPredecessors
    | ReadNewest
    | ReadShared
    | RunFirst
    | WaitUntil
    | Forward
    | SendBack
    | Claim
    | Skip
    | DropCancelled
    | DropEmptied
    | ForwardNext
    | GiveUp
    | FailTooLarge
)


class Rules(Struct, frozen=True):
    """The limits and the number of attempts that hold for the task."""

    default_limits: Limits
    max_attempts: int


def fail_too_large(facts: Facts, lane: Lane, task: Task, limit: Limit) -> Step:
    """Fails the task, by the lane and the record as they are now."""
    if not facts.is_lane_fresh:
        return ReadLane()
    if not facts.is_record_read:
        return ReadRecord()
    is_finished = facts.record is not None and facts.record.outcome is not None
    return FailTooLarge(limit, last_attempt(lane, task), is_finished)


def last_attempt(lane: Lane, task: Task) -> Start | None:
    lease = lane.lease_of(task.task_id)
    if lease is None or not lease.starts:
        return None
    slot = task.task_id if lease.in_slot else ""
    return Start(lease.starts[-1], lease.attempt, min(task.planned_at, lease.starts[0]), lane, slot=slot)


def is_record_expired(facts: Facts, now_ms: int) -> bool:
    """True if the task has finished so long ago that its record was deleted.

    A younger message without a record may be of a submit that is about to store it.
    """
    is_missing = facts.is_record_read and facts.record is None
    return is_missing and 0 < facts.sent_at <= now_ms - RECORD_EXPIRED_AFTER_MS
