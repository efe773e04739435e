"""Every command of docs/api.md, as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from tests.e2e.running import ROOT, Paceline

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(?P<command>curl .*?)    # (?P<status>\d{3})")


def commands() -> list[tuple[str, int]]:
    lines = [line for block in BLOCK.findall((ROOT / "docs" / "api.md").read_text()) for line in block.splitlines()]
    found = [COMMAND.fullmatch(line) for line in lines]
    assert all(found), lines
    return [(match["command"], int(match["status"])) for match in found if match]


def test_commands_of_the_api_page_get_the_statuses_that_it_says(paceline: Paceline, tmp_path: Path) -> None:
    env = {**os.environ, "PACELINE": f"http://127.0.0.1:{paceline.port}", "TASK": ""}
    answer = tmp_path / "answer"
    for command, status in commands():
        quiet = f"{command} -s -o {answer} -w '%{{http_code}}'"
        outcome = subprocess.run(["bash", "-c", quiet], env=env, capture_output=True, text=True, check=True)
        assert int(outcome.stdout) == status, f"{command}\n{answer.read_text()}"
        if "/task" in command and '"task_id"' in answer.read_text():
            env["TASK"] = json.loads(answer.read_text()).get("task_id") or env["TASK"]
