"""A thousand waiting tasks of one user while another number at once comes: order of starts, nothing lost or twice."""

from collections.abc import Sequence

from tests.factories import NOW
from tests.simulation.schedule import Behaviour, Plan, SetLimits, Submit
from tests.simulation.world import World

TASKS = 1_000
BULK = 100
RUNS_MS = 400


class Backlog:
    """A simulated user with a thousand tasks, whose limits change after two seconds."""

    def __init__(self, before: str, after: str, is_lambda: bool, first_ms: Sequence[int] = ()) -> None:
        """first_ms: how long the first tasks run; the others run for RUNS_MS."""
        runs_ms = [*first_ms, *[RUNS_MS] * (TASKS - len(first_ms))]
        bulks = [tuple(Behaviour(ms) for ms in runs_ms[first : first + BULK]) for first in range(0, TASKS, BULK)]
        submits = [Submit(100 * n, "ann", f"bulk{n}", behaviours) for n, behaviours in enumerate(bulks)]
        changed = SetLimits(2_000, "ann", after)
        workers = 12 if is_lambda else 3
        self._world = World(Plan(0, before, is_lambda, workers, (0,) * (2 + workers), (*submits, changed)))
        result = self._world.run()
        assert not result.broken, result.broken

    @property
    def starts(self) -> list[tuple[int, int]]:
        """Milliseconds since the beginning and seq of each start, in the order of the claims."""
        known = self._world.history.known
        return [(one.at - NOW, known[one.task_id].task.seq) for one in self._world.history.starts["ann"]]

    def running_at(self, at: int) -> int:
        events = self._world.log.events
        return sum(one["started_at"] - NOW <= at < one["completed_at"] - NOW for one in events)

    def assert_each_ran_once_and_started_in_order(self) -> None:
        events = self._world.log.events
        assert [seq for _, seq in self.starts] == list(range(1, TASKS + 1))
        assert sorted(event["seq"] for event in events) == list(range(1, TASKS + 1))
        assert {event["event"] for event in events} == {"task_completed"}


def test_five_run_at_once_as_soon_as_they_may_with_a_thousand_waiting() -> None:
    backlog = Backlog("50/second", "50/second; 5 at once", is_lambda=True)
    backlog.assert_each_ran_once_and_started_in_order()
    starts = [at for at, _ in backlog.starts]
    before = [at for at in starts if at < 2_000]
    assert max(map(backlog.running_at, before)) == 1
    assert max(map(backlog.running_at, starts)) == 5
    assert starts[-1] < 0.4 * TASKS * RUNS_MS, "five side by side, each with its way through the queue"


def test_nothing_starts_until_fewer_than_two_run_where_five_ran_with_a_thousand_waiting() -> None:
    runs_ms = (30_000, 9_000, 6_000, 7_000, 8_000)
    backlog = Backlog("50/second; 5 at once", "50/second; 2 at once", is_lambda=False, first_ms=runs_ms)
    backlog.assert_each_ran_once_and_started_in_order()
    starts = [at for at, _ in backlog.starts]
    assert backlog.running_at(2_000) == 5, "what runs goes on"
    sixth = starts[5]
    assert 9_000 <= sixth < 10_500, "the fourth of them has just ended"
    assert max(map(backlog.running_at, starts[5:])) == 2
