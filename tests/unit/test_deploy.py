"""The parts of a deployment, before any call."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError

from infra.deploy.account import Account
from infra.deploy.address import address, health_check
from infra.deploy.artifacts import with_code
from infra.deploy.errors import DeployError, explained
from infra.deploy.package import event_source_mapping
from infra.deploy.project import project_folder
from infra.deploy.stages import ROOT, FrontDoor, function_settings, read_stage
from infra.stack import OUTPUT_VARIABLES, StackError, output_variables

ENDPOINT = "http://127.0.0.1:4566"


def test_functions_get_the_settings_that_are_theirs() -> None:
    env = {"LIMITS": "5/second", "AUTH": "none", "LOG_DIR": "logs", "PORT": "8000", "AWS_ENDPOINT_URL": ENDPOINT}
    assert function_settings(env, read_stage("dev")) == {"LIMITS": "5/second", "AUTH": "none"}


def test_keys_of_the_authentication_go_along() -> None:
    env = {"AUTH": "jwt", "JWT_SECRET": "s" * 64}
    assert function_settings(env, read_stage("prod")) == env


def test_variables_of_other_programs_are_not_passed_on_whatever_their_names_begin_with() -> None:
    foreign = {"AUTH0_CLIENT_SECRET": "x", "AUTH_TOKEN": "x", "AUTHOR": "x", "JWT_PRIVATE_KEY": "x"}
    env = {"AUTH": "jwt", "JWT_JWKS_URL": "https://issuer.example.com/jwks", "JWT_AUDIENCE": "a", "JWT_ISSUER": "i"}
    assert function_settings(env | foreign, read_stage("dev")) == env


def test_stack_of_an_earlier_version_is_refused_with_the_remedy() -> None:
    outputs = dict.fromkeys(OUTPUT_VARIABLES.values(), "x")
    assert output_variables(outputs)["SCHEDULED_DEAD_LETTER_URL"] == "x"
    del outputs["ScheduledDeadLetterUrl"]
    with pytest.raises(StackError, match=r"lacks ScheduledDeadLetterUrl, .*: deploy it again"):
        output_variables(outputs)


def test_a_wrong_setting_is_named_before_anything_is_deployed() -> None:
    with pytest.raises(DeployError, match="LIMITS"):
        function_settings({"LIMITS": "many"}, read_stage("dev"))


@pytest.mark.parametrize("env", [{}, {"AUTH": "none"}, {"AUTH": ""}, {"ALLOW_NO_AUTH": "false"}])
def test_prod_refuses_to_be_open_to_all(env: dict[str, str]) -> None:
    with pytest.raises(DeployError, match="ALLOW_NO_AUTH=true"):
        function_settings(env, read_stage("prod"))


def test_prod_is_open_to_all_when_told_so() -> None:
    assert function_settings({"ALLOW_NO_AUTH": "true"}, read_stage("prod")) == {}


def test_a_stage_that_is_not_configured_is_refused_with_those_that_are() -> None:
    with pytest.raises(DeployError, match="dev, prod"):
        read_stage("staging")


def test_the_project_folder_fits_every_account_and_leaves_the_tree_alone() -> None:
    before = {path: path.stat().st_mtime_ns for path in (ROOT / ".chalice").glob("*.json")}
    with project_folder("dev", {"TABLE_NAME": "t"}, "arm64") as folder:
        policy = json.loads((folder / ".chalice" / "policy-worker.json").read_text())
        config = json.loads((folder / ".chalice" / "config.json").read_text())
        requirements = (folder / "requirements.txt").read_text()
    assert not folder.exists()
    table = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/paceline-${Stage}"
    assert policy["Statement"][0]["Resource"] == {"Fn::Sub": table}
    assert config["lambda_architecture"] == "arm64"
    assert config["stages"]["dev"]["environment_variables"] == {"STAGE": "dev"}
    for function in config["stages"]["dev"]["lambda_functions"].values():
        assert function["environment_variables"] == {"STAGE": "dev", "TABLE_NAME": "t"}
    assert "log_retention_in_days" not in config["stages"]["dev"]
    assert "boto3==" in requirements
    assert "chalice" not in requirements
    assert before == {path: path.stat().st_mtime_ns for path in (ROOT / ".chalice").glob("*.json")}


def test_each_stage_names_itself_to_its_functions_and_to_chalice() -> None:
    """The trigger's queue is named after it: a copy of another stage's configuration must not use its queue."""
    for stage in ("dev", "prod"):
        with project_folder(stage, {"STAGE": "another"}, "arm64") as folder:
            config = json.loads((folder / ".chalice" / "config.json").read_text())["stages"][stage]
        named = [config, *config["lambda_functions"].values()]
        assert {one["environment_variables"]["STAGE"] for one in named} == {stage}


def test_the_trigger_reports_failures_so_that_deferred_messages_stay() -> None:
    assert event_source_mapping(20) == {
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": 20},
        "MetricsConfig": {"Metrics": ["EventCount"]},
    }


def test_every_function_gets_the_uploaded_archive() -> None:
    kinds = ("AWS::Serverless::Function", "AWS::DynamoDB::Table", "AWS::Serverless::Function")
    template = {"Resources": {str(n): {"Type": kind, "Properties": {}} for n, kind in enumerate(kinds)}}
    given = with_code(template, "s3://bucket/key.zip")["Resources"].values()
    assert [one["Properties"].get("CodeUri") for one in given] == ["s3://bucket/key.zip", None, "s3://bucket/key.zip"]


@pytest.mark.parametrize(
    ("error", "endpoint_url", "remedy"),
    [
        (EndpointConnectionError(endpoint_url=ENDPOINT), ENDPOINT, "make localstack"),
        (EndpointConnectionError(endpoint_url="https://sts"), None, "network"),
        (NoCredentialsError(), None, "AWS_ENDPOINT_URL"),
        (NoRegionError(), None, "AWS_DEFAULT_REGION"),
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "CreateRole"),
            None,
            "docs/production/deploy.md",
        ),
        (ClientError({"Error": {"Code": "Other", "Message": "two\nlines"}}, "CreateRole"), None, "again"),
    ],
)
def test_errors_are_one_line_that_says_how_to_mend_it(error: Exception, endpoint_url: str | None, remedy: str) -> None:
    text = str(explained("the stack", error, endpoint_url))
    assert text.startswith("the stack: ")
    assert remedy in text
    assert "\n" not in text


def test_stages_differ_in_nothing_but_size() -> None:
    dev, prod = read_stage("dev"), read_stage("prod")
    assert dev.functions == prod.functions == ("api_handler", "authorizer", "canary", "scheduled", "worker")
    assert dev.maximum_concurrency < prod.maximum_concurrency
    assert (dev.function_name("api_handler"), dev.function_name("worker")) == ("paceline-dev", "paceline-dev-worker")


def test_the_compose_file_pins_its_image() -> None:
    text = (Path(ROOT) / "infra" / "docker-compose.yml").read_text()
    assert "image: localstack/localstack:4.14" in text


OUTPUTS = {"RestAPIId": "abc", "EndpointURL": "https://abc.execute-api.eu-west-1.amazonaws.com/api/"}
URL = "https://abc.lambda-url.eu-west-1.on.aws/"


@pytest.mark.parametrize(
    ("endpoint_url", "front_door", "expected"),
    [
        (None, FrontDoor.REST_API, OUTPUTS["EndpointURL"]),
        (None, FrontDoor.FUNCTION_URL, URL),
        (ENDPOINT, FrontDoor.REST_API, f"{ENDPOINT}/restapis/abc/api/_user_request_/"),
    ],
)
def test_the_printed_address_is_that_of_the_dashboard_with_its_slash(
    endpoint_url: str | None, front_door: FrontDoor, expected: str
) -> None:
    stage = replace(read_stage("dev"), front_door=front_door)
    outputs = {"FunctionUrl": URL} if front_door is FrontDoor.FUNCTION_URL else OUTPUTS
    assert address(Account("123456789012", "eu-west-1", endpoint_url), stage, outputs) == expected


def test_a_function_url_of_localstack_is_asked_without_its_name_being_resolved() -> None:
    request = health_check("http://abc.lambda-url.us-east-1.localhost:4566/", f"{ENDPOINT}/")
    assert request.full_url == f"{ENDPOINT}/health"
    assert request.get_header("Host") == "abc.lambda-url.us-east-1.localhost:4566"
    assert health_check(OUTPUTS["EndpointURL"], None).full_url == f"{OUTPUTS['EndpointURL']}health"
