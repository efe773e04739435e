"""The floor of a first start: the calls that lie between a bulk submit and its first task, and nothing else."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from bench.bare import RECORDED_USER, for_user
from bench.emulator import emulator
from bench.events import Context, submit_event
from bench.recording import Recording, recorded

#: As in a run with few users: what has just been used is quicker than what was left alone.
PAUSE_SECONDS = 0.3
#: How long the receive waits that the message ends.
WAIT_SECONDS = 2


def bare_milliseconds(tasks: int, runs: int) -> list[float]:
    """How long reserving, sending and the answer to a receive that waits take, on a machine that is idle."""
    with emulator() as aws:
        os.environ.update(aws.environment)
        import app  # noqa: PLC0415 - it reads the environment

        with recorded() as recording:
            app.app(submit_event(RECORDED_USER, tasks), Context())
        methods = [method for _, method, _ in recording.calls]
        needed = Recording(recording.calls[: methods.index("send_message") + 1])
        return [_once(for_user(needed, f"bare-{n}")) for n in range(runs)]


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
