"""Lanes that wait for a turn of a shared limit and lose it: others feel no gap, and nobody uses the old turn."""

from collections.abc import Callable

import pytest

from chalicelib.core.errors import ConflictError
from tests.factories import NOW
from tests.unit.workshop import Workshop

#: One start each 10 s: a turn that is missed costs those behind it 60 ms.
SLOW = "stripe: 1/10 seconds"


class Row(Workshop):
    """Users whose heads wait for the same shared limit, in this order; the first one has started."""

    def __init__(self, *users: str, tasks_of_bob: int = 1, **groups: str) -> None:
        super().__init__(SHARED_LIMITS=SLOW, LIMITS="100/second")
        for user, group in groups.items():
            self.control.set_group(user, group)
        self.tasks_of = {user: [self.submit(user, user, shared="stripe")] for user in users}
        self.tasks_of["bob"] += [self.submit("bob", "bob", shared="stripe") for _ in range(1, tasks_of_bob)]
        for _ in users:
            self.handle_next()
        self.clock.advance(2_000)

    def starts(self) -> dict[str, int]:
        self.run()
        return {str(user): at for at, user in self.ran}


def cancelled(row: Row, user: str) -> None:
    for task in row.tasks_of[user]:
        row.control.cancel(user, task.task_id)


def emptied(row: Row, user: str) -> None:
    row.clearance.empty(user)


def forgotten(row: Row, user: str) -> None:
    with pytest.raises(ConflictError):
        row.clearance.forget(user)
    emptied(row, user)
    while row.tasks.newest(user, None, 1, None)[0][0].outcome is None:
        row.handle_next()
    row.clock.advance(11)
    assert row.clearance.forget(user).is_done


LOSSES = pytest.mark.parametrize("lose", [cancelled, emptied, forgotten])
Lose = Callable[[Row, str], None]


@LOSSES
@pytest.mark.parametrize("tasks_of_bob", [1, 3])
def test_lane_that_loses_its_turn_leaves_no_gap(lose: Lose, tasks_of_bob: int) -> None:
    row = Row("ann", "bob", "cid", "dan", tasks_of_bob=tasks_of_bob)
    lose(row, "bob")
    starts = row.starts()
    assert starts["cid"] <= 10_100
    assert starts["dan"] - starts["cid"] == 10_000
    assert "bob" not in starts


@LOSSES
def test_last_lane_of_those_that_wait_leaves_the_shared_limit_open(lose: Lose) -> None:
    row = Row("ann", "bob")
    lose(row, "bob")
    row.clock.advance(9_000)
    row.submit("cid", "cid", shared="stripe")
    assert row.starts()["cid"] <= 11_300


@LOSSES
def test_lane_with_new_work_waits_behind_those_that_asked_before_it(lose: Lose) -> None:
    row = Row("ann", "bob", "cid", "dan")
    lose(row, "bob")
    assert row.lanes.get("bob").turn_for("stripe") == 0
    row.submit("bob", "bob", shared="stripe")
    starts = row.starts()
    assert [user for _, user in row.ran] == ["ann", "cid", "dan", "bob"]
    assert starts["bob"] - starts["dan"] == 10_000


@LOSSES
def test_group_keeps_its_turn_when_one_behind_it_is_stopped(lose: Lose) -> None:
    row = Row("ann", "bob", "bea", "cid", bob="acme", bea="acme")
    lose(row, "bea")
    starts = row.starts()
    assert (starts["bob"], starts["cid"]) == (10_000, 20_000)


@LOSSES
def test_whole_group_that_is_stopped_leaves_no_gap(lose: Lose) -> None:
    row = Row("ann", "bob", "bea", "cid", bob="acme", bea="acme")
    lose(row, "bob")
    lose(row, "bea")
    starts = row.starts()
    assert sorted(starts) == ["ann", "cid"]
    assert starts["cid"] <= 10_100


def test_head_that_is_cancelled_leaves_its_turn_to_the_next_task_of_its_lane() -> None:
    row = Row("ann", "bob", "cid", tasks_of_bob=2)
    row.control.cancel("bob", row.tasks_of["bob"][0].task_id)
    assert row.starts() == {"ann": 0, "bob": 10_000, "cid": 20_000}


def test_user_that_joins_a_group_while_it_waits_loses_its_own_turn_alone() -> None:
    row = Row("ann", "bob", "cid", "dan", cid="acme")
    row.control.set_group("bob", "acme")
    starts = row.starts()
    assert starts["cid"] <= 10_100
    assert starts["dan"] - starts["cid"] == 10_000
    assert starts["bob"] - starts["dan"] <= 10_000
    assert row.shared_limits.get("stripe").started == 4


def test_paused_lane_of_a_group_waits_no_more_and_goes_on_when_it_is_resumed() -> None:
    row = Row("ann", "bob", "bea", "cid", bob="acme", bea="acme")
    row.control.pause("bob", NOW + 45_000)
    starts = row.starts()
    assert (starts["bea"], starts["cid"], starts["bob"]) == (10_000, 20_000, 45_000)
