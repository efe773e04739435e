"""checkov finds nothing in a packaged stage but what infra/checkov.yaml judges."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.deploy.package import package
from infra.deploy.secrets import references
from infra.deploy.stages import ROOT, FrontDoor, read_stage

CHECKOV = os.environ.get("CHECKOV") or shutil.which("checkov") or ""
pytestmark = pytest.mark.skipif(
    not CHECKOV, reason="checkov is not installed: pipx install checkov, or name it: CHECKOV=…"
)
SETTINGS = {"AUTH": "jwt", "JWT_SECRET": "s" * 32, "WEBHOOK_SECRET": "whsec_x"}


def findings(template: Path, *options: str) -> list[Any]:
    command = [CHECKOV, "--file", str(template), "--skip-download", "--output", "json", *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    report = json.loads(ran.stdout)
    return [(one["check_id"], one["resource"]) for one in report.get("results", {}).get("failed_checks", [])]


@pytest.mark.parametrize("front_door", FrontDoor)
def test_every_finding_is_judged(front_door: FrontDoor, tmp_path: Path) -> None:
    stage = replace(read_stage("prod"), front_door=front_door)
    template = package(stage, references(SETTINGS, stage.full_name), tmp_path, with_requirements=False)
    assert findings(template, "--framework", "cloudformation")
    assert findings(template, "--config-file", str(ROOT / "infra" / "checkov.yaml")) == []
