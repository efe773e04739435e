"""Serves the API through a Lambda Function URL: reads its events (payload format 2.0) as API Gateway's REST events.

Chalice reads only the latter. Unknown paths and methods, which API Gateway answers itself, are answered here.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from chalice.app import Chalice, Response

from chalicelib.api.origins import UNSTORED, Origins
from chalicelib.api.problems import problem

Event = Mapping[str, Any]


def answer(app: Chalice, event: Event, context: Any, origins: Origins) -> dict[str, Any]:
    """Returns the app's answer to one request, in the form that a Function URL takes."""
    method, path = event["requestContext"]["http"]["method"], event["rawPath"]
    found = matching_route(app.routes, path)
    if found is None:
        return _refused(problem(404, "Not Found", f"The path {path} does not exist"), event, origins)
    route, parameters = found
    methods = app.routes[route]
    served = "GET" if method == "HEAD" and "HEAD" not in methods else method
    if served not in methods:
        allowed = ", ".join(sorted(methods))
        refusal = problem(405, "Method Not Allowed", f"Allowed methods: {allowed}", Allow=allowed)
        return _refused(refusal, event, origins)
    return _url_response(app(rest_event(event, served, route, parameters), context))


def matching_route(routes: Mapping[str, Any], path: str) -> tuple[str, dict[str, str]] | None:
    """Returns the route of a percent-encoded path, and its parameters, still encoded; None if there is no route.

    As in API Gateway, a fixed segment wins over a parameter, and a slash at the end does not count.
    """
    segments = path.removesuffix("/").split("/")
    candidates = [(route, route.removesuffix("/").split("/")) for route in routes]
    fitting = [(route, parts) for route, parts in candidates if _fits(parts, segments)]
    if not fitting:
        return None
    route, parts = min(fitting, key=lambda one: [_is_parameter(part) for part in one[1]])
    pairs = zip(parts, segments, strict=True)
    return route, {part[1:-1]: segment for part, segment in pairs if _is_parameter(part)}


def _fits(parts: list[str], segments: list[str]) -> bool:
    if len(parts) != len(segments):
        return False
    return all(
        segment if _is_parameter(part) else part == segment for part, segment in zip(parts, segments, strict=True)
    )


def _is_parameter(part: str) -> bool:
    return part.startswith("{")


def rest_event(event: Event, method: str, route: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Returns the event that API Gateway would send for this request."""
    headers = dict(event.get("headers") or {})
    if cookies := event.get("cookies"):
        headers["cookie"] = "; ".join(cookies)
    query = parse_qs(event.get("rawQueryString") or "", keep_blank_values=True)
    return {
        "requestContext": {"resourcePath": route, "path": event["rawPath"], "httpMethod": method},
        "httpMethod": method,
        "path": event["rawPath"],
        "headers": headers,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": parameters or None,
        "stageVariables": None,
        "body": event.get("body"),
        "isBase64Encoded": event.get("isBase64Encoded", False),
    }


def _refused(response: Response, event: Event, origins: Origins) -> dict[str, Any]:
    origin = (event.get("headers") or {}).get("origin")
    response.headers = {**UNSTORED, **origins.response_headers(origin), **response.headers}
    return _url_response(response.to_dict())


def _url_response(response: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the response without lists of values, which a Function URL does not know. The app sets no cookies."""
    several = {name: ", ".join(values) for name, values in (response.get("multiValueHeaders") or {}).items()}
    return {
        "statusCode": response["statusCode"],
        "headers": {**(response.get("headers") or {}), **several},
        "body": response.get("body") or "",
        "isBase64Encoded": response.get("isBase64Encoded", False),
    }
