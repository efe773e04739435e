"""Checks the answers to submits against the true history, in worlds where no call fails and all clocks agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.core.lane import Lane
from chalicelib.core.limits import Limits, parse_limits, small_limits
from tests.simulation.promises import History, Known
from tests.simulation.schedule import Plan, SetLimits

#: How long after its start a running task may have no mark in its lane yet, ms.
UNMARKED_MS = 1_600


@dataclass(frozen=True)
class Ahead:
    """The tasks ahead of one admission."""

    #: a task that runs for more than a second, or waits for its next attempt: the lane has to know it
    blocking: str
    #: anything that a task may wait for besides its limits
    possible: str
    #: when the next attempt of a failed task may start, epoch ms
    retry_at: int = 0
    #: starts of second and later attempts, and the limits that they count against; none after a change of limits
    retries: tuple[int, ...] = ()
    limits: Limits = ()


class Answers:
    """A task that may start now is not behind one that blocks it, and a task that waits has a reason to."""

    def __init__(self, history: History, plan: Plan) -> None:
        self._history = history
        self._is_calm = plan.is_calm
        texts = [plan.limits, *(action.limits or "" for action in plan.actions if isinstance(action, SetLimits))]
        #: with several tasks at once one that runs blocks nobody by itself
        self._is_beside = any("at once" in text for text in texts)
        has_one_limit = not any(isinstance(action, SetLimits) for action in plan.actions)
        self._limits = small_limits(parse_limits(plan.limits)) if has_one_limit else ()
        self._ahead: dict[str, Ahead] = {}

    def admitted(self, lane: Lane, count: int, now: int) -> None:
        """lane: as the admission of `count` tasks left it."""
        mine = [one for one in self._history.known.values() if one.task.user_id == lane.user_id and not one.outcome]
        blocking = [one.tag for one in mine if _blocks(one, now)]
        possible = [one.tag for one in mine if one.starts] + [f"{lane.waiting - count} waiting"] * (
            lane.waiting > count
        )
        possible += ["the newest start"] * (bool(lane.starts) and lane.starts[0] > now - UNMARKED_MS)
        possible += ["the pause"] * lane.is_paused(now) + ["the throttling"] * (lane.throttled_until > now)
        retry_at = max((one.starts[-1].retry_at for one in mine if _blocks(one, now)), default=0)
        all_mine = [one for one in self._history.known.values() if one.task.user_id == lane.user_id]
        retries = tuple(start.at for one in all_mine for start in one.starts[1:])
        self._ahead[lane.newest] = Ahead(", ".join(blocking), ", ".join(possible), retry_at, retries, self._limits)

    def answered(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        admitted = [task for task in tasks if task["seq"]]
        ahead = self._ahead.get(admitted[-1]["task_id"]) if admitted else None
        if not self._is_calm or self._is_beside or ahead is None:
            return
        self._history.figures["answers looked at"] += 1
        self._history.figures["of those behind a task that blocks"] += bool(ahead.blocking)
        if wrong := self._wrong(admitted[0], ahead):
            self._history.breaks("true answers", f"seq {admitted[0]['seq']} {wrong}")

    def _wrong(self, first: Mapping[str, Any], ahead: Ahead) -> str:
        """The fault in the answer about the first of the tasks; empty if there is none."""
        is_allowed = first["planned_at"] <= self._history.known[first["task_id"]].begun_at
        if first["position"] == 0 and ahead.blocking:
            return f"may start now, behind {ahead.blocking}"
        if first["planned_at"] < ahead.retry_at:
            return f"is planned before the next attempt of {ahead.blocking}"
        for limit in ahead.limits:
            begin = first["planned_at"] - limit.window_ms
            if sum(begin < at <= first["planned_at"] for at in ahead.retries) >= limit.quota:
                return f"is planned where later attempts have used up {limit}"
        if first["position"] and is_allowed and not ahead.possible:
            return "has to wait, and nothing is ahead of it"
        return ""


def _blocks(known: Known, now: int) -> bool:
    if not known.starts or known.cancel_begun:
        return False
    start = known.starts[-1]
    is_running = known.running_in is not None and known.running_in.is_alive and start.at <= now - UNMARKED_MS
    return is_running or start.retry_at > now
