"""The first hour on LocalStack, with the smallest numbers: it measures, reports and removes, also after `kill -9`.

It runs the measurements that need no stage of their own, so it takes two minutes. It never runs on AWS by chance.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.deploy.stages import ROOT
from tests.deployed.deployment import aws_client, wait_for

COMMAND = [sys.executable, "-m", "operations", "first-hour"]
PROBES = "paceline-firsthour-probes"
MEASURED = ("prefetch", "early-delete", "chain", "failure")

pytestmark = pytest.mark.skipif(
    not (os.environ.get("AWS_ENDPOINT_URL") and os.environ.get("E2E_URL")),
    reason="it makes stacks: AWS_ENDPOINT_URL names a LocalStack, and E2E_URL a stage there",
)


def stacks() -> set[str]:
    found = aws_client("cloudformation").describe_stacks()["Stacks"]
    return {one["StackName"] for one in found if one["StackStatus"] != "DELETE_COMPLETE"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_measures_and_leaves_nothing(tmp_path: Path) -> None:
    before = stacks()
    report = tmp_path / "report.json"
    only = [argument for name in MEASURED for argument in ("--only", name)]
    ran = run("--yes", "--size", "smallest", "--json", str(report), *only)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads(report.read_text())
    found = {one["name"]: one for one in document["measurements"]}
    assert set(found) == set(MEASURED)
    assert {one["state"] for one in found.values()} == {"not measured"}
    values = {finding["label"]: finding["value"] for one in found.values() for finding in one["findings"]}
    assert values["messages sent"] == 4
    assert values["invocations"] >= 4
    assert values["a chain of 18 sends: invocations before Lambda stopped it"] == "18, not stopped"
    assert values["dead letters"] == 2
    assert "Everything is removed again." in ran.stdout
    assert stacks() == before


def test_what_a_killed_run_left_is_found_and_removed() -> None:
    before = stacks()
    arguments = [*COMMAND, "--yes", "--size", "smallest", "--only", "failure"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        wait_for(lambda: PROBES in stacks(), 60, "the probes' stack exists")
        killed.send_signal(signal.SIGKILL)
    ran = run("--remove-only")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"found stack {PROBES}" in ran.stderr
    assert stacks() == before
