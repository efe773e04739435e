"""Defines the programs of a local run: command, environment and stop order."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from infra.stack import output_variables
from local.run_settings import LocalSettings
from local.supervisor import WORKER_STOP_SECONDS, Program

API_PROCESSES = 2
WORKER_PROCESSES = 2


def emulator_program(settings: LocalSettings, port: int) -> Program:
    command = [sys.executable, "-m", "local.emulator", str(port), str(settings.emulator_dir)]
    command.append(str(settings.finished_at_most))
    return Program("emulator", command, priority=1)


def app_programs(settings: LocalSettings, outputs: Mapping[str, str]) -> list[Program]:
    """Returns the API and the workers for the stack with these outputs."""
    environment = {
        **output_variables(outputs),
        "KEEP_FINISHED": settings.keep_finished,
        # LocalStack would return later messages of a lane before a deferred head, unless it returns one at a time.
        "RECEIVE_BATCH": "1" if settings.endpoint_url else "10",
    }
    return [
        Program(
            "api",
            [sys.executable, "-m", "local.api_process"],
            priority=10,
            processes=API_PROCESSES,
            environment=environment,
            listen=f"{settings.host}:{settings.port}",
        ),
        Program(
            "worker",
            [sys.executable, "-m", "local.worker_process"],
            priority=20,
            processes=WORKER_PROCESSES,
            environment=environment,
            stop_seconds=WORKER_STOP_SECONDS,
        ),
    ]
