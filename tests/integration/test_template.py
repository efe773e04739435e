"""The infrastructure template, by itself and merged with Chalice's into one package."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from cfnlint.api import ManualArgs, lint_file
from samtranslator.translator.transform import transform

from infra.deploy.front_door import GATEWAY_RESPONSES
from infra.deploy.package import merge_template, package, read_stack_template
from infra.deploy.stages import FrontDoor, Stage, read_config, read_stage
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


def resolved(value: Any, parameters: dict[str, Any], conditions: dict[str, Any]) -> Any:
    """The value as CloudFormation resolves it; None for AWS::NoValue."""
    if isinstance(value, list):
        return [resolved(one, parameters, conditions) for one in value]
    if not isinstance(value, dict):
        return value
    parts = {name: resolved(one, parameters, conditions) for name, one in value.items() if name != "Fn::If"}
    if "Fn::If" in value:
        name, yes, no = value["Fn::If"]
        holds = resolved({"Condition": name}, parameters, conditions)
        return resolved(yes if holds else no, parameters, conditions)
    match next(iter(value.items()), ("", None)):
        case "Ref", name:
            return parameters.get(str(name))
        case "Condition", name:
            return resolved(conditions[str(name)], parameters, conditions)
        case "Fn::Equals", _:
            one, other = parts["Fn::Equals"]
            return str(one) == str(other)
        case "Fn::Not", _:
            return not parts["Fn::Not"][0]
        case "Fn::And", _:
            return all(parts["Fn::And"])
        case "Fn::Or", _:
            return any(parts["Fn::Or"])
    return {name: one for name, one in parts.items() if one is not None}


@pytest.mark.parametrize(
    ("throughput", "warm", "ceiling"),
    [
        ({}, None, None),
        ({"warm_writes": 40_000}, {"ReadUnitsPerSecond": 12_000, "WriteUnitsPerSecond": 40_000}, None),
        (
            {"warm_writes": 8_000, "warm_reads": 20_000, "max_writes": 9_000, "max_reads": 30_000},
            {"ReadUnitsPerSecond": 20_000, "WriteUnitsPerSecond": 8_000},
            {"MaxReadRequestUnits": 30_000, "MaxWriteRequestUnits": 9_000},
        ),
        ({"max_writes": 100}, None, {"MaxWriteRequestUnits": 100}),
        ({"warm_reads": 20_000}, {"ReadUnitsPerSecond": 20_000, "WriteUnitsPerSecond": 4_000}, None),
    ],
)
def test_throughput_of_the_table_is_dynamodb_s_own_unless_the_stage_has_another(
    stage: Stage, throughput: dict[str, int], warm: object, ceiling: object
) -> None:
    template = merge_template(replace(stage, **throughput), {})
    parameters = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    table = template["Resources"]["Table"]["Properties"]
    found = [
        resolved(table[name], parameters, template["Conditions"]) for name in ("WarmThroughput", "OnDemandThroughput")
    ]
    assert found == [warm, ceiling]


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


def test_the_dashboard_is_json(stack: dict[str, Any]) -> None:
    body = json.loads(stack["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    assert len(body["widgets"]) == 6


def test_a_log_group_is_there_for_every_function(stack: dict[str, Any], stage: Stage) -> None:
    names = {group["LogGroupName"]["Fn::Sub"] for group in of_type(stack, "AWS::Logs::LogGroup")}
    expected = {f"/aws/lambda/{stage.function_name(function)}" for function in stage.functions}
    assert {name.replace("${Stage}", stage.name) for name in names} == expected


def test_the_package_has_no_faults(packaged: Path) -> None:
    assert faults(packaged) == []


class NoManagedPolicies:
    def load(self) -> dict[str, str]:
        return {}


def test_sam_takes_the_package(packaged: Path) -> None:
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
        if permission["Principal"] == "events.amazonaws.com":
            continue
        assert permission["FunctionName"] == {"Ref": "APIHandlerAliaslive"}
    (api,) = of_type(translated, "AWS::ApiGateway::RestApi")
    assert "${APIHandlerAliaslive}/invocations" in json.dumps(api)
    assert ".Arn}/invocations" not in json.dumps(api)


def test_functions_are_published_start_from_snapshots_and_run_on_arm(packaged: Path) -> None:
    functions = list(of_type(json.loads(packaged.read_text()), "AWS::Serverless::Function"))
    for function in functions:
        if function["Handler"] == "app.canary":
            continue  # it is called each minute, so it needs no snapshot
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


def test_canary_is_invoked_each_minute_and_never_late_or_again(packaged: Path, stage: Stage) -> None:
    resources = json.loads(packaged.read_text())["Resources"]
    assert ("Canary" in resources) is stage.canary
    if not stage.canary:
        return
    canary = resources["Canary"]["Properties"]
    assert canary["Handler"] == "app.canary"
    [event] = canary["Events"].values()
    assert event == {"Type": "Schedule", "Properties": {"Schedule": "rate(1 minute)"}}
    assert canary["EventInvokeConfig"] == {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
    [policy] = resources[canary["Role"]["Fn::GetAtt"][0]]["Properties"]["Policies"]
    assert {part["Sid"] for part in policy["PolicyDocument"]["Statement"]} == {"AdmitAndStore", "Send", "Log"}


def test_access_log_is_json_and_holds_no_token(packaged: Path, stage: Stage) -> None:
    resources = json.loads(packaged.read_text())["Resources"]
    setting = resources["RestAPI"]["Properties"].get("AccessLogSetting")
    assert bool(setting) is ("AccessLogGroup" in resources) is stage.access_log
    if not stage.access_log:
        return
    assert setting["DestinationArn"] == {"Fn::GetAtt": ["AccessLogGroup", "Arn"]}
    assert resources["AccessLogGroup"]["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    fields = json.loads(setting["Format"])
    assert {"$context.requestId", "$context.status", "$context.path"} < set(fields.values())
    assert all(value.startswith("$context.") for value in fields.values())
    for part in ("header", "authorization", "querystring", "body", "claims", "token"):
        assert part not in setting["Format"].lower()


def test_each_stages_api_has_its_own_name_which_its_metrics_go_by(packaged: Path, stage: Stage) -> None:
    api = json.loads(packaged.read_text())["Resources"]["RestAPI"]["Properties"]
    assert api["Name"] == api["DefinitionBody"]["info"]["title"] == f"paceline-{stage.name}"


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
        *(["Canary"] if stage.canary else []),
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


def test_a_longer_deadline_gives_the_worker_and_its_messages_longer(stage: Stage) -> None:
    merged = merge_template(replace(stage, worker_timeout=900), {})["Resources"]
    assert merged["Worker"]["Properties"]["Timeout"] == 900
    assert merged["Queue"]["Properties"]["VisibilityTimeout"] == 930
    assert merged["LaterQueue"]["Properties"]["VisibilityTimeout"] == 90
    usual = merge_template(stage, {})["Resources"]["Queue"]["Properties"]["VisibilityTimeout"]
    assert usual == read_stack_template()["Resources"]["Queue"]["Properties"]["VisibilityTimeout"]


def test_the_api_gets_concurrency_of_its_own_if_the_stage_says_so(stage: Stage) -> None:
    def reserved(of: Stage) -> Any:
        return merge_template(of, {})["Resources"]["APIHandler"]["Properties"].get("ReservedConcurrentExecutions")

    assert (reserved(stage), reserved(replace(stage, api_concurrency=50))) == (None, 50)


@pytest.fixture(scope="module")
def behind_url(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = replace(read_stage("dev"), front_door=FrontDoor.FUNCTION_URL)
    settings = {"AUTH": "jwt", "JWT_JWKS_URL": "https://issuer.example.com/jwks", "CORS_ORIGINS": "*"}
    return package(stage, settings, tmp_path_factory.mktemp("url"), with_requirements=False)


def test_a_function_url_replaces_the_rest_api(behind_url: Path) -> None:
    assert faults(behind_url) == []
    template = json.loads(behind_url.read_text())
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    assert not [kind for kind in kinds if "Api" in kind]
    assert "Authorizer" not in template["Resources"]
    assert template["Resources"]["APIHandler"]["Properties"]["Handler"] == "app.function_url"
    assert template["Outputs"]["FunctionUrl"]["Value"] == {"Fn::GetAtt": ["FunctionUrl", "FunctionUrl"]}
    assert not {"EndpointURL", "RestAPIId"} & set(template["Outputs"])


def test_everybody_may_call_the_alias_by_its_url_and_in_no_other_way(behind_url: Path) -> None:
    template = json.loads(behind_url.read_text())
    (url,) = of_type(template, "AWS::Lambda::Url")
    assert url == {"TargetFunctionArn": {"Ref": "APIHandler"}, "AuthType": "NONE", "Qualifier": "live"}
    assert template["Resources"]["FunctionUrl"]["DependsOn"] == ["APIHandlerAliaslive"]
    alias = {"FunctionName": {"Ref": "APIHandlerAliaslive"}, "Principal": "*"}
    call_url, call_function = sorted(of_type(template, "AWS::Lambda::Permission"), key=lambda one: -len(one["Action"]))
    assert call_url == {**alias, "Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"}
    assert call_function == {**alias, "Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True}


def test_sam_takes_the_package_with_a_function_url(behind_url: Path) -> None:
    translated = transform(with_uploaded_code(json.loads(behind_url.read_text())), {}, NoManagedPolicies())
    aliases = {name for name, one in translated["Resources"].items() if one["Type"] == "AWS::Lambda::Alias"}
    assert aliases == {"APIHandlerAliaslive", "WorkerAliaslive", "ScheduledAliaslive"}


def test_package_with_a_function_url_for_localstack_names_no_alias(tmp_path: Path) -> None:
    stage = replace(read_stage("dev"), front_door=FrontDoor.FUNCTION_URL)
    path = package(stage, {"AUTH": "none"}, tmp_path, is_local=True, with_requirements=False)
    assert "Alias" not in path.read_text()
    assert len(list(of_type(json.loads(path.read_text()), "AWS::Lambda::Permission"))) == 1
