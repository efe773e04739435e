"""Secrets of a deployment: references, and their store over moto's Secrets Manager."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from chalicelib.core.errors import SettingError
from chalicelib.settings import Settings
from infra.deploy.account import Account
from infra.deploy.errors import DeployError
from infra.deploy.secrets import SecretStore, read_reference, without_references
from infra.deploy.stages import function_settings, read_stage, validate

SECRET, OTHER = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/jwt-AbCdEf"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Account("123456789012", "us-east-1", None)


def secrets_manager(account: Account) -> Any:
    return account.client("secretsmanager")


def version_in(reference: str) -> str:
    return reference.removesuffix("}}").rpartition(":")[2]


@pytest.mark.parametrize(
    ("text", "in_template"),
    [
        ("secretsmanager:jwt", "{{resolve:secretsmanager:jwt:SecretString:::}}"),
        ("secretsmanager:prod/jwt:key", "{{resolve:secretsmanager:prod/jwt:SecretString:key::}}"),
        (f"secretsmanager:{ARN}", f"{{{{resolve:secretsmanager:{ARN}:SecretString:::}}}}"),
        (f"secretsmanager:{ARN}:key", f"{{{{resolve:secretsmanager:{ARN}:SecretString:key::}}}}"),
    ],
)
def test_a_reference_names_a_secret_and_perhaps_a_member(text: str, in_template: str) -> None:
    reference = read_reference("JWT_SECRET", text)
    assert reference is not None
    assert reference.in_template() == in_template


@pytest.mark.parametrize(
    "text", ["secretsmanager:", "secretsmanager:a:b:c", "secretsmanager:a}}", "ssm:/jwt", "{{resolve:ssm:/jwt:1}}"]
)
def test_what_is_no_reference_to_secrets_manager_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(DeployError, match="use secretsmanager:NAME"):
        read_reference("JWT_SECRET", text)


def test_a_plain_secret_is_no_reference() -> None:
    assert read_reference("JWT_SECRET", SECRET) is None


def test_a_setting_that_refers_to_a_secret_counts_as_valid_before_the_secret_is_known() -> None:
    env = {"AUTH": "jwt", "JWT_SECRET": "secretsmanager:jwt", "WEBHOOK_SECRET": "secretsmanager:calls:key"}
    assert function_settings(env, read_stage("prod")) == env
    assert "secretsmanager" not in "".join(without_references(env).values())


@pytest.mark.parametrize("variable", ["JWT_SECRET", "WEBHOOK_SECRET"])
@pytest.mark.parametrize(
    "text", ["secretsmanager:a-name-of-more-than-32-characters", "{{resolve:secretsmanager:jwt:SecretString:::}}"]
)
def test_the_text_of_a_reference_is_never_itself_the_key(variable: str, text: str) -> None:
    """A name is no secret: who knows it could sign tokens, if `make run` or a function took it for the key."""
    env = {"AUTH": "jwt", "JWT_SECRET": SECRET, variable: text}
    with pytest.raises(SettingError, match="reference"):
        Settings.from_env(env)


def test_keys_of_tokens_that_nobody_verifies_are_not_passed_on() -> None:
    assert function_settings({"AUTH": "none", "JWT_SECRET": SECRET}, read_stage("dev")) == {"AUTH": "none"}


def test_plain_secrets_are_stored_and_the_settings_refer_to_their_version(account: Account) -> None:
    settings = {"AUTH": "jwt", "JWT_SECRET": SECRET, "WEBHOOK_SECRET": "whsec_x", "LIMITS": "1/second"}
    stored = SecretStore(account, "paceline-dev").store(settings)
    assert SECRET not in json.dumps(stored)
    assert (stored["AUTH"], stored["LIMITS"]) == ("jwt", "1/second")
    version = version_in(stored["JWT_SECRET"])
    found = secrets_manager(account).get_secret_value(SecretId="paceline-dev", VersionId=version)
    assert json.loads(found["SecretString"]) == {"JWT_SECRET": SECRET, "WEBHOOK_SECRET": "whsec_x"}
    assert stored["JWT_SECRET"] == f"{{{{resolve:secretsmanager:paceline-dev:SecretString:JWT_SECRET::{version}}}}}"


def test_only_a_changed_secret_changes_the_template(account: Account) -> None:
    """CloudFormation compares templates: the same reference would keep functions with the old value."""
    store = SecretStore(account, "paceline-dev")
    first, again, changed = (store.store({"JWT_SECRET": secret})["JWT_SECRET"] for secret in (SECRET, SECRET, OTHER))
    assert first == again != changed


def test_a_secret_of_your_own_is_read_for_its_check_and_its_version(account: Account) -> None:
    made = secrets_manager(account).create_secret(Name="jwt", SecretString=json.dumps({"key": SECRET}))
    store, settings = SecretStore(account, "paceline-dev"), {"AUTH": "jwt", "JWT_SECRET": "secretsmanager:jwt:key"}
    assert store.values(settings) == {"JWT_SECRET": SECRET}
    assert version_in(store.store(settings)["JWT_SECRET"]) == made["VersionId"]
    assert [found["Name"] for found in secrets_manager(account).list_secrets()["SecretList"]] == ["jwt"]


@pytest.mark.parametrize("reference", ["none", "plain:key", "object:other"])
def test_a_secret_that_is_missing_stops_the_deployment(account: Account, reference: str) -> None:
    for name, text in (("plain", SECRET), ("object", json.dumps({"key": SECRET}))):
        secrets_manager(account).create_secret(Name=name, SecretString=text)
    with pytest.raises(DeployError, match="JWT_SECRET=secretsmanager") as caught:
        SecretStore(account, "paceline-dev").values({"JWT_SECRET": f"secretsmanager:{reference}"})
    assert SECRET not in str(caught.value)


def test_a_weak_secret_behind_a_reference_is_refused(account: Account) -> None:
    secrets_manager(account).create_secret(Name="weak", SecretString="weak")
    settings = {"AUTH": "jwt", "JWT_SECRET": "secretsmanager:weak"}
    with pytest.raises(DeployError, match="at least 32"):
        validate({**settings, **SecretStore(account, "paceline-dev").values(settings)}, read_stage("dev"))


def test_destroying_deletes_the_stages_secret_only(account: Account) -> None:
    store = SecretStore(account, "paceline-dev")
    secrets_manager(account).create_secret(Name="jwt", SecretString=SECRET)
    store.store({"WEBHOOK_SECRET": "whsec_x"})
    assert [store.delete(), store.delete()] == [True, False]
    assert [found["Name"] for found in secrets_manager(account).list_secrets()["SecretList"]] == ["jwt"]
