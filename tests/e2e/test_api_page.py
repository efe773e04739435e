"""The commands of the documentation, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, Paceline

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(?P<command>curl .*?)    # (?P<status>\d{3})")
#: of an answer to a submit; the tasks of a bulk are nested deeper
TASK_ID = re.compile(r'^\{"task_id":"([^"]+)"', re.MULTILINE)
REFERENCE = "docs/reference/api.md"
#: Their commands carry no status, since an interactive zsh takes a comment for arguments; all of them succeed.
GUIDES = ("README.md", "docs/how-to/limits.md", "docs/how-to/scheduling.md", "docs/how-to/schedules.md")


def commands(page: str) -> list[tuple[str, str]]:
    """Each curl command with a pattern of the status that it gets."""
    lines = [line for block in BLOCK.findall((ROOT / page).read_text()) for line in block.splitlines()]
    if page in GUIDES:
        return [(line, "20[012]") for line in lines if line.startswith("curl ")]
    found = [COMMAND.fullmatch(line) for line in lines]
    assert all(found), lines
    return [(match["command"], match["status"]) for match in found if match]


@pytest.mark.parametrize("page", [*GUIDES, REFERENCE])
def test_commands_of_the_page_get_the_statuses_that_it_says(paceline: Paceline, tmp_path: Path, page: str) -> None:
    env = {**os.environ, "PACELINE": f"http://127.0.0.1:{paceline.port}", "TASK": ""}
    answer = tmp_path / "answer"
    assert commands(page)
    for command, status in commands(page):
        here = command.replace("localhost:8000", f"127.0.0.1:{paceline.port}")
        quiet = f"{here} -s -o {answer} -w '%{{http_code}}'"
        outcome = subprocess.run(["bash", "-c", quiet], env=env, capture_output=True, text=True, check=True)
        assert re.fullmatch(status, outcome.stdout), f"{command}\n{answer.read_text()}"
        if "/task" in command and (found := TASK_ID.search(answer.read_text())):
            env["TASK"] = found[1]


def test_the_python_example_of_the_readme_works(paceline: Paceline, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(from paceline_client .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(code.replace(":8000", f":{paceline.port}").replace('"ann"', '"readme-ann"'), {})
    assert capsys.readouterr().out == "0 succeeded\n"
