"""The local runner's settings, read once from the environment and `.env`, validated."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chalicelib.core.errors import SettingError
from chalicelib.tasks.outside import find
from infra.environment import environment

DEFAULT_PORT = 8000

#: Bytes. A unix socket's path may have about 104 (108 on Linux); the longest name in a run directory has 24.
_SOCKET_DIRECTORY_LIMIT = 78


@dataclass(frozen=True)
class LocalSettings:
    """Addresses, folders and health checks of a local run."""

    host: str
    #: port of the HTTP API
    port: int
    #: absolute path of the state that outlives a run
    state_dir: Path
    #: absolute path of the completion log
    log_dir: Path
    stage: str
    #: None starts an embedded emulator
    endpoint_url: str | None
    #: seconds between two health checks of a process
    health_interval_seconds: float
    #: restart API and workers when the code changes
    reload: bool
    #: seconds that a running task gets to end when its worker is to end and nobody can ask a second time
    stop_wait_seconds: float
    #: how long records of finished tasks stay, as KEEP_FINISHED has it
    keep_finished: str
    #: the largest number of them that the embedded emulator keeps
    finished_at_most: int
    #: absolute path of the own tasks outside this project; None for none
    tasks_dir: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LocalSettings:
        """Reads the settings. Raises SettingError naming the variable and the allowed values."""
        return cls(
            host=env.get("HOST") or "127.0.0.1",
            port=_port(env.get("PORT") or str(DEFAULT_PORT)),
            state_dir=Path(env.get("STATE_DIR") or ".paceline").absolute(),
            log_dir=Path(env.get("LOG_DIR") or "logs").absolute(),
            stage=env.get("STAGE") or "dev",
            endpoint_url=_endpoint(env.get("AWS_ENDPOINT_URL") or None),
            health_interval_seconds=_seconds("HEALTH_INTERVAL", env.get("HEALTH_INTERVAL") or "10"),
            reload=_truth("RELOAD", env.get("RELOAD") or "true"),
            tasks_dir=find(env["TASKS_DIR"]) if env.get("TASKS_DIR") else None,
            stop_wait_seconds=stop_wait_seconds(env),
            keep_finished=env.get("KEEP_FINISHED") or "7d",
            finished_at_most=_count("FINISHED_AT_MOST", env.get("FINISHED_AT_MOST") or "250000"),
        )

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def endpoint_file(self) -> Path:
        """File with the AWS endpoint of the current run."""
        return self.run_dir / "endpoint"

    @property
    def running_endpoint(self) -> str | None:
        """Returns the AWS endpoint of the Paceline that runs with this state; None if none runs."""
        try:
            with (self.state_dir / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(FileNotFoundError):
                return self.endpoint_file.read_text().strip()
        except FileNotFoundError:
            pass
        return None

    @property
    def process_log_dir(self) -> Path:
        return self.state_dir / "log"

    @property
    def emulator_dir(self) -> Path:
        """Folder of the embedded emulator's state."""
        return self.state_dir / "ministack"

    @property
    def run_dir(self) -> Path:
        """Folder of sockets and heartbeats: in the state directory, or a temporary one if that path is too long."""
        wanted = self.state_dir / "run"
        if len(os.fsencode(wanted)) <= _SOCKET_DIRECTORY_LIMIT:
            return wanted
        digest = hashlib.sha256(os.fsencode(self.state_dir)).hexdigest()[:12]
        short = f"paceline-{os.getuid()}-{digest}"
        beside = Path(tempfile.gettempdir()) / short
        return beside if len(os.fsencode(beside)) <= _SOCKET_DIRECTORY_LIMIT else Path("/tmp") / short  # noqa: S108


def stop_wait_seconds(env: Mapping[str, str]) -> float:
    """STOP_WAIT, which each process reads for itself. Raises SettingError."""
    return _seconds("STOP_WAIT", env.get("STOP_WAIT") or "65")


def local_url() -> str:
    """The address of `make run`, by HOST and PORT from the environment or `.env`."""
    env = environment()
    return f"http://{env.get('HOST') or '127.0.0.1'}:{env.get('PORT') or DEFAULT_PORT}"


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise SettingError("PORT", f"must be a whole number from 1 to 65535, not {text!r}")


def _count(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= len(text) <= 9:
        return int(text)
    raise SettingError(name, f"must be a whole number from 0 to 999999999, not {text!r}")


def _truth(name: str, text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "false", "0", "no"):
        return text.lower() in ("true", "1", "yes")
    raise SettingError(name, f"must be true or false, not {text!r}")


def _endpoint(text: str | None) -> str | None:
    if text is None or text.startswith(("http://", "https://")):
        return text
    raise SettingError("AWS_ENDPOINT_URL", f"must begin with http:// or https://, not {text!r}")


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0.1 <= seconds <= 3600:
        return seconds
    raise SettingError(name, f"must be a number of seconds from 0.1 to 3600, not {text!r}")
