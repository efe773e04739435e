"""What `make deploy STAGE=prod` warns of, and refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.deploy.account import Account
from infra.deploy.errors import DeployError
from infra.deploy.readiness import check_readiness
from infra.deploy.stages import FrontDoor, Stage, read_stage

READY = {
    "AUTH": "jwt",
    "JWT_JWKS_URL": "https://issuer.example.com/jwks",
    "JWT_AUDIENCE": "paceline",
    "JWT_ISSUER": "https://issuer.example.com",
    "HTTP_ALLOWED_HOSTS": "api.example.com, *.example.org",
    "WEBHOOK_SECRET": "whsec_c2VjcmV0",
}
TOPIC = {"ALARM_TOPIC_ARN": "arn:aws:sns:us-east-1:123456789012:alarms"}


class MissingError(Exception):
    """The table does not exist."""


@dataclass(frozen=True)
class Exceptions:
    ResourceNotFoundException: type[Exception] = MissingError


@dataclass(frozen=True)
class FakeAccount(Account):
    """An account with these facts, which plays its own clients. A fact that is None may not be read."""

    number: str = "123456789012"
    region: str = "eu-west-1"
    endpoint_url: str | None = None
    role: str | None = "arn:aws:iam::123456789012:role/logs"
    concurrency: int | None = 1000
    table: dict[str, Any] | None = field(default_factory=dict)
    exceptions: Exceptions = Exceptions()

    def client(self, service: str) -> Any:
        return self

    def get_account(self) -> dict[str, Any]:
        self._require(self.role)
        return {"cloudwatchRoleArn": self.role} if self.role else {}

    def get_account_settings(self) -> dict[str, Any]:
        self._require(self.concurrency)
        return {"AccountLimit": {"UnreservedConcurrentExecutions": self.concurrency}}

    def describe_table(self, TableName: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        self._require(self.table)
        if not self.table:
            raise MissingError(TableName)
        return {"Table": self.table}

    @staticmethod
    def _require(fact: object) -> None:
        if fact is None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Read")


PROD = read_stage("prod")


def warnings(
    settings: dict[str, str] | None = None,
    env: dict[str, str] = TOPIC,
    *,
    stage: Stage = PROD,
    account: Account | None = None,
) -> list[str]:
    said: list[str] = []
    given = READY if settings is None else settings
    check_readiness(account or FakeAccount(), stage, given, env, said.append)
    return said


def test_stage_that_is_ready_gets_no_warning() -> None:
    assert warnings() == []


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"AUTH": "none"}, "AUTH is none"),
        ({"AUTH": ""}, "AUTH is none"),
        ({"JWT_JWKS_URL": "", "JWT_SECRET": "s" * 32}, "JWT_SECRET is set"),
        ({"JWT_AUDIENCE": ""}, "JWT_AUDIENCE not set"),
        ({"JWT_AUDIENCE": "", "JWT_ISSUER": ""}, "JWT_AUDIENCE and JWT_ISSUER not set"),
        ({"HTTP_ALLOWED_HOSTS": "api.example.com,*"}, "HTTP_ALLOWED_HOSTS is *"),
        ({"HTTP_ALLOWED_HOSTS": "*:443"}, "HTTP_ALLOWED_HOSTS is *"),
        ({"WEBHOOK_SECRET": ""}, "WEBHOOK_SECRET is not set"),
        ({"ALLOW_KILL": "true"}, "ALLOW_KILL is true"),
    ],
)
def test_setting_that_is_not_advised_is_named(changed: dict[str, str], text: str) -> None:
    [warning] = warnings(READY | changed)
    assert warning.startswith(f"warning: {text}")


def test_secret_is_not_shown() -> None:
    assert "s" * 32 not in str(warnings(READY | {"JWT_SECRET": "s" * 32}))


def test_receiver_of_no_calls_needs_no_signatures() -> None:
    assert warnings(READY | {"HTTP_ALLOWED_HOSTS": "", "WEBHOOK_SECRET": ""}) == []


def test_stage_that_is_not_watched_is_named() -> None:
    said = warnings(env={}, stage=replace(PROD, canary=False, access_log=False))
    assert [line.split()[1] for line in said] == ["ALARM_TOPIC_ARN", "canary", "access_log"]


def test_function_url_is_named_and_needs_no_role_for_an_access_log() -> None:
    [warning] = warnings(stage=replace(PROD, front_door=FrontDoor.FUNCTION_URL), account=FakeAccount(role=""))
    assert warning.startswith("warning: front_door is function_url")


@pytest.mark.parametrize(("concurrency", "count"), [(10, 1), (649, 1), (650, 0), (1000, 0)])
def test_account_with_too_little_concurrency_is_named(concurrency: int, count: int) -> None:
    said = warnings(account=FakeAccount(concurrency=concurrency))
    assert len(said) == count
    assert all(f"the account has {concurrency} concurrent executions, the stage may use 650" in line for line in said)


def test_other_stages_get_no_advice() -> None:
    assert warnings({}, {}, stage=read_stage("dev")) == []


def test_access_log_without_a_role_of_api_gateway_is_refused() -> None:
    with pytest.raises(DeployError, match="no role to write the access log of stage prod"):
        warnings(account=FakeAccount(role=""))
    assert warnings({}, {}, stage=read_stage("dev"), account=FakeAccount(role="")) == []


def test_replicas_that_follow_with_a_delay_are_refused() -> None:
    replicas = {"Replicas": [{"RegionName": "us-east-1"}]}
    for table in (replicas, {**replicas, "MultiRegionConsistency": "EVENTUAL"}):
        with pytest.raises(DeployError, match="breaks the pace"):
            warnings(account=FakeAccount(table=table))
    assert warnings(account=FakeAccount(table={**replicas, "MultiRegionConsistency": "STRONG"})) == []
    assert warnings(account=FakeAccount(table={"TableName": "paceline-prod"})) == []


def test_fact_that_may_not_be_read_is_a_warning() -> None:
    said = warnings(account=FakeAccount(role=None, concurrency=None, table=None))
    assert [line.split(" could not")[0] for line in said] == [
        "warning: the role of the access log",
        "warning: the table's replicas",
        "warning: the account's concurrency",
    ]


def test_emulator_has_no_account_to_check() -> None:
    account = FakeAccount(endpoint_url="http://127.0.0.1:4566", role=None, concurrency=None, table=None)
    assert warnings(account=account) == []
