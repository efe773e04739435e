"""Packages a stage as one SAM template and one archive: Chalice's functions and API, merged with the stack.

The API and the triggers call each function by its alias, which names the newest published version.
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
from infra.deploy.access_log import access_log
from infra.deploy.alarms import CONDITIONS, PARAMETERS, alarms
from infra.deploy.dependencies import check_packaged, write_requirements
from infra.deploy.front_door import front_door
from infra.deploy.function_url import with_function_url
from infra.deploy.project import project_folder
from infra.deploy.stages import FrontDoor, Stage
from infra.deploy.timeouts import HIDDEN_LONGER_SECONDS
from infra.stack import TEMPLATE, output_variables

#: The alias of each function's newest version. SnapStart works for versions only, and a rollback changes the alias.
ALIAS = "live"
#: Publishes a version after each change of code or settings.
PUBLISHED = {
    "AutoPublishAlias": ALIAS,
    "AutoPublishAliasAllProperties": True,
    "SnapStart": {"ApplyOn": "PublishedVersions"},
}
#: A fifth cheaper than x86_64 for the same work.
ARCHITECTURE = "arm64"
#: Runs Chalice's command line, since the package has no `__main__`.
_CHALICE = "import sys; from chalice.cli import main; sys.exit(main())"


def package(
    stage: Stage,
    settings: Mapping[str, str],
    out: Path,
    *,
    is_local: bool = False,
    with_requirements: bool = True,
    tasks: Path | None = None,
) -> Path:
    """Writes `sam.json` and `deployment.zip` to `out`; returns the template's path.

    DeployError if Chalice fails, or if a dependency has no wheel for Lambda.

    The package fits every account and region. is_local: for LocalStack, which runs functions on this machine's
    processor, and refuses references to resources that SAM adds. with_requirements=False leaves out Paceline's own
    dependencies. tasks: own tasks outside this project, which are packaged with their dependencies.
    """
    architecture = "x86_64" if is_local else ARCHITECTURE
    environment = {**settings, "CANARY": str(stage.canary).lower()}
    with project_folder(stage.name, environment, architecture, tasks) as folder:
        if not with_requirements:
            write_requirements(folder, tasks, [])
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
        check_packaged(ran, architecture)
    path = out / "sam.json"
    template = json.loads(path.read_text())
    if stage.front_door is FrontDoor.FUNCTION_URL:
        template = with_function_url(template, None if is_local else ALIAS)
    if not is_local:
        template = _published(template)
    path.write_text(json.dumps(template, indent=1))
    return path


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
    template["Parameters"]["Protected"]["Default"] = str(stage.is_guarded).lower()
    for parameter, value in _throughput(stage).items():
        template["Parameters"][parameter]["Default"] = value
    variables = output_variables({name: output["Value"] for name, output in template["Outputs"].items()})
    template["Resources"]["Queue"]["Properties"]["VisibilityTimeout"] = stage.worker_timeout + HIDDEN_LONGER_SECONDS
    template["Parameters"] |= PARAMETERS
    template["Conditions"] |= CONDITIONS
    template["Resources"] |= alarms(stage, template) | access_log(stage)
    template["Resources"] |= {
        "APIHandler": _function("paceline-${Stage}", ["ApiLogGroup"], variables),
        "Worker": _triggered("worker", stage.maximum_concurrency, variables),
        "Scheduled": _triggered("scheduled", stage.scheduled_concurrency, variables),
        "RestAPI": {"Properties": front_door(stage, cors_origins_of(settings))},
    }
    template["Resources"]["Worker"]["Properties"]["Timeout"] = stage.worker_timeout
    if stage.api_concurrency is not None:
        template["Resources"]["APIHandler"]["Properties"]["ReservedConcurrentExecutions"] = stage.api_concurrency
    if stage.canary:
        template["Resources"]["Canary"] = _function("paceline-${Stage}-canary", ["CanaryLogGroup"], variables)
        # A tick that comes late, or again, would submit tasks in a burst after an outage.
        attempts = {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
        template["Resources"]["Canary"]["Properties"]["EventInvokeConfig"] = attempts
    if auth_of(settings) is Auth.JWT:
        template["Resources"]["Authorizer"] = {
            "DependsOn": ["AuthorizerLogGroup"],
            "Properties": {"FunctionName": {"Fn::Sub": "paceline-${Stage}-authorizer"}},
        }
    return template


def _throughput(stage: Stage) -> dict[str, int]:
    """The stack's parameters of the table's throughput."""
    return {
        "WarmWrites": stage.warm_writes,
        "WarmReads": stage.warm_reads,
        "MaxWrites": stage.max_writes,
        "MaxReads": stage.max_reads,
    }


def _published(template: dict[str, Any]) -> dict[str, Any]:
    """Publishes a version of each function, and lets API Gateway call its alias; SAM does so for the triggers.

    SAM names the alias of a function `F` with the logical id `FAliaslive`.
    """
    text = json.dumps(template)
    for function in ("APIHandler", "Authorizer"):
        text = text.replace(f"${{{function}.Arn}}/invocations", f"${{{function}Alias{ALIAS}}}/invocations")
    published: dict[str, Any] = json.loads(text)
    for resource in published["Resources"].values():
        # The canary stays warm, so it needs no snapshot, which costs some $1 a month.
        if resource["Type"] == "AWS::Serverless::Function" and resource["Properties"]["Handler"] != "app.canary":
            resource["Properties"] |= PUBLISHED
    # New tasks are accepted only once the workers that know them are called.
    newer = [f"{function}Alias{ALIAS}" for function in ("Worker", "Scheduled")]
    published["Resources"]["APIHandler"]["DependsOn"] += newer
    # It sends messages into the queue that triggers it. Without this Lambda drops the 16th in such a chain.
    published["Resources"]["Scheduled"]["Properties"]["RecursiveLoop"] = "Allow"
    for resource in published["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Permission":
            name = resource["Properties"]["FunctionName"]
            function = name["Ref"] if "Ref" in name else name["Fn::GetAtt"][0]
            resource["Properties"]["FunctionName"] = {"Ref": f"{function}Alias{ALIAS}"}
    return published


def _function(name: str, depends_on: list[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    # The log group must exist first, or Lambda creates one that conflicts with the stack's. The variables make the
    # function depend on table and queues. The trigger depends on its function, since Chalice names the queue as text.
    properties = {"FunctionName": {"Fn::Sub": name}, "Environment": {"Variables": {**variables}}}
    return {"DependsOn": depends_on, "Properties": properties}


def _triggered(name: str, maximum_concurrency: int, variables: Mapping[str, Any]) -> dict[str, Any]:
    function = _function(f"paceline-${{Stage}}-{name}", [f"{name.title()}LogGroup"], variables)
    trigger = {"Properties": event_source_mapping(maximum_concurrency)}
    function["Properties"]["Events"] = {f"{name.title()}SqsEventSource": trigger}
    return function


def event_source_mapping(maximum_concurrency: int) -> dict[str, Any]:
    """Returns the trigger's properties that Chalice does not set."""
    return {
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": maximum_concurrency},
        "MetricsConfig": {"Metrics": ["EventCount"]},
    }
