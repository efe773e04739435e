"""The contract of the first hour, over the app in memory behind the local gateway: AWS must answer as the app does."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request

import pytest
from chalice.app import Chalice

from local.gateway import Gateway
from operations.first_hour.contract import checks
from operations.first_hour.gateway import gateway
from operations.first_hour.stage import Answer, Api, Signer, stage_environment

URL = "http://localhost:8000"


@pytest.fixture
def api(load_app: Callable[..., Chalice]) -> Api:
    return serving(load_app)


def serving(load_app: Callable[..., Chalice], **settings: str) -> Api:
    """The API as the first hour's stage has it, with these settings changed."""
    signer = Signer()
    stage = {name: value for name, value in stage_environment({}, signer.public_key).items() if value}
    served = Gateway(load_app(**stage | settings))
    return Api(URL, signer, lambda request: through(served, request))


def through(served: Gateway, request: Request) -> Answer:
    path, _, query = request.full_url.removeprefix(URL).partition("?")
    body: Any = request.data or b""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.get_method(),
        "REQUEST_URI": request.full_url.removeprefix(URL),
        "PATH_INFO": unquote(path),
        "QUERY_STRING": query,
        "HTTP_HOST": urlsplit(URL).netloc,
        "wsgi.input": BytesIO(body),
    }
    for name, value in request.header_items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    started = list[Any]()
    text = b"".join(served(environ, lambda *args: started.append(args)))
    status, headers = started[0]
    return Answer(int(status.split()[0]), {name.lower(): value for name, value in headers}, text.decode())


def test_the_app_answers_as_the_first_hour_expects(api: Api) -> None:
    findings = gateway(api, "r", is_aws=False)
    assert [one for one in findings if one.is_expected is False and not one.not_measured] == []
    assert len(findings) == len(checks(api, "r")) == api.requests


def test_accepted_tasks_are_counted(api: Api) -> None:
    gateway(api, "r", is_aws=False)
    assert api.tasks == 8


def test_without_the_apps_cors_the_first_hour_sees_a_difference(load_app: Callable[..., Chalice]) -> None:
    findings = gateway(serving(load_app, CORS_ORIGINS="https://other.example"), "r", is_aws=False)
    different = {one.label: one.value for one in findings if one.is_expected is False and not one.not_measured}
    assert different.keys() == {
        "preflight from an allowed origin",
        "preflight from another origin",
        "an answer to an allowed origin",
    }, different
