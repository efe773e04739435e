"""The lanes that a worker remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from chalicelib.core.lane import Lane
from chalicelib.worker.known_lanes import LANES_REMEMBERED, KnownLanes, NoPresence
from tests.factories import VirtualClock


class Interrupted(dict[str, Lane]):
    """Lets another thread run, once, while the oldest lane is looked for."""

    def __init__(self, run: Callable[[], object]) -> None:
        super().__init__()
        self.other, self.is_started = threading.Thread(target=run), False

    def __iter__(self) -> Iterator[str]:
        lanes = super().__iter__()
        if not self.is_started:
            self.is_started = True
            self.other.start()
            self.other.join(0.05)  # it may have to wait until the lane is found
        return lanes


def test_a_thread_that_remembers_a_lane_while_another_one_forgets_the_oldest() -> None:
    known = KnownLanes(NoPresence(), VirtualClock())
    known._lanes = lanes = Interrupted(lambda: known.put(Lane("bob")))
    for number in range(LANES_REMEMBERED + 1):
        known.remember(Lane(f"ann-{number}"))
    lanes.other.join()
    assert len(lanes) == LANES_REMEMBERED
    assert "bob" in lanes
