"""Runs Chalice's deployer in a process of its own, and adds to its calls what Chalice has no words for.

The SQS trigger never exists without ReportBatchItemFailures, not for a moment: Lambda would take a deferred message
for done and delete it. Setting it after `chalice deploy` would be too late for a queue with a backlog.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chalice.cli.factory import CLIFactory
from chalice.utils import UI

from infra.deploy.errors import DeployError
from infra.deploy.stages import ROOT

_EVENT = "provide-client-params.lambda.{}EventSourceMapping"


def run_chalice(action: str, stage: str, folder: Path, maximum_concurrency: int = 0) -> dict[str, Any]:
    """Let Chalice `deploy` or `delete` the stage from that folder; what it prints is shown.

    Returns what Chalice says is deployed then. DeployError when it fails.
    """
    # -B: it imports the app, and packages what lies beside it.
    command = [
        sys.executable,
        "-B",
        "-m",
        "infra.deploy.run_chalice",
        action,
        stage,
        str(folder),
        str(maximum_concurrency),
    ]
    ran = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise DeployError(f"chalice {action}: {_reason(ran.stderr)}", "mend that and run the same command again")
    state = folder / ".chalice" / "deployed" / f"{stage}.json"
    deployed: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"resources": []}
    return deployed


def _reason(errors: str) -> str:
    """The error without the traceback that led to it."""
    lines = [line for line in errors.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line and not line[0].isspace()]
    return " ".join(lines[starts[-1] :] if lines and lines[0].startswith("Traceback") else lines) or "no reason given"


def event_source_mapping(maximum_concurrency: int) -> dict[str, Any]:
    """What the mapping needs beside what Chalice says of it."""
    return {
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": maximum_concurrency},
    }


def main(action: str, stage: str, folder: str, maximum_concurrency: str) -> None:
    os.chdir(folder)
    factory = CLIFactory(folder, environ=os.environ)
    config = factory.create_config_obj(chalice_stage_name=stage)
    session = factory.create_botocore_session()
    if action == "delete":
        factory.create_deletion_deployer(session, UI()).deploy(config, chalice_stage_name=stage)
        return

    def complete(params: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return {**params, **event_source_mapping(int(maximum_concurrency))}

    for verb in ("Create", "Update"):
        session.register(_EVENT.format(verb), complete)  # type: ignore[arg-type]  # the stubs know no answers
    factory.create_default_deployer(session, config, UI()).deploy(config, chalice_stage_name=stage)


if __name__ == "__main__":
    main(*sys.argv[1:])
