"""Handles one scheduled message: waits for its time, then admits, cancels or calls back. Knows neither Lambda nor AWS.

SQS may deliver a message twice, and a process may die at any point, so each step can be repeated: the record of a
scheduled task says whether it is admitted.
"""

import math
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from chalicelib.core.errors import MessageError, NewerMessageError, UnavailableError
from chalicelib.core.ports import Clock, ScheduledQueue, TaskQueue, TaskStore
from chalicelib.core.scheduled import (
    MAX_AHEAD_MS,
    MAX_SQS_DELAY_SECONDS,
    Callback,
    CancelScheduled,
    EmptySchedule,
    ScheduledMessage,
    ScheduledTask,
    from_message,
    to_message,
)
from chalicelib.core.task import Task
from chalicelib.core.visibility import MAX_SLEEP_MS, NEWER_SECONDS, SHORT_SLEEP_MS, again_soon
from chalicelib.scheduled.admission import AdmittedByAnother, DueAdmitter, Postponed
from chalicelib.scheduled.callbacks import Busy, DeliveryFailure
from chalicelib.scheduled.cancellations import ScheduledCancellations

#: SQS hides a message for 12 hours at most, counted from its receive.
MAX_HIDDEN_SECONDS = 43_000
#: Seconds for which a message is hidden while another dispatcher admits the tasks of its user.
BUSY_SECONDS = 1
#: Seconds for which a message is hidden at most while its user's lane takes no task: a resume may open it earlier. The
#: second value holds from POSTPONED_RECEIVES on, so that 14 days stay below the 1,000 receives after which SQS
#: dead-letters a message.
POSTPONED_SECONDS = (900, 3_600)
POSTPONED_RECEIVES = 500
#: A callback is retried after as many milliseconds as it is old, within these bounds,
FIRST_RETRY_MS, MAX_RETRY_MS = 5_000, 6 * 3_600_000
#: and for the last time at this age.
TRIED_FOR_MS = 24 * 3_600_000
#: The message group of dead letters without a user.
NOBODY = "nobody"


class ScheduledDelivery(Struct, frozen=True):
    """A message as the queue delivered it."""

    body: str
    receipt: str
    message_id: str
    #: epoch ms
    sent_at: int
    #: how often SQS delivered it, this time included
    receives: int = 1


class ScheduledDispatcher:
    def __init__(
        self,
        scheduled_queue: ScheduledQueue,
        tasks: TaskStore,
        queue: TaskQueue,
        admitter: DueAdmitter,
        cancellations: ScheduledCancellations,
        send_callback: Callable[[Callback], DeliveryFailure | Busy | None],
        clock: Clock,
        late_up_to_ms: int = 0,
    ) -> None:
        """late_up_to_ms: as in the settings."""
        self._late_up_to_ms = late_up_to_ms
        self._scheduled_queue = scheduled_queue
        self._tasks = tasks
        self._queue = queue
        self._admitter = admitter
        self._cancellations = cancellations
        self._send_callback = send_callback
        self._clock = clock

    def handle(self, delivery: ScheduledDelivery) -> bool:
        """True: the message is done; False: it stays, hidden until it is due. UnavailableError: it reappears."""
        try:
            message = from_message(delivery.body)
        except NewerMessageError:
            self._scheduled_queue.defer(delivery.receipt, NEWER_SECONDS)
            return False
        except MessageError as error:
            self._queue.send_dead(NOBODY, delivery.message_id, delivery.body, str(error))
            return True
        with again_soon(self._scheduled_queue.defer, delivery.receipt, delivery.receives):
            return self._handle(message, delivery)

    def _handle(self, message: ScheduledMessage, delivery: ScheduledDelivery) -> bool:
        if self._is_early(delivery, message.due_at):
            return False
        if isinstance(message, ScheduledTask):
            return self._admit(message, delivery)
        if isinstance(message, CancelScheduled):
            self._cancel(message.task)
            return True
        if isinstance(message, EmptySchedule):
            return self._empty(message, delivery)
        return self._call_back(message, delivery)

    def _is_early(self, delivery: ScheduledDelivery, due_at: int) -> bool:
        wait_ms = due_at - self._clock.now_ms()
        longest_ms = SHORT_SLEEP_MS if self._late_up_to_ms else MAX_SLEEP_MS
        if wait_ms <= 0 or (wait_ms <= longest_ms and not self._clock.sleep(wait_ms)):
            return False
        self._scheduled_queue.defer(delivery.receipt, min((wait_ms + self._late_up_to_ms) // 1000, MAX_HIDDEN_SECONDS))
        return True

    def _admit(self, scheduled: ScheduledTask, delivery: ScheduledDelivery) -> bool:
        outcome = self._admitter.admit(scheduled.task)
        if isinstance(outcome, AdmittedByAnother):
            self._scheduled_queue.defer(delivery.receipt, BUSY_SECONDS)
            return False
        if isinstance(outcome, Postponed):
            return self._postpone(scheduled, outcome.until - self._clock.now_ms(), delivery)
        return True

    def _postpone(self, scheduled: ScheduledTask, wait_ms: int, delivery: ScheduledDelivery) -> bool:
        """Hides the message; True when a new one replaces it, since SQS deletes this one after 14 days.

        Lambda stops a chain of 16 messages that each come from the invocation of the one before, without a log line. A
        new message in 13 days makes no such chain within half a year.
        """
        longest = POSTPONED_SECONDS[delivery.receives >= POSTPONED_RECEIVES]
        seconds = max(1, min(math.ceil(wait_ms / 1000), longest))
        if self._clock.now_ms() + seconds * 1000 < delivery.sent_at + MAX_AHEAD_MS:
            self._scheduled_queue.defer(delivery.receipt, seconds)
            return False
        self._scheduled_queue.send([(scheduled, min(seconds, MAX_SQS_DELAY_SECONDS))])
        with suppress(UnavailableError):  # they are kept for longer than two messages live
            self._tasks.keep_payloads(scheduled.task.user_id, self._clock.now_ms())
        return True

    def _empty(self, message: EmptySchedule, delivery: ScheduledDelivery) -> bool:
        if self._cancellations.cancel_all(message.user_id, message.emptied_at):
            return True
        self._scheduled_queue.defer(delivery.receipt, BUSY_SECONDS)  # a new message for the rest could be one of many
        return False

    def _cancel(self, task: Task) -> None:
        """Finishes and logs a cancelled task, unless it was admitted before its cancellation.

        Each message of one cancellation logs the same line: two requests may cancel at once, and SQS may deliver twice.
        """
        self._cancellations.cancel(task, self._clock.now_ms())

    def _call_back(self, callback: Callback, delivery: ScheduledDelivery) -> bool:
        failure = self._send_callback(callback)
        if failure is None:
            return True
        if isinstance(failure, Busy):
            self._scheduled_queue.defer(delivery.receipt, failure.wait_seconds)
            return False
        age_ms = max(0, self._clock.now_ms() - callback.begun_at)
        if failure.is_final or age_ms >= TRIED_FOR_MS:
            reason = f"callback to {callback.url[:200]}: {failure.reason}"
            self._queue.send_dead(callback.user_id, f"{callback.task_id}-end", to_message(callback), reason)
            return True
        wait_ms = min(max(age_ms, FIRST_RETRY_MS), MAX_RETRY_MS, TRIED_FOR_MS - age_ms)
        self._scheduled_queue.defer(delivery.receipt, math.ceil(wait_ms / 1000))
        return False
