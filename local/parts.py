"""The container of a process under `make run`: it logs to files, and locks what it runs on this machine."""

import os
import secrets
import time
from pathlib import Path

from chalicelib.container import Container, container, use
from chalicelib.settings import Settings
from local.file_log import FileLog
from local.presence import MachinePresence


def make_container() -> Container:
    """SettingError when the environment is wrong."""
    settings = Settings.from_env(os.environ)
    log_dir, run_dir = os.environ["LOG_DIR"], Path(os.environ["RUN_DIR"])
    process_name = os.environ.get("PROCESS_NAME") or "process"
    log = FileLog(log_dir, settings.stage, process_name, secrets.token_hex(16), lambda: time.time_ns() // 1_000_000)
    return Container(settings, log, MachinePresence(run_dir / "serving"))


def warm_up() -> None:
    """Makes clients and connections before the first request or message has to wait for them.

    What is wrong with AWS is left to those who need it.
    """
    use(make_container)
    parts = container()
    _ = (parts.submitter, parts.idempotency, parts.worker, parts.dispatcher, parts.authenticator)
    list(parts.check_health())
