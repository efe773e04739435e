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
    client.meta.events.emit(f"after-call.{call}")
    assert alarm.wait(0.01) is is_woken
    waker.close()
    alarm.close()
