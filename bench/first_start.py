"""The floor of a first start: the calls between a bulk submit and its first task, and nothing else."""

from __future__ import annotations

import copy
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.emulator import emulator
from bench.events import Context, submit_event
from bench.in_process import load_app
from bench.recording import Recording, recorded

#: The user of the recorded submit.
RECORDED_USER = "recorded-user"
#: Between two runs, as between starts of few users: recently used code and connections are faster.
PAUSE_SECONDS = 0.3
#: The wait time of the receive, which the message ends.
WAIT_SECONDS = 2


def bare_milliseconds(tasks: int, runs: int) -> list[float]:
    """Milliseconds from the reservation to the answer of a waiting receive, on an idle machine, once for each run."""
    with emulator() as aws:
        os.environ.update(aws.environment)
        app = load_app()
        with recorded() as recording:
            app.app(submit_event(RECORDED_USER, tasks), Context())
        first_send = next(n for n, (_, method, _) in enumerate(recording.calls) if method.startswith("send_message"))
        needed = Recording(recording.calls[: first_send + 1])
        return [_once(_for_user(needed, f"bare-{n}")) for n in range(runs)]


def _for_user(recording: Recording, user_id: str) -> Recording:
    return Recording([(client, method, _renamed(asked, user_id)) for client, method, asked in recording.calls])


def _renamed(value: Any, user_id: str) -> Any:
    """The parameters of a call with that user instead of RECORDED_USER."""
    if isinstance(value, dict):
        return {key: _renamed(part, user_id) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, user_id) for part in value]
    return value.replace(RECORDED_USER, user_id) if isinstance(value, str) else copy.copy(value)


def _once(calls: Recording) -> float:
    sqs, _, sent = calls.calls[-1]
    sqs.purge_queue(QueueUrl=sent["QueueUrl"])
    receive = {"QueueUrl": sent["QueueUrl"], "WaitTimeSeconds": WAIT_SECONDS, "AttributeNames": ["All"]}
    with ThreadPoolExecutor(1) as worker:
        receiving = worker.submit(sqs.receive_message, **receive)
        time.sleep(PAUSE_SECONDS)
        begun = time.perf_counter()
        calls.replay()
        received = receiving.result()
        milliseconds = (time.perf_counter() - begun) * 1000
    assert received["Messages"]
    return milliseconds
