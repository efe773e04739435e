"""Runs Chalice's deployer in its own process and adds parameters that Chalice cannot set.

The SQS trigger must have ReportBatchItemFailures from its creation on: without it, Lambda deletes deferred messages.
Setting it after `chalice deploy` would be too late for a queue with a backlog.
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
    """Runs Chalice's `deploy` or `delete` for the stage in that folder; its output is printed.

    Returns Chalice's state of deployed resources. Raises DeployError on failure.
    """
    # -B: otherwise the import would write bytecode into the folder that is packaged.
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
        raise DeployError(f"chalice {action}: {_reason(ran.stderr)}", "fix that and run the same command again")
    state = folder / ".chalice" / "deployed" / f"{stage}.json"
    deployed: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"resources": []}
    return deployed


def _reason(errors: str) -> str:
    """Strips the traceback and returns the error line."""
    lines = [line for line in errors.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line and not line[0].isspace()]
    return " ".join(lines[starts[-1] :] if lines and lines[0].startswith("Traceback") else lines) or "no reason given"


def event_source_mapping(maximum_concurrency: int) -> dict[str, Any]:
    """Returns the mapping's parameters that Chalice does not set."""
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
        session.register(_EVENT.format(verb), complete)  # type: ignore[arg-type]  # stubs disallow a return value
    factory.create_default_deployer(session, config, UI()).deploy(config, chalice_stage_name=stage)


if __name__ == "__main__":
    main(*sys.argv[1:])
