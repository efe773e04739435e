"""Runs the embedded emulator in its own process, with the stack that `make run` creates."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from infra.environment import emulator_defaults
from infra.stack import ensure_stack
from local.emulator_address import HOST, free_port
from local.programs import app_programs
from local.run_settings import LocalSettings

START_SECONDS = 60


@dataclass(frozen=True)
class Emulator:
    pid: int
    #: variables with which the app finds it
    environment: Mapping[str, str]


@contextmanager
def emulator() -> Iterator[Emulator]:
    """A new emulator; it ends with the block."""
    port = free_port()
    with tempfile.TemporaryDirectory() as state_dir:
        command = [sys.executable, "-m", "local.emulator", str(port), state_dir]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_for(port)
                yield Emulator(process.pid, _environment(f"http://{HOST}:{port}"))
            finally:
                process.terminate()


def _environment(endpoint_url: str) -> dict[str, str]:
    # boto3 looks for credentials when it makes a client, also in this process.
    os.environ.update(emulator_defaults(os.environ))
    settings = LocalSettings.from_env(os.environ)
    of_app = dict(app_programs(settings, ensure_stack(endpoint_url, settings.stage))[0].environment)
    # The wire and the recordings are those of boto3, whose calls are the same.
    return {**of_app, "AWS_ENDPOINT_URL": endpoint_url, "AWS_CLIENT": "boto3"}


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"the emulator did not start within {START_SECONDS} s")
