import json

import pytest

from app import app
from tests.functional.conftest import Paceline


@pytest.mark.parametrize(("stage", "path"), [("/api", "/api/v1/task"), ("", "/api/v1/task"), ("/prod/x", "/task")])
def test_location_is_the_task_s_path_as_the_client_has_to_ask_for_it(paceline: Paceline, stage: str, path: str) -> None:
    event = {
        "requestContext": {"resourcePath": path, "path": stage + path, "httpMethod": "POST"},
        "httpMethod": "POST",
        "path": path,
        "headers": {"content-type": "application/json"},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "isBase64Encoded": False,
        "body": json.dumps({"user_id": "ann"}),
    }
    answer = app(event, None)
    task_id = json.loads(answer["body"])["task_id"]
    assert answer["headers"]["Location"] == f"{stage}/api/v1/users/ann/tasks/{task_id}"


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [("/", 200, None), ("/api/", 200, None), ("/api", 307, "api/"), ("/base/api", 307, "api/"), (None, 200, None)],
)
def test_the_dashboard_without_its_slash_leads_to_the_one_with_it(
    paceline: Paceline, path: str | None, status: int, location: str | None
) -> None:
    """Its links are relative: without the slash a browser looks for the files of `/api` at `/web/app.js`."""
    event = {
        "requestContext": {"resourcePath": "/", "httpMethod": "GET", **({"path": path} if path else {})},
        "headers": {},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": None,
    }
    answer = app(event, None)
    assert (answer["statusCode"], answer["headers"].get("Location")) == (status, location)
