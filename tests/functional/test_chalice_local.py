"""The app under `chalice local` by itself: without named infrastructure or checked settings."""

import importlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chalice.test import Client, HTTPResponse

from app import app
from chalicelib.container import container
from chalicelib.core.limits import parse_limits
from local.gateway import Gateway
from tests.functional.test_auth import through_gateway
from tests.tokens import SECRET


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment without settings, and an empty folder; the app may add to the environment."""
    before = dict(os.environ)
    for name in ("AUTH", "LIMITS", "TABLE_NAME", "AWS_ENDPOINT_URL", "AWS_LAMBDA_FUNCTION_NAME", "JWT_SECRET"):
        os.environ.pop(name, None)
    monkeypatch.chdir(tmp_path)
    container.cache_clear()
    yield
    container.cache_clear()
    os.environ.clear()
    os.environ.update(before)


def get_lane() -> HTTPResponse:
    with Client(app) as chalice:
        return chalice.http.get("/api/v1/users/ann")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"LIMITS": "1000001/second"}, "LIMITS"),
        ({}, "TABLE_NAME"),
        ({"AUTH": "jwt", "JWT_SECRET": "short"}, "JWT_SECRET"),
    ],
)
def test_wrong_or_missing_setting_is_a_problem_that_names_it(env: dict[str, str], named: str) -> None:
    os.environ.update(env)
    response = get_lane()
    assert (response.status_code, response.headers["Content-Type"]) == (503, "application/problem+json")
    assert named in response.json_body["detail"]
    assert "short" not in str(response.json_body)


def test_wrong_setting_is_no_crash_of_the_authorizer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ.update(AUTH="jwt", JWT_SECRET=SECRET, LIMITS="1000001/second")
    monkeypatch.delitem(sys.modules, "app", raising=False)
    guarded = importlib.import_module("app")
    del sys.modules["app"]
    event = {"type": "TOKEN", "authorizationToken": "Bearer x", "methodArn": "arn:aws:execute-api:r:1:a/s/GET/x"}
    assert guarded.authorizer(event, None) is None
    assert "LIMITS" in capsys.readouterr().out
    status, _, problem = through_gateway(Gateway(guarded.app), "GET", "/api/v1/users/ann", None, "Bearer x")
    assert (status, problem["detail"]) == (503, "The setting LIMITS is missing or wrong.")


def test_emulator_that_is_away_is_a_problem() -> None:
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{free_port()}"
    response = get_lane()
    assert (response.status_code, response.headers["Content-Type"]) == (503, "application/problem+json")
    assert response.json_body["title"] == "Service unavailable"
    assert int(response.headers["Retry-After"]) >= 1


def test_env_file_is_read_below_the_environment() -> None:
    Path(".env").write_text("LIMITS=7/minute\nMAX_DELAY=2h\n")
    os.environ["MAX_DELAY"] = "3h"
    settings = container().settings
    assert (settings.limits, settings.max_delay_ms) == (parse_limits("7/minute"), 3 * 3_600_000)


def test_env_file_is_not_read_where_the_infrastructure_is_named() -> None:
    Path(".env").write_text("LIMITS=7/minute\n")
    os.environ["TABLE_NAME"] = "paceline-dev"
    assert container().settings.limits == parse_limits("1/second; 20/minute")


def test_on_lambda_the_parts_come_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("LIMITS=7/minute\n")
    os.environ["AWS_LAMBDA_FUNCTION_NAME"] = "paceline-dev"
    used: list[object] = []
    monkeypatch.setattr("chalicelib.container.use", used.append)
    monkeypatch.delitem(sys.modules, "app", raising=False)
    importlib.import_module("app")
    del sys.modules["app"]
    assert not used
