"""Runs the app inside the benchmark's own process."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType


def load_app() -> ModuleType:
    """Imports the app with the settings of the environment; its completion log goes to the null device."""
    import app  # noqa: PLC0415 - it reads the environment
    from chalicelib.container import Container, use  # noqa: PLC0415
    from chalicelib.settings import Settings  # noqa: PLC0415
    from chalicelib.worker.completion_log import StandardOutputLog  # noqa: PLC0415

    use(lambda: Container(Settings.from_env(os.environ), StandardOutputLog(Path(os.devnull).open("w"))))  # noqa: SIM115
    return app
