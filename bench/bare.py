"""`python -m bench.bare NUMBER SHARE`: just the calls of submits, by bare boto3 or by the app's own clients.

Says a line when it is ready; for each line that it is sent it makes the calls of so many submits, and says another one.
"""

from __future__ import annotations

import copy
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.events import Context, submit_event
from bench.recording import Recording, recorded

#: Who is replaced by another user in the calls that were recorded.
RECORDED_USER = "recorded-user"


def main() -> None:
    number, share = sys.argv[1], json.loads(sys.argv[2])
    recording = record(share["tasks"])
    if share["by_default_clients"]:
        recording = recording.by_default_clients()
    # Made beforehand, which is not what is measured, and would take its share of the other side's turn.
    turns = [
        [for_user(recording, f"bare-{number}-{turn}-{n}") for n in range(share["submits"])]
        for turn in range(share["turns"])
    ]
    warm_up = [for_user(recording, f"warm-up-{number}-{n}") for n in range(20)]
    with ThreadPoolExecutor(share["threads"]) as pool:
        list(pool.map(Recording.replay, warm_up))
        print("ready", flush=True)
        for turn, _line in zip(turns, sys.stdin, strict=False):
            list(pool.map(Recording.replay, turn))
            print("done", flush=True)


def record(tasks: int) -> Recording:
    """The calls of a submit of so many tasks by RECORDED_USER."""
    import app  # noqa: PLC0415 - it reads the environment

    with recorded() as recording:
        app.app(submit_event(RECORDED_USER, tasks), Context())
    return recording


def for_user(recording: Recording, user_id: str) -> Recording:
    """The calls of a submit by RECORDED_USER, for another one."""
    return Recording([(client, method, _named(parameters, user_id)) for client, method, parameters in recording.calls])


def _named(value: Any, user_id: str) -> Any:
    """The same parameters for that user."""
    if isinstance(value, dict):
        return {key: _named(part, user_id) for key, part in value.items()}
    if isinstance(value, list):
        return [_named(part, user_id) for part in value]
    return value.replace(RECORDED_USER, user_id) if isinstance(value, str) else copy.copy(value)


if __name__ == "__main__":
    main()
