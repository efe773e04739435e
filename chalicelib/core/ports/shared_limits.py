"""The port of the store of shared limits."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from chalicelib.core.limits import Limits
from chalicelib.core.shared_limit import SharedLimit, Taken, Waiter


class SharedWritten(Struct, frozen=True):
    """The write succeeded, possibly in an attempt whose answer was lost; `shared` is its new state."""

    shared: SharedLimit


class SharedStale(Struct, frozen=True):
    """The write's condition failed, so nothing was written; `shared` is its current state."""

    shared: SharedLimit


SharedWrite = SharedWritten | SharedStale


class SharedClaim(Struct, frozen=True):
    """A start under a shared limit, for the write that needs no knowledge of its starts."""

    name: str
    user_id: str
    task_id: str
    #: epoch ms
    at: int
    #: names this one claim, so that a claim whose answer was lost is recognised as done
    token: str
    #: in force
    limits: Limits
    #: set at run time, None for those of the deployment's setting
    own: Limits | None = None
    units: int = 1
    #: the lane's; 0 for none: then nobody else may wait
    turn: int = 0
    #: the turn is newer than all that were used when it was read
    is_newest_turn: bool = False
    #: it gives the next turn too: for another lane of the same group
    asks_again: bool = False
    #: over which the shared limit is spread, as it was read
    shards: int = 1


class Correction(Struct, frozen=True):
    """The units that a start under a shared limit really used."""

    name: str
    #: names this one start
    token: str
    #: when the task started, epoch ms
    started_at: int
    #: beyond those that it was claimed with; below 0 if it used less
    more: int


def is_corrected(shared: SharedLimit, correction: Correction) -> bool:
    return correction.token in shared.corrected


def own_shared_claim(write: SharedWrite, token: str) -> SharedWrite:
    """The write as SharedWritten if the newest claim shows that it succeeded in an earlier call."""
    return SharedWritten(write.shared) if write.shared.newest == token else write


class SharedLimitStore(Protocol):
    """Stores shared limits. Each write is one atomic write. Methods raise UnavailableError if the store fails.

    A claim has twins, as with lanes: a fast one, whose condition decides by itself on an ordinary shared limit, and an
    exact one, for any that was read (`seen`). A shared limit is ordinary if it is neither paused nor throttled, has the
    limits and shards that the claim was computed from, and shows by a list of starts, neither too short nor too long,
    and by the room in the large limits, that it allows the start.
    """

    def get(self, name: str) -> SharedLimit:
        """Returns the shared limit by a strongly consistent read; an empty one if nothing is stored."""
        ...

    def names(self) -> Sequence[str]:
        """Returns the names of those that were changed at run time, in order."""
        ...

    def try_claim(self, claim: SharedClaim) -> SharedWrite:
        """Takes the start at claim.at, on an ordinary shared limit that allows it; lists the task if it counts at once.

        Without a turn stale while others wait. With the newest turn, all up to it count as used. Claims with turns
        may be written in any order.
        """
        ...

    def claim(self, seen: SharedLimit, taken: Taken) -> SharedWrite:
        """Takes the start. Stale if the shared limit changed, or another start was taken."""
        ...

    def trim(self, seen: SharedLimit, kept: int) -> None:
        """Drops the starts seen behind the newest `kept` ones, and counts the turns seen as used into `served`.

        A start that was taken meanwhile makes that older ones stay. Only for a shared limit without large limits.
        """
        ...

    def change(self, seen: SharedLimit, changed: SharedLimit) -> SharedWrite:
        """Writes limits, pause, throttling, shards and starts; drops the list of those that run if `changed` has none.

        Stale if they changed, or if `changed` has other starts and one was taken meanwhile.
        """
        ...

    def ask(self, name: str) -> SharedLimit:
        """Gives the next turn: `asked` of the answer. A turn of a lost answer is passed over."""
        ...

    def withdraw(self, name: str, turn: int) -> None:
        """Takes back the turn that `ask` gave, by one try, unless it was used or a later one was given.

        Then it is passed over.
        """
        ...

    def save_group_turn(self, queue: SharedLimit, served: int, turn: int, turn_from: int) -> SharedWrite:
        """Stores a group's turn of a shared limit in the group's queue, and the newest number in it that was used.

        turn_from: from when on the group may use it, epoch ms. Stale if turn or number is not that of `queue`.
        """
        ...

    def correct_units(self, correction: Correction, now_ms: int) -> SharedWrite:
        """Counts the units that a start really used: more from now_ms on, less are given back at the start.

        Once for each token, whatever is repeated. Stale, if more were used, while a start lies at now_ms or later:
        another worker may have claimed it before it could know of them.
        """
        ...

    def throttle(self, name: str, until: int, reason: str) -> SharedLimit:
        """Lets nothing start until `until`, epoch ms, unless it is throttled for longer already, or changes."""
        ...

    def release(self, name: str, task_id: str, at: int) -> SharedLimit:
        """Takes a task off those that run at once, if it is listed with that start, epoch ms. A repeat changes nothing.

        Returns the shared limit, whose turns say whether somebody waits.
        """
        ...

    def add_waiter(self, name: str, waiter: Waiter, until: int) -> None:
        """Lists a lane that waits for its turn, about until that time, epoch ms."""
        ...

    def waiters(self, name: str, after_turn: int, most: int) -> list[Waiter]:
        """Returns the first `most` listed lanes with a turn greater than `after_turn`, in order of their turns."""
        ...
