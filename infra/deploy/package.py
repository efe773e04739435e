"""The whole stage as one SAM template, for those who deploy from a pipeline: Chalice's functions merged with the stack.

Who deploys a stage this way stays with it: CloudFormation takes over nothing that `make deploy` has made.
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

from infra.deploy.errors import DeployError
from infra.deploy.front_door import packaged_front_door
from infra.deploy.project import project_folder
from infra.deploy.run_chalice import event_source_mapping
from infra.deploy.stages import Stage
from infra.stack import TEMPLATE, output_variables

#: Chalice's command line; the package has no `__main__`.
_CHALICE = "import sys; from chalice.cli import main; sys.exit(main())"


def package(stage: Stage, settings: Mapping[str, str], out: Path, *, with_requirements: bool = True) -> Path:
    """Write `sam.json` and `deployment.zip` to `out` and return the template's path. DeployError when Chalice fails.

    It names no account and no region, so one package does for all of them. Without requirements nothing is
    downloaded, and what is packaged can be looked at but does not run.
    """
    with project_folder(stage.name, settings, _as_intrinsic) as folder:
        if not with_requirements:
            (folder / "requirements.txt").write_text("")
        merge = folder / "merge-template.json"
        merge.write_text(json.dumps(merge_template(stage, has_authorizer=settings.get("AUTH") == "jwt")))
        # -B: it imports the app, and packages what lies beside it.
        command = [sys.executable, "-B", "-c", _CHALICE, "package", "--stage", stage.name, "--template-format", "json"]
        # Chalice asks for a region although nothing of it comes into the template.
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
    """The stack's template with `!Ref` and its like in their long form."""
    template: dict[str, Any] = YAMLTemplateSerializer().load_template(TEMPLATE.read_text(), str(TEMPLATE))
    return template


def merge_template(stage: Stage, *, has_authorizer: bool = False) -> dict[str, Any]:
    """What is merged over Chalice's template: the stack, and what the two need of each other.

    The names of Chalice's resources are not promised to anyone; a test holds them.
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
        "RestAPI": {"Properties": {"TracingEnabled": True, **packaged_front_door(stage)}},
    }
    if has_authorizer:
        template["Resources"]["Authorizer"] = {
            "DependsOn": ["AuthorizerLogGroup"],
            "Properties": {"FunctionName": {"Fn::Sub": "paceline-${Stage}-authorizer"}},
        }
    return template


def _function(name: str, depends_on: list[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    # A log group that Lambda had made by itself would stand in the stack's way. Table and queues come first because
    # the variables name them; the trigger, in which Chalice puts the queue's name only, comes after its function.
    properties = {"FunctionName": {"Fn::Sub": name}, "Environment": {"Variables": {**variables}}}
    return {"DependsOn": depends_on, "Properties": properties}


def _triggered(stage: Stage, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    function = _function(f"paceline-${{Stage}}-{name}", [f"{name.title()}LogGroup"], variables)
    trigger = {"Properties": event_source_mapping(stage.maximum_concurrency)}
    function["Properties"]["Events"] = {f"{name.title()}SqsEventSource": trigger}
    return function


def _as_intrinsic(resource: str) -> Any:
    """CloudFormation puts the names in itself."""
    return {"Fn::Sub": resource} if "${" in resource else resource
