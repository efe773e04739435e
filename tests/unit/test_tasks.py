import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import MessageError
from chalicelib.core.task import Task, TaskState, describe, to_json
from tests.factories import make_task

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_message_reads_back_as_the_task(payload: Any) -> None:
    task = make_task(7, payload=payload)
    assert Task.from_message(task.to_message()) == task


@given(JSON_VALUES)
def test_message_holds_only_characters_that_sqs_takes(payload: Any) -> None:
    """#x9, #xA, #xD, #x20 to #xD7FF, #xE000 to #xFFFD and #x10000 to #x10FFFF (SQS SendMessage)."""
    for character in make_task(payload=payload).to_message():
        assert (
            character in "\t\n\r"
            or " " <= character <= "\ud7ff"
            or "\ue000" <= character <= "\ufffd"
            or character >= "\U00010000"
        )


@given(JSON_VALUES)
def test_message_is_at_most_three_times_its_payload_and_what_comes_with_it(payload: Any) -> None:
    """So that the largest payload that may be allowed, 262,144 bytes, fits into the 1 MiB of SQS."""
    message = make_task(payload=payload).to_message()
    assert message.isascii()
    assert len(message) <= 3 * len(to_json(payload).encode()) + len(make_task(payload=0).to_message())


def test_delete_characters_take_a_byte_each_in_a_message_that_has_others() -> None:
    assert "\x7f" * 100 in make_task(payload="é" + "\x7f" * 100).to_message()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"units": 800},
        {"shared": "stripe"},
        {"units": 2, "shared": "stripe"},
        {"units": 2, "has_payload": False},
        {"has_payload": False},
    ],
)
def test_task_with_units_or_a_shared_limit_reads_back_the_same(options: dict[str, Any]) -> None:
    task = make_task(**options)
    assert Task.from_message(task.to_message()) == task
    assert Task.from_fields(task.fields()) == task


def test_message_without_units_is_one_that_a_worker_of_the_earlier_deployment_runs() -> None:
    assert [make_task(units=units).fields()["v"] for units in (1, 2)] == [1, 3]
    assert not {"units", "shared"} & make_task().fields().keys()


@pytest.mark.parametrize("changed", [{"payload": "\ud800"}, {"payload": {"\udfff": 1}}, {"task": "\ud800"}])
def test_message_that_could_not_be_noted_is_no_task(changed: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        Task.from_message(json.dumps(json.loads(make_task().to_message()) | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"v": 0},
        {"v": 4},
        {"units": "5"},
        {"units": 0},
        {"shared": ""},
        {"v": None},
        {"user_id": ""},
        {"user_id": None},
        {"task_id": 5},
        {"seq": "1"},
        {"seq": 1.0},
        {"seq": True},
        {"task": ""},
        {"planned_at": None},
        {"submitted_at": "now"},
    ],
)
def test_message_with_a_wrong_field_is_no_task(changed: dict[str, Any]) -> None:
    body = json.dumps(json.loads(make_task().to_message()) | changed)
    with pytest.raises(MessageError):
        Task.from_message(body)


@pytest.mark.parametrize("missing", ["v", "user_id", "task_id", "seq", "task", "planned_at", "submitted_at", "payload"])
def test_message_without_a_field_is_no_task(missing: str) -> None:
    fields = json.loads(make_task().to_message())
    del fields[missing]
    with pytest.raises(MessageError):
        Task.from_message(json.dumps(fields))


@given(st.text() | JSON_VALUES.map(json.dumps))
def test_any_other_text_is_no_task(body: str) -> None:
    with pytest.raises(MessageError):
        Task.from_message(body)


def test_message_of_a_task_without_its_payload_has_a_version_that_older_workers_defer() -> None:
    task = make_task(payload=None, has_payload=False)
    assert json.loads(task.to_message())["v"] == 2
    assert Task.from_message(task.to_message()) == task


def test_message_of_a_later_version_says_which() -> None:
    with pytest.raises(MessageError, match="unsupported message version 9; this worker supports"):
        Task.from_message('{"v": 9}')


@pytest.mark.parametrize(
    ("state", "is_final"),
    [("queued", False), ("running", False), ("succeeded", True), ("failed", True), ("cancelled", True)],
)
def test_state_knows_whether_it_is_the_end(state: str, is_final: bool) -> None:
    assert TaskState(state).is_final is is_final


@given(st.text())
def test_failure_is_described_in_one_printable_line(text: str) -> None:
    described = describe(ValueError(text))
    assert described.startswith("ValueError: ")
    assert described.isprintable()
    assert len(described) <= 1_000
