"""Paceline's own app with one more task, which takes the seconds that its payload says."""

import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from chalicelib.registry import task


@task("sleep")
def sleep(payload: Any) -> Any:
    time.sleep(payload["seconds"])
    return payload


spec = spec_from_file_location("paceline_app", Path(__file__).parents[3] / "app.py")
assert spec
assert spec.loader
paceline_app = module_from_spec(spec)
spec.loader.exec_module(paceline_app)
app = paceline_app.app
worker = paceline_app.worker
later = paceline_app.later
