"""The templates of the first hour's own stacks, as cfn-lint judges them."""

import json
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import ManualArgs, lint_file

from operations.first_hour.cold_start import cold_template
from operations.first_hour.probe_stack import probe_template, probes

FUNCTION = {
    "Runtime": "python3.13",
    "Handler": "app.app",
    "Role": "arn:aws:iam::123456789012:role/paceline-firsthour",
    "Timeout": 29,
    "Architectures": ["arm64"],
    "Environment": {"Variables": {"TABLE_NAME": "paceline-firsthour"}},
}


@pytest.mark.parametrize(
    "template",
    [probe_template(probes(10, 500)), cold_template(FUNCTION, "bucket", "firsthour/a.zip", is_aws=True)],
    ids=["probes", "cold"],
)
def test_the_stacks_have_no_faults(template: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))
    assert [str(match) for match in lint_file(path, config=ManualArgs(regions=["us-east-1", "eu-west-1"]))] == []
