"""The Paceline that a demo uses: the one that answers at PORT, else one of its own that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from completions.reader import completions_folder
from infra.environment import environment
from local.emulator_address import HOST, free_port
from local.parent import end_with_parent
from local.run_settings import local_url

ROOT = Path(__file__).parents[1]
START_SECONDS = 130
STOP_SECONDS = 60


class DemoError(Exception):
    """The demo failed; the message is shown on the terminal."""


@dataclass(frozen=True)
class System:
    url: str
    #: Its completion log.
    folder: Path
    #: Suffix of the user ids, so that earlier starts do not count.
    suffix: str


@contextmanager
def running_system(say: Callable[[str], None]) -> Iterator[System]:
    """Yields the system that answers at PORT, else a new one. DemoError if it cannot be started."""
    env, url = environment(), local_url()
    if _answers(url):
        say(f"Using the Paceline at {url}")
        log_dir = Path(env.get("LOG_DIR") or "logs")
        yield System(url, completions_folder(log_dir, env.get("STAGE") or "dev"), f"-{time.strftime('%H%M%S')}")
        return
    with TemporaryDirectory(prefix="paceline-demo-") as folder, _own(Path(folder), say) as own:
        yield own


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health-check", timeout=5).text == "OK"
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


@contextmanager
def _own(folder: Path, say: Callable[[str], None]) -> Iterator[System]:
    port = free_port()
    say("Starting a Paceline for the demo")
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=_environment(folder, port),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops it
        )
    try:
        _wait_until_ready(process, output)
        yield System(f"http://{HOST}:{port}", completions_folder(folder / "logs", "dev"), "")
    finally:
        _stop(process)


def _environment(folder: Path, port: int) -> Mapping[str, str]:
    """The user's own limits hold, and nothing else that would change what is shown. Empty: not what `.env` says."""
    own = {"HOST": HOST, "PORT": str(port), "STATE_DIR": str(folder / "state"), "LOG_DIR": str(folder / "logs")}
    plain = {"STAGE": "dev", "AUTH": "none", "OVER_LIMIT": "queue", "MAX_DELAY": "", "AWS_ENDPOINT_URL": ""}
    paths = os.pathsep.join(path for path in (str(ROOT / "client"), os.environ.get("PYTHONPATH", "")) if path)
    return {**os.environ, **own, **plain, "PYTHONPATH": paths}


def _wait_until_ready(process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Paceline is ready" not in output.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = output.read_text().splitlines() or ["it said nothing"]
            raise DemoError(f"Paceline did not start: {lines[-1]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    from local.runner import main

    end_with_parent()
    sys.exit(main())
