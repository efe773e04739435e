"""The lanes that a worker has seen, and what each one says about a task's message."""

import threading
from contextlib import AbstractContextManager, nullcontext

from msgspec.structs import replace

from chalicelib.core.lane import Lane, Phase
from chalicelib.core.ports import Clock, Presence
from chalicelib.core.task import Task
from chalicelib.worker.steps import Facts

#: Lanes that a worker remembers, so that most claims succeed with their first write.
LANES_REMEMBERED = 10_000


class NoPresence:
    """Null object for Lambda, where a running task's message stays hidden, or its worker ends."""

    def serving(self, _token: str) -> AbstractContextManager[None]:
        return nullcontext()

    def is_served(self, _token: str) -> bool:
        return False


class KnownLanes:
    """Remembers each lane as it was last seen. Thread-safe."""

    def __init__(self, presence: Presence, clock: Clock) -> None:
        self._presence = presence
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        #: whoever changes the lanes takes it: the oldest can't be found while another thread does
        self._lock = threading.Lock()

    def facts(self, task: Task) -> Facts:
        """The facts about the task's message, with its lane as it is remembered."""
        lane = self._lanes.get(task.user_id)
        return Facts(lane, is_served=lane is not None and self._is_served(task, lane))

    def facts_with(self, lane: Lane, task: Task, facts: Facts) -> Facts:
        """The facts about the task's message, with this lane, just read."""
        times = {"receives": facts.receives, "received_at": facts.received_at, "sent_at": facts.sent_at}
        others = {"is_forwarded": facts.is_forwarded, "shared_start": facts.shared_start}
        others["is_shared_near"] = facts.is_shared_near
        return replace(self._fresh_facts(task, lane), **others, **times)

    def remember(self, lane: Lane) -> Lane:
        """Keeps the average run time for the next claim to store, unless a task has started since it was computed."""
        with self._lock:
            known = self._lanes.pop(lane.user_id, None)
            if known and known.took_ms and known.started == lane.started:
                lane = replace(lane, took_ms=known.took_ms)
            self._add(lane)
        return lane

    def put(self, lane: Lane) -> None:
        """Remembers the lane as it is, with the run time that it has."""
        with self._lock:
            self._add(lane)

    def _add(self, lane: Lane) -> None:
        self._lanes[lane.user_id] = lane
        if len(self._lanes) > LANES_REMEMBERED:
            del self._lanes[next(iter(self._lanes))]

    def forget(self, user_id: str) -> None:
        with self._lock:
            self._lanes.pop(user_id, None)

    def _fresh_facts(self, task: Task, lane: Lane) -> Facts:
        is_served, beside = self._is_served(task, lane), self._served_beside(task, lane)
        return Facts(self.remember(lane), is_lane_fresh=True, is_served=is_served, served_beside=beside)

    def _is_served(self, task: Task, lane: Lane) -> bool:
        lease = lane.lease_of(task.task_id)
        return lease is not None and self._presence.is_served(lease.token)

    def _served_beside(self, task: Task, lane: Lane) -> int:
        """Only leases that ran out cost a look, and a quick claim counts those too."""
        now_ms, others = self._clock.now_ms(), (lane.slots or {}).values()
        over = [one for one in others if one.until <= now_ms and one.phase is not Phase.RETRY]
        return sum(one.task_id != task.task_id and self._presence.is_served(one.token) for one in over)
