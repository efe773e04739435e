"""The infrastructure template, by itself and merged with Chalice's into one package."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from cfnlint.api import ManualArgs, lint_file
from samtranslator.translator.transform import transform

from chalicelib.worker.completion_event import METRICS_NAMESPACE
from infra.deploy.front_door import GATEWAY_RESPONSES
from infra.deploy.package import merge_template, package, read_stack_template
from infra.deploy.stages import Stage, read_config, read_stage
from infra.stack import TEMPLATE

STAGES = ("dev", "prod")
#: The most that SQS allows.
RECEIVES = 1000


def faults(template: Path) -> list[str]:
    return [str(match) for match in lint_file(template, config=ManualArgs(regions=["us-east-1", "eu-west-1"]))]


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    return read_stack_template()


@pytest.fixture(scope="module", params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return read_stage(request.param)


@pytest.fixture(scope="module")
def packaged(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(stage.name)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        return package(stage, {"LIMITS": "2/second"}, out, with_requirements=False)


def of_type(template: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    return (resource["Properties"] for resource in template["Resources"].values() if resource["Type"] == kind)


def test_the_stack_has_no_faults() -> None:
    assert faults(TEMPLATE) == []


def test_the_table_forgets_by_itself_and_can_be_restored(stack: dict[str, Any]) -> None:
    table = stack["Resources"]["Table"]["Properties"]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["BillingMode"] == "PAY_PER_REQUEST"


def test_queues_of_lanes_are_fifo_all_are_encrypted_and_deferrals_do_not_kill(stack: dict[str, Any]) -> None:
    for queue in of_type(stack, "AWS::SQS::Queue"):
        assert queue.get("FifoQueue") == (not queue["QueueName"]["Fn::Sub"].endswith(("-later", "-later-dead")) or None)
        assert queue["SqsManagedSseEnabled"]
    for name, dead in (("Queue", "DeadLetterQueue"), ("LaterQueue", "LaterDeadLetterQueue")):
        policy = stack["Resources"][name]["Properties"]["RedrivePolicy"]
        assert policy == {"deadLetterTargetArn": {"Fn::GetAtt": [dead, "Arn"]}, "maxReceiveCount": RECEIVES}


def test_a_message_stays_hidden_for_longer_than_the_worker_may_run(stack: dict[str, Any], stage: Stage) -> None:
    for function, queue in (("worker", "Queue"), ("scheduled", "LaterQueue")):
        timeout = read_config()["stages"][stage.name]["lambda_functions"][function]["lambda_timeout"]
        assert stack["Resources"][queue]["Properties"]["VisibilityTimeout"] > timeout


def test_alarms_look_at_the_metrics_that_the_completion_log_writes(stack: dict[str, Any]) -> None:
    own = [alarm for alarm in of_type(stack, "AWS::CloudWatch::Alarm") if not alarm["Namespace"].startswith("AWS/")]
    assert {alarm["MetricName"] for alarm in own} == {"late_ms", "task_failed"}
    for alarm in own:
        assert alarm["Namespace"] == METRICS_NAMESPACE
        assert [dimension["Name"] for dimension in alarm["Dimensions"]] == ["stage"]


def test_the_dashboard_is_json(stack: dict[str, Any]) -> None:
    body = json.loads(stack["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    assert len(body["widgets"]) == 6


def test_a_log_group_is_there_for_every_function(stack: dict[str, Any], stage: Stage) -> None:
    names = {group["LogGroupName"]["Fn::Sub"] for group in of_type(stack, "AWS::Logs::LogGroup")}
    expected = {f"/aws/lambda/{stage.function_name(function)}" for function in stage.functions}
    assert {name.replace("${Stage}", stage.name) for name in names} == expected


def test_the_package_has_no_faults(packaged: Path) -> None:
    assert faults(packaged) == []


def test_sam_takes_the_package(packaged: Path) -> None:
    class NoManagedPolicies:
        def load(self) -> dict[str, str]:
            return {}

    translated = transform(with_uploaded_code(json.loads(packaged.read_text())), {}, NoManagedPolicies())
    mappings = list(of_type(translated, "AWS::Lambda::EventSourceMapping"))
    assert [mapping["FunctionResponseTypes"] for mapping in mappings] == [["ReportBatchItemFailures"]] * 2
    assert len(list(of_type(translated, "AWS::IAM::Role"))) == len(list(of_type(translated, "AWS::Lambda::Function")))
    assert len(list(of_type(translated, "AWS::ApiGateway::RestApi"))) == 1
    assert_called_by_alias(translated)


def assert_called_by_alias(translated: dict[str, Any]) -> None:
    aliases = {name for name, one in translated["Resources"].items() if one["Type"] == "AWS::Lambda::Alias"}
    assert aliases == {"APIHandlerAliaslive", "WorkerAliaslive", "ScheduledAliaslive"}
    for mapping in of_type(translated, "AWS::Lambda::EventSourceMapping"):
        assert mapping["FunctionName"]["Ref"] in aliases
    for permission in of_type(translated, "AWS::Lambda::Permission"):
        assert permission["FunctionName"] == {"Ref": "APIHandlerAliaslive"}
    (api,) = of_type(translated, "AWS::ApiGateway::RestApi")
    assert "${APIHandlerAliaslive}/invocations" in json.dumps(api)
    assert ".Arn}/invocations" not in json.dumps(api)


def test_functions_are_published_start_from_snapshots_and_run_on_arm(packaged: Path) -> None:
    functions = list(of_type(json.loads(packaged.read_text()), "AWS::Serverless::Function"))
    for function in functions:
        assert (function["AutoPublishAlias"], function["AutoPublishAliasAllProperties"]) == ("live", True)
        assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
        assert function["Architectures"] == ["arm64"]
        assert function.get("Tracing") != "Active"
    assert [function.get("RecursiveLoop") for function in functions].count("Allow") == 1


def test_each_trigger_has_a_bound_of_its_own_and_the_api_keeps_concurrency(packaged: Path, stage: Stage) -> None:
    resources = json.loads(packaged.read_text())["Resources"]
    bounds = [
        resources[name]["Properties"]["Events"][f"{name}SqsEventSource"]["Properties"]["ScalingConfig"]
        for name in ("Worker", "Scheduled")
    ]
    assert [bound["MaximumConcurrency"] for bound in bounds] == [stage.maximum_concurrency, stage.scheduled_concurrency]
    assert sum(bound["MaximumConcurrency"] for bound in bounds) < 1000  # of the account, by default


def test_worker_is_updated_before_the_api_that_accepts_new_tasks(packaged: Path) -> None:
    resources = json.loads(packaged.read_text())["Resources"]
    assert {"WorkerAliaslive", "ScheduledAliaslive"} < set(resources["APIHandler"]["DependsOn"])


def test_only_the_table_of_a_guarded_stage_refuses_to_be_deleted(packaged: Path, stage: Stage) -> None:
    template = json.loads(packaged.read_text())
    assert template["Parameters"]["Protected"]["Default"] == {"dev": "false", "prod": "true"}[stage.name]


def test_package_for_localstack_refers_to_nothing_that_sam_adds(stage: Stage, tmp_path: Path) -> None:
    template = package(stage, {}, tmp_path, is_local=True, with_requirements=False)
    assert "Alias" not in template.read_text()
    functions = list(of_type(json.loads(template.read_text()), "AWS::Serverless::Function"))
    assert {tuple(function["Architectures"]) for function in functions} == {("x86_64",)}


def with_uploaded_code(template: dict[str, Any]) -> dict[str, Any]:
    """As `aws cloudformation package` leaves it."""
    for function in of_type(template, "AWS::Serverless::Function"):
        function["CodeUri"] = "s3://bucket/deployment.zip"
    return template


def test_the_merge_meets_the_names_that_chalice_gives(packaged: Path, stage: Stage) -> None:
    """Merged parts without a type belong to a resource of Chalice's."""
    resources = json.loads(packaged.read_text())["Resources"]
    merged = merge_template(stage, {})["Resources"]
    assert {name for name, resource in merged.items() if "Type" not in resource} == {
        "APIHandler",
        "Scheduled",
        "Worker",
        "RestAPI",
    }
    assert all("Type" in resource for resource in resources.values())
    for function, queue in (("Worker", ".fifo"), ("Scheduled", "-later")):
        trigger = resources[function]["Properties"]["Events"][f"{function}SqsEventSource"]
        assert trigger["Type"] == "SQS"
        assert trigger["Properties"]["BatchSize"] == 1
        assert trigger["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert trigger["Properties"]["Queue"]["Fn::Sub"].endswith(f":paceline-{stage.name}{queue}")


def test_packaged_functions_know_their_stage_and_settings(packaged: Path, stage: Stage) -> None:
    resources = json.loads(packaged.read_text())["Resources"]
    for function in ("APIHandler", "Worker"):
        variables = resources[function]["Properties"]["Environment"]["Variables"]
        assert variables["STAGE"] == stage.name
        assert variables["LIMITS"] == "2/second"
        assert variables["TABLE_NAME"] == {"Ref": "Table"}


def test_package_with_tokens_has_an_authorizer_before_all_but_public_routes(stage: Stage, tmp_path: Path) -> None:
    settings = {"AUTH": "jwt", "JWT_SECRET": "s" * 32}
    template = package(stage, settings, tmp_path, with_requirements=False)
    assert faults(template) == []
    resources = json.loads(template.read_text())["Resources"]
    authorizer = resources["Authorizer"]["Properties"]
    assert authorizer["Handler"] == "app.authorizer"
    assert authorizer["FunctionName"] == {"Fn::Sub": "paceline-${Stage}-authorizer"}
    assert authorizer["Environment"]["Variables"]["AUTH"] == "jwt"
    (policy,) = resources[authorizer["Role"]["Fn::GetAtt"][0]]["Properties"]["Policies"]
    assert {part["Sid"] for part in policy["PolicyDocument"]["Statement"]} == {"Log"}
    paths = resources["RestAPI"]["Properties"]["DefinitionBody"]["paths"]
    open_to_all = {
        path
        for path, methods in paths.items()
        if any(
            "authorizer" not in str(route.get("security")) for method, route in methods.items() if method != "options"
        )
    }
    assert "/health-check" in open_to_all
    assert open_to_all <= {"/", "/web/{name}", "/health-check", "/openapi.json"}


def test_packaged_functions_have_roles_of_their_own(packaged: Path) -> None:
    resources = json.loads(packaged.read_text())["Resources"]
    roles = [resources[function]["Properties"]["Role"]["Fn::GetAtt"][0] for function in ("APIHandler", "Worker")]
    assert len({*roles}) == 2
    for role in roles:
        (policy,) = resources[role]["Properties"]["Policies"]
        assert len(policy["PolicyDocument"]["Statement"]) > 3


def test_the_packaged_api_is_regional_and_throttled_and_answers_in_our_form(packaged: Path, stage: Stage) -> None:
    api = json.loads(packaged.read_text())["Resources"]["RestAPI"]["Properties"]
    assert api["EndpointConfiguration"] == "REGIONAL"
    assert api["MethodSettings"][0]["ThrottlingRateLimit"] == stage.throttling_rate
    assert set(api["GatewayResponses"]) == {response.kind for response in GATEWAY_RESPONSES}


@pytest.mark.parametrize("response", GATEWAY_RESPONSES, ids=lambda response: response.kind)
def test_gateway_responses_are_problems(response: Any) -> None:
    filled = json.loads(response.body.replace("$context.error.messageString", '"why"'))
    assert filled["type"] == "about:blank"
    assert filled.get("status") == response.status
    headers = response.headers([])
    assert headers["Content-Type"] == "'application/problem+json'"
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("'no-store'", "'nosniff'")


APP, OTHER = "https://app.example.com", "http://localhost:3000"


@pytest.mark.parametrize("response", GATEWAY_RESPONSES, ids=lambda response: response.kind)
@pytest.mark.parametrize(
    ("origins", "allowed"),
    [([], None), (["*"], "'*'"), ([APP], f"'{APP}'"), ([APP, OTHER], "method.request.header.Origin")],
)
def test_gateway_responses_can_be_read_by_the_allowed_origins(response: Any, origins: list[str], allowed: str) -> None:
    headers = response.headers(origins)
    assert headers.get("Access-Control-Allow-Origin") == allowed
    assert ("Retry-After" in headers.get("Access-Control-Expose-Headers", "")) is bool(origins)


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, None),
        ({"CORS_ORIGINS": APP}, f"'{APP}'"),
        ({"AUTH": "jwt", "JWT_SECRET": "s" * 32}, "'*'"),
        ({"AUTH": "jwt", "JWT_SECRET": "s" * 32, "CORS_ORIGINS": f"{APP}, {OTHER}"}, "method.request.header.Origin"),
    ],
)
def test_package_answers_preflight_requests_if_an_origin_may_call(
    stage: Stage, tmp_path: Path, settings: dict[str, str], allowed: str | None
) -> None:
    template = package(stage, settings, tmp_path, with_requirements=False)
    assert faults(template) == []
    api = json.loads(template.read_text())["Resources"]["RestAPI"]["Properties"]
    refusal = api["GatewayResponses"]["UNAUTHORIZED"]["ResponseParameters"]["Headers"]
    assert refusal.get("Access-Control-Allow-Origin") == allowed
    for methods in api["DefinitionBody"]["paths"].values():
        assert ("options" in methods) is bool(allowed)
        if allowed:  # the function answers it, since API Gateway's own answer names one origin, and asks for no token
            assert methods["options"]["x-amazon-apigateway-integration"]["type"] == "aws_proxy"
            assert "security" not in methods["options"]


def test_the_package_holds_the_app_without_its_caches(packaged: Path) -> None:
    names = ZipFile(packaged.with_name("deployment.zip")).namelist()
    assert "app.py" in names
    assert "chalicelib/worker/worker.py" in names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith("infra/")]
