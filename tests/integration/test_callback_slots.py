"""The contract of the slots for callbacks, over every adapter: never more than `most` at once for one user."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import NOW
from tests.integration.ports import Ports

MOST = 3
UNTIL = NOW + 60_000


def fill(ports: Ports, user: str, until_ms: int = UNTIL) -> list[int | None]:
    return [ports.callback_slots.take(user, NOW, until_ms + n, MOST) for n in range(MOST)]


def test_a_user_has_so_many_slots_and_no_more(ports: Ports, user: str) -> None:
    assert sorted(slot for slot in fill(ports, user) if slot is not None) == [0, 1, 2]
    assert ports.callback_slots.take(user, NOW + 1, UNTIL + 1, MOST) is None
    assert None not in fill(ports, f"{user}-other")


def test_slot_that_is_given_back_can_be_taken_again(ports: Ports, user: str) -> None:
    slots = fill(ports, user)
    for n, slot in enumerate(slots):
        assert slot is not None
        ports.callback_slots.give_back(user, slot, UNTIL + n)
        assert ports.callback_slots.take(user, NOW, UNTIL + 9, MOST) == slot
        assert ports.callback_slots.take(user, NOW, UNTIL + 9, MOST) is None


def test_slot_of_a_process_that_died_is_free_after_its_time(ports: Ports, user: str) -> None:
    fill(ports, user)
    assert ports.callback_slots.take(user, UNTIL - 1, UNTIL + 60_000, MOST) is None
    assert ports.callback_slots.take(user, UNTIL, UNTIL + 60_000, MOST) is not None
    assert ports.callback_slots.take(user, UNTIL, UNTIL + 60_000, MOST) is None


@pytest.mark.parametrize("again", [1, 2])
def test_slot_that_another_callback_has_by_now_is_not_given_back(ports: Ports, user: str, again: int) -> None:
    fill(ports, user)
    late = ports.callback_slots.take(user, UNTIL + MOST, UNTIL + 60_000, MOST)
    assert late is not None
    for _ in range(again):
        for until_ms in (UNTIL, UNTIL + 1, UNTIL + 2):
            ports.callback_slots.give_back(user, late, until_ms)
    others = [ports.callback_slots.take(user, UNTIL + MOST, UNTIL + 60_001, MOST) for _ in range(MOST)]
    assert len([slot for slot in others if slot is not None]) == MOST - 1
    assert late not in others


def test_a_lowered_bound_holds_at_once(ports: Ports, user: str) -> None:
    assert ports.callback_slots.take(user, NOW, UNTIL, 1) == 0
    assert ports.callback_slots.take(user, NOW, UNTIL, 1) is None


def test_slots_are_no_tasks(ports: Ports, user: str) -> None:
    fill(ports, user)
    assert ports.tasks.newest(user, None, 10, None) == ([], None)


def test_of_many_at_once_as_many_as_there_are_slots_get_one(
    atomic_ports: Ports, user: str, in_threads: Callable[[int, Callable[[int], Any]], list[Any]]
) -> None:
    slots = in_threads(8, lambda n: atomic_ports.callback_slots.take(user, NOW, UNTIL + n, MOST))
    assert sorted(slot for slot in slots if slot is not None) == [0, 1, 2]
