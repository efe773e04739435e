"""Secrets in the packaged template: references only, and only for the functions that need them."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.deploy.package import package
from infra.deploy.secrets import references
from infra.deploy.stages import read_stage

JWT, WEBHOOK = "a-secret-that-nobody-may-read-0123456789", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#: Settings about callers: the worker and the scheduled function run without them.
OF_CALLERS = ("AUTH", "JWT_", "CORS_ORIGINS", "ALLOW_KILL")


def variables(settings: dict[str, str], folder: Path) -> dict[str, dict[str, Any]]:
    """The variables of each packaged function; fails if the template or the archive has a secret's value."""
    given = references(settings, "paceline-dev")
    text = package(read_stage("dev"), given, folder, with_requirements=False).read_text()
    archive = (folder / "deployment.zip").read_bytes()
    for secret in (JWT, WEBHOOK):
        assert secret not in text
        assert secret.encode() not in archive
    resources = json.loads(text)["Resources"]
    functions = ("APIHandler", "Authorizer", "Worker", "Scheduled")
    return {name: resources[name]["Properties"]["Environment"]["Variables"] for name in functions}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    settings = {
        "AUTH": "jwt",
        "JWT_SECRET": JWT,
        "JWT_AUDIENCE": "paceline",
        "WEBHOOK_SECRET": WEBHOOK,
        "LIMITS": "1/s",
    }
    return variables(settings | {"CORS_ORIGINS": "*"}, tmp_path_factory.mktemp("secrets"))


def test_workers_run_users_code_and_get_nothing_about_callers(packaged: dict[str, dict[str, Any]]) -> None:
    for function in ("Worker", "Scheduled"):
        assert [name for name in packaged[function] if name.startswith(OF_CALLERS)] == []
        assert packaged[function]["LIMITS"] == "1/s"


def test_api_and_authorizer_get_the_key_of_tokens_and_not_that_of_calls(packaged: dict[str, dict[str, Any]]) -> None:
    for function in ("APIHandler", "Authorizer"):
        assert packaged[function]["JWT_SECRET"] == "{{resolve:secretsmanager:paceline-dev:SecretString:JWT_SECRET::}}"
        assert packaged[function]["JWT_AUDIENCE"] == "paceline"
        assert "WEBHOOK_SECRET" not in packaged[function]
    assert "WEBHOOK_SECRET" in packaged["Worker"]
    assert "WEBHOOK_SECRET" in packaged["Scheduled"]


def test_a_secret_of_your_own_is_referred_to_by_its_name(tmp_path: Path) -> None:
    settings = {
        "AUTH": "jwt",
        "JWT_SECRET": "secretsmanager:prod/tokens:hs256",
        "WEBHOOK_SECRET": "secretsmanager:calls",
    }
    found = variables(settings, tmp_path)
    expected = "{{resolve:secretsmanager:prod/tokens:SecretString:hs256::}}"
    assert found["Authorizer"]["JWT_SECRET"] == expected
    assert found["Worker"]["WEBHOOK_SECRET"] == "{{resolve:secretsmanager:calls:SecretString:::}}"
