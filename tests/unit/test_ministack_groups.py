"""A receive from the emulator's queue looks at few messages, however many wait."""

import time
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from local.ministack_groups import GroupedMessages


class Message(dict[str, Any]):
    """Counts how often any message is looked at."""

    looks = 0

    def __getitem__(self, name: str) -> Any:
        Message.looks += 1
        return super().__getitem__(name)


def queue(groups: int, messages: int) -> GroupedMessages:
    handles = count()
    sqs = SimpleNamespace(time=time, new_uuid=lambda: str(next(handles)), _ensure_msg_fields=lambda _message: None)
    fields = {"visible_at": 0.0, "receive_count": 0, "first_receive_at": None, "receipt_handle": None}
    return GroupedMessages(
        (Message(fields, group_id=f"group-{n % groups}", body=n) for n in range(groups * messages)), sqs
    )


@pytest.mark.parametrize(("groups", "messages"), [(1, 2_000), (40, 50), (2_000, 1)])
def test_cost_of_calls_behind_waiting_messages(groups: int, messages: int) -> None:
    made = queue(groups, messages)
    Message.looks = 0
    taken = made.take(10, hide_seconds=600)
    for message in taken[:5]:
        made.hide(message, 600)
    for message in taken[5:]:
        made.remove(message)
    made.take(1, hide_seconds=600)
    assert len(taken) == 10
    assert Message.looks < 400


def test_cost_of_a_receive_while_all_groups_are_in_flight() -> None:
    made = queue(200, 10)
    while made.take(10, hide_seconds=600):
        pass
    Message.looks = 0
    assert not made.take(10, hide_seconds=600)
    assert Message.looks == 0
