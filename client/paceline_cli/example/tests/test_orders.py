"""Runs the tasks in a Paceline in memory: no AWS, and no waiting, since its clock is virtual."""

import pytest

from paceline.testing import MemoryPaceline
from tasks import orders


def test_three_of_these_start_within_two_seconds() -> None:
    paceline = MemoryPaceline(LIMITS="1/second; 20/minute")
    for number in range(5):
        paceline.submit("ann", {"order": f"A-{number}", "cents": 250}, "charge")
    paceline.advance(2)
    assert paceline.starts_of("ann") == [0, 1, 2]


def test_paceline_finds_the_tasks_of_the_folder() -> None:
    paceline = MemoryPaceline(TASKS_DIR="tasks")
    assert not paceline.submit("ann", {"order": "A-1", "cents": 250}, "charge").queued


def test_an_order_without_an_amount_fails_at_once() -> None:
    paceline = MemoryPaceline()
    submitted = paceline.submit("ann", {"order": "A-1", "cents": 0}, "charge")
    paceline.run()
    failed = paceline.task(submitted)
    assert (failed.state, failed.attempts) == ("failed", 1)


def test_a_busy_bank_delays_this_customer_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def busy_once(order: str, cents: int, reference: str) -> str:
        calls.append(order)
        if len(calls) == 1:
            raise orders.BusyError(30)
        return order

    monkeypatch.setattr(orders, "call_bank", busy_once)
    paceline = MemoryPaceline(LIMITS="1/second")
    for user in ("ann", "ann", "bob"):
        paceline.submit(user, {"order": f"of {user}", "cents": 250}, "charge")
    paceline.run()
    assert paceline.starts_of("ann") == [0, 30, 31]
    assert paceline.starts_of("bob") == [0]
