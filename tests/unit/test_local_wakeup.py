from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.hooks import HierarchicalEmitter

from infra.local.wakeup import Alarm, Waker, wake_socket


@pytest.mark.parametrize(
    ("call", "is_woken"),
    [
        ("sqs.SendMessage", True),
        ("sqs.SendMessageBatch", True),
        ("sqs.ChangeMessageVisibility", True),
        ("sqs.ReceiveMessage", False),
    ],
)
def test_a_worker_is_woken_once_a_message_is_in_the_queue(tmp_path: Path, call: str, is_woken: bool) -> None:
    client = SimpleNamespace(meta=SimpleNamespace(events=HierarchicalEmitter()))
    alarm = Alarm(wake_socket(tmp_path, "worker-1"))
    waker = Waker(tmp_path)
    waker.wake_after_sends(client)
    client.meta.events.emit(f"after-call.{call}", context={})
    assert alarm.wait(0.01) is is_woken
    waker.close()
    alarm.close()


def test_batches_that_follow_each_other_in_a_lane_wake_once(tmp_path: Path) -> None:
    client = SimpleNamespace(meta=SimpleNamespace(events=HierarchicalEmitter()))
    alarm = Alarm(wake_socket(tmp_path, "worker-1"))
    waker = Waker(tmp_path)
    waker.wake_after_sends(client)
    woken = []
    for lane in ("ann", "ann", "bob", "ann"):
        context: dict[str, str] = {}
        params = {"Entries": [{"MessageGroupId": lane}]}
        client.meta.events.emit("provide-client-params.sqs.SendMessageBatch", params=params, context=context)
        client.meta.events.emit("after-call.sqs.SendMessageBatch", context=context)
        woken.append(alarm.wait(0.01))
    assert woken == [True, False, True, True]
    waker.close()
    alarm.close()
