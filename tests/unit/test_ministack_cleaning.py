"""The emulator deletes expired items, and the records of finished tasks beyond a number."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from local import ministack_cleaning
from local.ministack_cleaning import Cleaning
from local.ministack_items import Partitions

NOW = int(time.time())
LATER = NOW + 3_600


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ministack_cleaning, "_SLICE", 2)
    monkeypatch.setattr(ministack_cleaning, "_SLICE_SECONDS", 0)


def record(state: str, expires_at: int) -> dict[str, Any]:
    return {"state": {"S": state}, "expires_at": {"N": str(expires_at)}}


def kept(items: dict[str, Any], finished_at_most: int | None = None, status: str = "ENABLED") -> set[str]:
    """The items of one user that are left after a cleaning, after which all changes are stored."""
    partitions, unstored = Partitions(), list[str]()
    for name, item in items.items():
        partitions["ann"][name] = item
    table = {"items": partitions}

    def remove(of_table: Any, pk: str, sk: str) -> None:
        of_table["items"][pk].pop(sk)
        unstored.append(sk)

    def store() -> bool:
        unstored.clear()
        return True

    setting = {"TimeToLiveStatus": status, "AttributeName": "expires_at"}
    dynamodb = SimpleNamespace(
        _ttl_settings=SimpleNamespace(all_items=lambda: [(("account", "region", "table"), setting)]),
        _tables=SimpleNamespace(get_scoped=lambda *_scope: table),
        _remove_item=remove,
    )
    asyncio.run(Cleaning(dynamodb, store, finished_at_most).clean())
    assert not unstored
    return set(partitions["ann"])


def test_expired_items_go() -> None:
    items = {
        "past": {"expires_at": {"N": str(NOW - 1)}},
        "future": {"expires_at": {"N": str(LATER)}},
        "text": {"expires_at": {"S": "1"}},
        "without": {"text": {"S": f'"expires_at":{{"N":"{NOW - 1}"}}'}},
        "nested": {"map": {"M": {"expires_at": {"N": "1"}}}},
        "finished": record("succeeded", NOW - 1),
    }
    assert kept(items) == {"future", "text", "without", "nested"}


def test_nothing_goes_without_a_setting() -> None:
    assert kept({"past": {"expires_at": {"N": "1"}}}, status="DISABLED") == {"past"}


@pytest.mark.parametrize("at_most", [0, 1, 3, 5, 6])
def test_oldest_of_the_finished_go_beyond_their_number(at_most: int) -> None:
    states = ["succeeded", "failed", "cancelled", "failed", "succeeded"]
    finished = {f"finished-{n}": record(state, LATER + n) for n, state in enumerate(states)}
    others = {"queued": record("queued", LATER), "lane": {"expires_at": {"N": str(LATER)}}}
    newest = list(finished)[max(0, len(finished) - at_most) :]
    assert kept({**finished, **others}, at_most) == {*newest, *others}


def test_of_those_that_finished_in_one_second_as_many_go_as_are_too_many() -> None:
    assert len(kept({str(n): record("failed", LATER) for n in range(9)}, 5)) == 5


def test_any_number_of_finished_stays_without_a_limit() -> None:
    assert len(kept({str(n): record("failed", LATER) for n in range(9)})) == 9


def test_records_stay_while_a_second_message_of_their_tasks_may_come() -> None:
    ended = {
        name: {"completed_at": {"N": str((NOW - seconds) * 1000)}} for name, seconds in [("new", 60), ("old", 1_200)]
    }
    items = {name: record("succeeded", LATER) | ended[name] for name in ended}
    assert kept(items, 0) == {"new"}
    assert kept({**items, **{f"older-{n}": record("failed", LATER - 1) for n in range(2)}}, 2) == {"new", "old"}
