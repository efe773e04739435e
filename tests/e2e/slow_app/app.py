"""Paceline's own app with a task that takes the seconds that its payload says, and with such as go wrong."""

import os
import signal
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from chalicelib.core.errors import RetryAfter
from chalicelib.tasks import task


@task("sleep")
def sleep(payload: Any) -> Any:
    time.sleep(payload["seconds"])
    return payload


@task("die", attempts=2, backoff_seconds=0)
def die(payload: Any) -> Any:
    """As the kernel ends one that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@task("slow-down")
def slow_down(seconds: int) -> Any:
    raise RetryAfter(seconds, "the bank asked for a pause")


@task("hang", deadline_seconds=2)
def hang(payload: Any) -> Any:
    while True:
        time.sleep(60)


@task("odd")
def odd(payload: Any) -> Any:
    return {"a set": {1}}


@task("when-there", attempts=1)
def when_there(path: str) -> Any:
    return Path(path).read_text()


spec = spec_from_file_location("paceline_app", Path(__file__).parents[3] / "app.py")
assert spec
assert spec.loader
paceline_app = module_from_spec(spec)
spec.loader.exec_module(paceline_app)
app = paceline_app.app
worker = paceline_app.worker
scheduled = paceline_app.scheduled
