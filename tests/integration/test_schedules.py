"""The contract of the store of schedules, over every adapter."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from chalicelib.core.limits import parse_limits
from chalicelib.core.schedule import Order, Pending, Refusal, Schedule
from chalicelib.core.ticks import Timing
from tests.factories import NOW
from tests.integration.ports import Ports

InThreads = Callable[[int, Callable[[int], Any]], list[Any]]


def make_schedule(user: str, name: str = "report", revision: int = 1, payload: Any = None) -> Schedule:
    timing = Timing("0 8 * * *", "Europe/Zurich")
    return Schedule(user, name, Order(payload=payload), timing, False, NOW, "g", NOW + 5, bell=7, revision=revision)


PAYLOADS = [None, "text \u2028 \U0001f600", {"n": 2**70, "f": 1.5, "l": [1, None, True]}, ["x" * 50_000]]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(4))
def test_a_schedule_is_read_as_it_was_stored(ports: Ports, user: str, payload: Any) -> None:
    plain = make_schedule(user, payload=payload)
    full = replace(
        plain,
        order=replace(plain.order, units=5, counted_units=5, callback_url="https://hooks.example.com/"),
        pending=Pending(NOW, "token", NOW + 9),
        last_at=NOW - 9,
        last_task_id="0198",
        refused=3,
        refusal=Refusal(NOW - 9, "The limit is reached"),
        paused=True,
        revision=2,
    )
    assert ports.schedules.get(user, "report") is None
    assert ports.schedules.save(plain, 0)
    assert ports.schedules.get(user, "report") == plain
    assert ports.schedules.save(full, 1)
    assert ports.schedules.get(user, "report") == full
    assert ports.schedules.delete(user, "report") == full
    assert ports.schedules.delete(user, "report") is None
    assert ports.schedules.get(user, "report") is None


def test_a_write_needs_the_revision_that_was_seen(ports: Ports, user: str) -> None:
    first = make_schedule(user)
    assert not ports.schedules.save(replace(first, revision=4), 3)
    assert ports.schedules.save(first, 0)
    assert not ports.schedules.save(replace(first, bell=8), 0)
    assert ports.schedules.save(replace(first, revision=2), 1)
    assert not ports.schedules.save(replace(first, revision=2, bell=8), 1)
    assert ports.schedules.get(user, "report") == replace(first, revision=2)


def test_a_write_whose_answer_was_lost_is_taken_for_written(ports: Ports, user: str) -> None:
    first = make_schedule(user)
    assert ports.schedules.save(first, 0)
    assert ports.schedules.save(first, 0)
    second = replace(first, revision=2, pending=Pending(NOW, "token", NOW + 9))
    assert ports.schedules.save(second, 1)
    assert ports.schedules.save(second, 1)


def test_of_many_that_take_a_tick_at_once_one_does(atomic_ports: Ports, user: str, in_threads: InThreads) -> None:
    first = make_schedule(user)
    atomic_ports.schedules.save(first, 0)

    def take(number: int) -> bool:
        return atomic_ports.schedules.save(replace(first, revision=2, pending=Pending(NOW, str(number), NOW)), 1)

    assert sum(in_threads(8, take)) == 1


def test_pages_are_by_name(ports: Ports, user: str) -> None:
    names = ["a", "a-1", "a.1", "aa", "b", "report"]
    for name in reversed(names):
        ports.schedules.save(make_schedule(user, name), 0)
    ports.schedules.save(make_schedule(f"{user}-2", "other"), 0)
    found, after = list[str](), ""
    while after is not None:
        page, after = ports.schedules.page(user, after, 2)
        assert len(page) <= 2
        found += [one.name for one in page]
    assert found == sorted(names)
    assert ports.schedules.page(f"{user}-3", "", 5) == ([], None)


def test_names_are_counted(ports: Ports, user: str) -> None:
    assert [ports.schedules.add_name(user, name, 2) for name in "abca"] == [True, True, False, True]
    ports.schedules.remove_name(user, "missing")
    ports.schedules.remove_name(user, "a")
    assert [ports.schedules.add_name(user, name, 2) for name in "cd"] == [True, False]


def test_no_more_names_than_allowed_however_many_come_at_once(
    atomic_ports: Ports, user: str, in_threads: InThreads
) -> None:
    assert sum(in_threads(8, lambda number: atomic_ports.schedules.add_name(user, f"n{number}", 3))) == 3


def test_users_with_schedules_are_listed_and_lanes_are_not(ports: Ports, user: str) -> None:
    users = [f"{user}-{n}" for n in range(3)]
    for one in users:
        ports.schedules.add_name(one, "report", 5)
    ports.lanes.try_fast_admit(f"{user}-lane", parse_limits("1/second"), NOW, "0198")
    assert listed(ports, user, 2) == users
    assert f"{user}-0" not in ports.directory.user_ids(user, "", 10)
    ports.schedules.remove_name(users[1], "report")
    assert listed(ports, user, 2) == [users[0], users[2]]


def listed(ports: Ports, prefix: str, limit: int) -> list[str]:
    """Users that begin so, by pages; the adapters of one module share their tables."""
    found, after = list[str](), ""
    while page := ports.schedules.users(after, limit):
        assert len(page) <= limit
        found, after = found + page, page[-1]
    return [one for one in found if one.startswith(prefix)]


def test_one_search_at_a_time_goes_on_where_the_last_one_ended(ports: Ports) -> None:
    start = NOW + int(uuid4().int % 10**15)  # later than any search that other tests of the module began
    ports.schedules.try_begin_search(start, start + 10)
    ports.schedules.end_search("ann")
    assert ports.schedules.try_begin_search(start + 9, start + 19) is None
    assert ports.schedules.try_begin_search(start + 10, start + 20) == "ann"
    ports.schedules.end_search("")
    assert ports.schedules.try_begin_search(start + 20, start + 30) == ""
