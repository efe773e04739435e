"""A start waits for the port only where an earlier supervisord was killed."""

import socket
from pathlib import Path

import pytest

from local.run_settings import LocalSettings
from local.runner import RunError, _await_port


def settings_for(listener: socket.socket, state_dir: Path) -> LocalSettings:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    settings = LocalSettings.from_env({"PORT": str(listener.getsockname()[1]), "STATE_DIR": str(state_dir)})
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    return settings


def test_start_waits_until_the_processes_of_a_killed_supervisor_free_the_port(tmp_path: Path) -> None:
    with socket.socket() as listener:
        settings = settings_for(listener, tmp_path)
        (settings.run_dir / "supervisord.pid").write_text("1")

        def orphan_ends(_seconds: float) -> bool:
            listener.close()
            return False

        _await_port(settings, orphan_ends)


def test_port_of_another_program_is_refused_at_once(tmp_path: Path) -> None:
    with socket.socket() as listener:
        settings = settings_for(listener, tmp_path)
        with pytest.raises(RunError, match="is taken"):
            _await_port(settings, lambda _seconds: pytest.fail("waited"))
