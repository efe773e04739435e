"""Packages a stage as one SAM template, for deployment pipelines: Chalice's functions merged with the stack.

A stage deployed this way cannot switch to `make deploy` or back: CloudFormation does not adopt existing resources.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chalice.package import YAMLTemplateSerializer

from chalicelib.settings import Auth, auth_of, cors_origins_of
from infra.deploy.errors import DeployError
from infra.deploy.front_door import packaged_front_door
from infra.deploy.project import project_folder
from infra.deploy.run_chalice import event_source_mapping
from infra.deploy.stages import Stage
from infra.stack import TEMPLATE, output_variables

#: Runs Chalice's command line, since the package has no `__main__`.
_CHALICE = "import sys; from chalice.cli import main; sys.exit(main())"


def package(stage: Stage, settings: Mapping[str, str], out: Path, *, with_requirements: bool = True) -> Path:
    """Writes `sam.json` and `deployment.zip` to `out`; returns the template's path. DeployError if Chalice fails.

    The package fits every account and region. with_requirements=False skips downloads: the package is complete except
    for its dependencies, so it cannot run.
    """
    with project_folder(stage.name, settings, _as_intrinsic) as folder:
        if not with_requirements:
            (folder / "requirements.txt").write_text("")
        merge = folder / "merge-template.json"
        merge.write_text(json.dumps(merge_template(stage, settings)))
        # -B: otherwise the import would write bytecode into the folder that is packaged.
        command = [sys.executable, "-B", "-c", _CHALICE, "package", "--stage", stage.name, "--template-format", "json"]
        # Chalice requires a region, although it does not appear in the template.
        env = {"AWS_DEFAULT_REGION": "us-east-1", **os.environ}
        ran = subprocess.run(
            [*command, "--merge-template", str(merge), str(out.absolute())],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise DeployError(f"chalice package: {ran.stderr or ran.stdout}")
    return out / "sam.json"


def read_stack_template() -> dict[str, Any]:
    """Reads the stack's template with short intrinsics (`!Ref`) in their long form."""
    template: dict[str, Any] = YAMLTemplateSerializer().load_template(TEMPLATE.read_text(), str(TEMPLATE))
    return template


def merge_template(stage: Stage, settings: Mapping[str, str]) -> dict[str, Any]:
    """Returns the template merged over Chalice's: the stack, and the references between both.

    It relies on Chalice's undocumented resource names; a test checks them.
    """
    template = read_stack_template()
    template["Parameters"]["Stage"] |= {"Default": stage.name, "AllowedValues": [stage.name]}
    template["Parameters"]["LogRetentionDays"]["Default"] = stage.log_retention_days
    template["Parameters"]["LateMs"]["Default"] = stage.late_ms
    variables = output_variables({name: output["Value"] for name, output in template["Outputs"].items()})
    template["Resources"] |= {
        "APIHandler": _function("paceline-${Stage}", ["ApiLogGroup"], variables),
        "Worker": _triggered(stage, "worker", variables),
        "Scheduled": _triggered(stage, "scheduled", variables),
        "RestAPI": {"Properties": {"TracingEnabled": True, **packaged_front_door(stage, cors_origins_of(settings))}},
    }
    if auth_of(settings) is Auth.JWT:
        template["Resources"]["Authorizer"] = {
            "DependsOn": ["AuthorizerLogGroup"],
            "Properties": {"FunctionName": {"Fn::Sub": "paceline-${Stage}-authorizer"}},
        }
    return template


def _function(name: str, depends_on: list[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    # The log group must exist first, or Lambda creates one that conflicts with the stack's. The variables make the
    # function depend on table and queues. The trigger depends on its function, since Chalice names the queue as text.
    properties = {"FunctionName": {"Fn::Sub": name}, "Environment": {"Variables": {**variables}}}
    return {"DependsOn": depends_on, "Properties": properties}


def _triggered(stage: Stage, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    function = _function(f"paceline-${{Stage}}-{name}", [f"{name.title()}LogGroup"], variables)
    trigger = {"Properties": event_source_mapping(stage.maximum_concurrency)}
    function["Properties"]["Events"] = {f"{name.title()}SqsEventSource": trigger}
    return function


def _as_intrinsic(resource: str) -> Any:
    """Returns a CloudFormation intrinsic if the text contains variables."""
    return {"Fn::Sub": resource} if "${" in resource else resource
