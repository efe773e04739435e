"""The emulator's items in memory: JSON that each read decodes anew."""

import copy
import json
import tracemalloc
from typing import Any

import pytest

from local.ministack_items import Partition, Partitions
from local.ministack_json import decode, encode

ITEM = {"seq": {"N": "1"}, "text": {"S": "é\u2028"}}


def partition() -> Partition:
    made = Partition()
    made["a"], made["b"] = ITEM, {"seq": {"N": "2"}}
    return made


def test_partition_reads_as_a_dictionary_of_items() -> None:
    made = partition()
    assert made["a"] == made.get("a") == ITEM
    assert made.get("absent") is None
    assert list(made.items()) == [("a", ITEM), ("b", {"seq": {"N": "2"}})]
    assert [one["seq"]["N"] for one in made.values()] == ["1", "2"]
    assert made.pop("a") == ITEM
    assert made.pop("a", None) is None
    assert list(made) == ["b"]
    with pytest.raises(KeyError):
        made["a"]


def test_change_of_a_read_item_changes_no_stored_one() -> None:
    made = partition()
    made["a"]["seq"] = {"N": "9"}
    assert made["a"] == ITEM


def test_copy_of_a_table_keeps_its_items() -> None:
    made = Partitions()
    made.setdefault("ann", {})["a"] = ITEM
    copied = copy.deepcopy(dict(made))
    made["ann"].pop("a")
    assert copied["ann"]["a"] == ITEM


def test_record_of_a_finished_task_takes_less_than_a_kilobyte() -> None:
    made, count = Partitions(), 1_000
    tracemalloc.start()
    try:
        for n in range(count):
            made[f"user-{n % 50}"][f"01a2234b-4d1b-74af-8b8d-{n:012}"] = record(n)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / count < 1_024


def record(n: int) -> dict[str, Any]:
    times = ("planned_at", "submitted_at", "started_at", "completed_at", "expires_at")
    texts = {"task": "log", "payload": '{"n":1}', "state": "succeeded", "result": "null"}
    numbers = {"seq": n, "attempts": 1, **dict.fromkeys(times, 1_795_888_467_227)}
    keys = {"user_id": f"user-{n % 50}", "item": f"01a2234b-4d1b-74af-8b8d-{n:012}"}
    return {name: {"S": text} for name, text in {**keys, **texts}.items()} | {
        name: {"N": str(number)} for name, number in numbers.items()
    }


@pytest.mark.parametrize("value", [ITEM, "\ud800", [{}, None, True, 1.5, 10**30], ""])
def test_json_of_every_value_is_read_again(value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize("text", ["NaN", '"\\ud800"', '{"a": 1, "a": 2}', "1e400"])
def test_json_is_read_as_by_the_standard_library(text: str) -> None:

    assert repr(decode(text)) == repr(json.loads(text))


def test_other_text_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        decode("{")
