"""Hides the messages that have to wait, and sees to it that whoever ends the wait early can wake them."""

from contextlib import suppress

from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lane
from chalicelib.core.ports import Clock, LaneStore, TaskQueue, TaskStore, Write, Written
from chalicelib.core.recovery import tasks_to_send_again
from chalicelib.core.task import Task
from chalicelib.settings import Settings
from chalicelib.worker.known_lanes import KnownLanes
from chalicelib.worker.messages import Deferred, Delivery
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.steps import LEAD_MS

#: Seconds for which a message is hidden at most. 24 receives a day stay below the 1,000 after which SQS dead-letters a
#: message, and a lane whose wake-up was lost with its worker goes on within the hour.
MAX_DEFERRAL_SECONDS = 3_600
#: Milliseconds of wait from which on the lane stores the hidden message's receipt, so that a resume can wake it.
SAVE_RECEIPT_AFTER_MS = 3_000
#: Age of a message, in milliseconds, from which on a worker that hides it sends the lane's last task again, since SQS
#: deletes messages after 14 days.
SEND_AGAIN_AFTER_MS = 12 * 24 * 3_600_000
#: Milliseconds after which it does so again.
SEND_AGAIN_EVERY_MS = 12 * 3_600_000


class Hider:
    """Thread-safe for different lanes."""

    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        clock: Clock,
        settings: Settings,
        known: KnownLanes,
        shared: SharedClaims | None,
    ) -> None:
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._clock = clock
        self._settings = settings
        self._known = known
        self._shared = shared

    def hide(self, delivery: Delivery, deferred: Deferred, task: Task) -> Lane | None:
        """Hides the message, and stores its receipt in the lane if the wait is long.

        Returns the lane as it is if it changed, so the wait is to be decided again. First hidden, then stored: whoever
        changes the lane afterwards finds the receipt and wakes the message.
        """
        latest = deferred.until + self._settings.late_up_to_ms
        self._queue.defer(delivery.receipt, _hidden_seconds(latest, self._clock.now_ms()))
        if deferred.lane is None or deferred.until - self._clock.now_ms() < SAVE_RECEIPT_AFTER_MS:
            return None
        write = self._save_receipt(deferred, delivery, task)
        if write is None:
            return None
        if not isinstance(write, Written) or _has_missed_start(deferred.lane, write.lane):
            return write.lane
        lane = self._known.remember(write.lane)
        if deferred.is_for_shared and self._shared and self._shared.is_open(task):
            # Whoever opened it may have looked for the receipt before it was stored, or wakes the message now.
            self._queue.defer(delivery.receipt, 0)
        self._outlive(delivery, lane)
        return None

    def _save_receipt(self, deferred: Deferred, delivery: Delivery, task: Task) -> Write | None:
        """None if no change of the lane is to wake the message."""
        lane = deferred.lane
        assert lane is not None, "a wait that a change may end was decided on a lane"
        if delivery.user_id == task.user_id:
            return self._lanes.save_head_receipt(lane, delivery.receipt)
        lease = (lane.slots or {}).get(task.task_id)
        if lease:
            visible_at = min(deferred.until, self._clock.now_ms() + MAX_DEFERRAL_SECONDS * 1000)
            return self._lanes.save_slot_receipt(lane, lease, delivery.receipt, visible_at)
        is_next = lane.started_seq == task.seq - 1
        return self._lanes.save_next_receipt(lane, delivery.receipt) if is_next else None

    def _outlive(self, delivery: Delivery, lane: Lane) -> None:
        """Sends a younger message into the lane if SQS soon deletes this one, so the lane goes on without it."""
        now_ms = self._clock.now_ms()
        age_ms = now_ms - delivery.sent_at
        if age_ms < SEND_AGAIN_AFTER_MS:
            return
        if age_ms % SEND_AGAIN_EVERY_MS < MAX_DEFERRAL_SECONDS * 1000:
            for task in tasks_to_send_again(lane, self._tasks, now_ms):
                self._queue.send_again(task, now_ms)
        with suppress(UnavailableError):  # the next look is within the hour
            # Last, since it reads all of the user's payloads: it may take longer than the function has.
            self._tasks.keep_payloads(delivery.user_id, now_ms)


def _has_missed_start(seen: Lane, stored: Lane) -> bool:
    """True if the task that waited for a shared limit started before it could find the head's receipt and wake it."""
    return bool(seen.awaited_shared) and stored.started_seq != seen.started_seq


def _hidden_seconds(until: int, now_ms: int) -> int:
    """Whole seconds that end before the claim's lead to `until` begins; the worker sleeps the rest of the wait."""
    return max(0, min((until - LEAD_MS - now_ms) // 1000, MAX_DEFERRAL_SECONDS))
