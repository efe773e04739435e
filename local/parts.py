"""Builds the container for `make run`: it logs to files and locks running claims on this machine."""

import os
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from chalicelib.container import Container, SystemClock, container, use
from chalicelib.core.ports import Backlog, SharedBacklog
from chalicelib.settings import Settings
from chalicelib.tasks.runner import TaskRunner
from local.file_log import FileLog
from local.metrics import ProcessMetrics
from local.presence import MachinePresence


def make_container(runner: TaskRunner | None = None) -> Container:
    """runner: runs the tasks; None where none run. Raises SettingError for an invalid environment."""
    settings = Settings.from_env(os.environ)
    log_dir, run_dir = os.environ["LOG_DIR"], Path(os.environ["RUN_DIR"])
    process_name = os.environ.get("PROCESS_NAME") or "process"
    log = FileLog(log_dir, settings.stage, process_name, secrets.token_hex(16), SystemClock().now_ms)
    folder = Path(os.environ["STATE_DIR"]) / "metrics"
    metrics = ProcessMetrics(folder, process_name, settings.stage, _backlog, shared=_shared)
    if runner:  # an API process counts little: only what it cancels
        metrics.prepare()
    return Container(settings, log, MachinePresence(run_dir / "serving"), runner, metrics)


def _shared() -> Sequence[SharedBacklog]:
    return container().shared_control.backlogs()


def _backlog() -> Backlog:
    return container().overview.backlog()


def warm_up(runner: TaskRunner | None = None) -> None:
    """Creates clients and connections before the first request or message needs them.

    Ignores errors of AWS: the first call that needs it reports them.
    """
    use(partial(make_container, runner))
    parts = container()
    _ = (parts.registry, parts.submitter, parts.idempotency, parts.worker, parts.dispatcher, parts.authenticator)
    list(parts.check_health())
