"""REST APIs with one function behind `/{proxy+}`: an emulator's, and the gateway of `make run` with `/{proxy}`."""

import io
import json
import threading
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from http.client import RemoteDisconnected
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from chalice.app import Chalice, Response

from local.gateway import Gateway as LocalGateway
from tests.facts.functions import Functions

Event = dict[str, Any]


class Gateway(ABC):
    @abstractmethod
    def event(self, path: str, headers: dict[str, str] | None = None) -> Event:
        """The event that a GET of the path gives the function."""

    def status_and_body(self, answer: Any) -> list[str]:
        """As a client gets them, of what the function answers."""
        status, body, _ = self._answered(answer)
        return [str(status), _normalised(body) or "no body"]

    def header(self, answer: Any, name: str) -> str:
        _, _, headers = self._answered(answer)
        return ", ".join(headers.get_all(name) or ["missing"])

    @abstractmethod
    def post_to_get_only(self) -> list[str]:
        """Status and message of a POST to a path that has a GET alone."""

    @abstractmethod
    def _answered(self, answer: Any) -> tuple[int, str, Any]: ...


def _normalised(body: str) -> str:
    try:
        return json.dumps(json.loads(body))
    except ValueError:
        return body


class EmulatedGateway(Gateway):
    """Two REST APIs with one function: one takes every path and method, the other one GET /get-only."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._client = functions.client("apigateway")
        self._next: Any = None
        #: facts are played side by side, and the next answer is one for the function
        self._lock = threading.Lock()
        _, arn = functions.deploy(self._answer)
        self._proxy, self._get_only = self._deploy(arn, "{proxy+}", "ANY"), self._deploy(arn, "get-only", "GET")

    def event(self, path: str, headers: dict[str, str] | None = None) -> Event:
        with self._lock:
            self._next = None
            status, body, _ = self._request(self._proxy + path, headers or {})
        assert status == 200, body
        return dict(json.loads(body))

    def _answered(self, answer: Any) -> tuple[int, str, Any]:
        with self._lock:
            self._next = answer
            return self._request(self._proxy + "/test", {})

    def _answer(self, event: Event) -> Any:
        return {"statusCode": 200, "body": json.dumps(event)} if self._next is None else self._next

    def post_to_get_only(self) -> list[str]:
        with self._lock:
            self._next = None
            status, body, _ = self._request(self._get_only + "/get-only", {}, "POST")
        return [str(status), json.loads(body).get("message", "no message")]

    def _request(self, url: str, headers: dict[str, str], method: str = "GET") -> tuple[int, str, Any]:
        request = urllib.request.Request(url, method=method)
        request.headers = headers  # add_header changes the case of their names
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read().decode(), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers
        except RemoteDisconnected:
            return 0, "no answer", {}

    def _deploy(self, function_arn: str, path: str, http_method: str) -> str:
        """The URL of a new API's stage."""
        client = self._client
        api = client.create_rest_api(name=f"fact-{uuid4().hex[:12]}")["id"]
        self._functions.remove_later(lambda: client.delete_rest_api(restApiId=api))
        root = client.get_resources(restApiId=api)["items"][0]["id"]
        resource = client.create_resource(restApiId=api, parentId=root, pathPart=path)["id"]
        method = {"restApiId": api, "resourceId": resource, "httpMethod": http_method}
        client.put_method(**method, authorizationType="NONE")
        uri = (
            f"arn:aws:apigateway:{client.meta.region_name}:lambda:path/2015-03-31/functions/{function_arn}/invocations"
        )
        client.put_integration(**method, type="AWS_PROXY", integrationHttpMethod="POST", uri=uri)
        client.create_deployment(restApiId=api, stageName="stage")
        return f"{client.meta.endpoint_url}/restapis/{api}/stage/_user_request_"


class OwnGateway(Gateway):
    """The gateway of `make run`, over an app that answers with its event."""

    def __init__(self) -> None:
        app = Chalice("facts")

        @app.route("/{proxy}")
        def view(proxy: str) -> Response:
            assert app.current_request is not None
            return Response(app.current_request.to_original_event())

        self._gateway = LocalGateway(app)

    def event(self, path: str, headers: dict[str, str] | None = None) -> Event:
        named = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
        environ = {"REQUEST_METHOD": "GET", "REQUEST_URI": path, "PATH_INFO": quote(path), "HTTP_HOST": "localhost"}
        [body] = self._gateway({**environ, **named, "wsgi.input": io.BytesIO()}, lambda *_: None)
        return dict(json.loads(body))

    def post_to_get_only(self) -> list[str]:
        raise NotImplementedError("its own errors are Paceline's problem+json")

    def _answered(self, answer: Any) -> tuple[int, str, Any]:
        raise NotImplementedError("Chalice makes the function's answers, so none is malformed")
