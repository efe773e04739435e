"""Reads the shared limits of a submission's tasks, and says when they let them start.

One read for each shared limit, and none for tasks without one. Nothing is reserved: a task takes its start when it is
claimed, so others may go first, and an answer from this state is a lower bound.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

from chalicelib.core.limits import Limits, smallest_units_quota
from chalicelib.core.shared_estimates import Expected, SharedState, expected_in_turn, state_of
from chalicelib.core.shared_limit import SharedLimit
from chalicelib.core.shared_shards import shard_of
from chalicelib.submit.submission import SharedUse, Submission

#: Tries to find a task's shard, whose number may have changed.
SHARD_TRIES = 3


class SharedLimitReads(Protocol):
    def get(self, name: str) -> SharedLimit: ...


class UnknownShared(Exception):  # noqa: N818 - caught where it is raised for
    """The task with this index names a shared limit that does not exist."""

    def __init__(self, index: int) -> None:
        super().__init__(f"task {index}")
        self.index = index


class SharedLimitsOf:
    """The shared limits of a submission's tasks, as they were read for it: of one with shards, those of its tasks."""

    def __init__(self, submission: Submission, states: Mapping[str, SharedState], items: Sequence[str]) -> None:
        """states: by the name of the item. items: that of each task; empty for a task that wants none now."""
        self._submission = submission
        self._states = states
        self._names = items

    @cached_property
    def expected(self) -> list[Expected | None]:
        """Of each task; None for one without a shared limit, and for one that is scheduled."""
        submission = self._submission
        found: list[Expected | None] = [None] * len(self._names)
        for name, state in self._states.items():
            mine = self._indexes(name)
            units = [submission.units_of(index) for index in mine]
            for index, one in zip(mine, expected_in_turn(state, submission.now_ms, units), strict=True):
                found[index] = one
        return found

    def _indexes(self, name: str) -> list[int]:
        return [index for index, other in enumerate(self._names) if other == name]

    @property
    def uses(self) -> tuple[SharedUse, ...]:
        """Each shared limit that tasks want now, with the starts and units that they want."""
        uses = []
        for name, state in self._states.items():
            mine = self._indexes(name)
            units = sum(map(self._submission.units_of, mine))
            if mine:
                uses.append(SharedUse(state, len(mine), units))
        return tuple(uses)

    def too_large(self) -> tuple[int, str] | None:
        """The first task that has more units than its shared limit ever allows, and why; None if there is none."""
        for index, name in enumerate(self._names):
            quota = smallest_units_quota(self._states[name].limits) if name in self._states else None
            units = self._submission.units_of(index)
            if quota is not None and units > quota:
                limit = self._submission.shared_of(index)
                return index, f"{units} units, more than the {quota} that the shared limit {limit!r} ever allows"
        return None


class SharedLimitReader:
    def __init__(self, store: SharedLimitReads, settings: Mapping[str, Limits]) -> None:
        """settings: the limits of those in SHARED_LIMITS, by name."""
        self._store = store
        self._settings = settings
        #: over how many shards each is spread, as it was read last; those of one are not in it
        self._shards: dict[str, int] = {}

    def read(self, submission: Submission, ids: Sequence[str]) -> SharedLimitsOf:
        """Reads those that tasks want now, and any that only the store may know. Raises UnknownShared.

        ids: of the tasks. Of a shared limit with shards it reads those that they count against.
        """
        states: dict[str, SharedState] = {}
        items = []
        for index, task_id in enumerate(ids):
            name, name_now = submission.shared_of(index), _name_now(submission, index)
            is_read = name and (name_now or name not in self._settings)
            state = self._of_task(name, task_id, states) if is_read else None
            if is_read and state is None:
                raise UnknownShared(index)
            items.append(state.shared.name if state and name_now else "")
        return SharedLimitsOf(submission, states, items)

    def _of_task(self, name: str, task_id: str, states: dict[str, SharedState]) -> SharedState | None:
        """The shard that the task counts against; read again if there is another number of them than was known."""
        for _ in range(SHARD_TRIES):
            item = shard_of(name, task_id, self._shards.get(name, 1))
            shared = states[item].shared if item in states else self._store.get(item)
            if shared.shards > 1:
                self._shards[name] = shared.shards
            else:
                self._shards.pop(name, None)
            if state := state_of(shared, self._settings):
                states[item] = state
            if shard_of(name, task_id, shared.shards) == item:
                break
        return state


def _name_now(submission: Submission, index: int) -> str:
    """The shared limit that the task wants now; empty for none, and for a task that is scheduled."""
    is_scheduled = submission.tasks[index].due_at(submission.now_ms) is not None
    return "" if is_scheduled else submission.shared_of(index)
