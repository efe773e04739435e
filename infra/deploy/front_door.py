"""Configures API Gateway: throttling, and error responses in the app's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.deploy.access_log import access_log_setting
from infra.deploy.stages import Stage


@dataclass(frozen=True)
class GatewayResponse:
    """An error response that API Gateway sends without invoking the app."""

    #: API Gateway's response type
    kind: str
    #: HTTP status; None keeps API Gateway's own
    status: int | None
    title: str
    #: Retry-After in seconds; None if a retry cannot help
    retry_after: int | None = None

    @property
    def body(self) -> str:
        """Returns problem+json (RFC 9457) as a mapping template; API Gateway inserts the quoted error text."""
        status = f'"status":{self.status},' if self.status else ""
        return (
            f'{{"type":"about:blank","title":{json.dumps(self.title)},{status}"detail":$context.error.messageString}}'
        )

    def headers(self, origins: Sequence[str]) -> dict[str, str]:
        """Returns the headers; API Gateway requires quotes around constant values.

        origins: those whose pages may call, as CORS_ORIGINS lists them.
        """
        headers = _cors_headers(origins) | {
            "Cache-Control": "'no-store'",
            "Content-Type": "'application/problem+json'",
            "X-Content-Type-Options": "'nosniff'",
        }
        if self.status == 401:
            headers["WWW-Authenticate"] = "'Bearer'"
        return headers | ({"Retry-After": f"'{self.retry_after}'"} if self.retry_after else {})


def _cors_headers(origins: Sequence[str]) -> dict[str, str]:
    """API Gateway can't choose from a list: with several origins each reads these errors, which hold no data."""
    if not origins:
        return {}
    if len(origins) > 1:
        return _cors_headers(["*"]) | {
            "Access-Control-Allow-Origin": "method.request.header.Origin",
            "Vary": "'Origin'",
        }
    return {
        "Access-Control-Allow-Origin": f"'{origins[0]}'",
        "Access-Control-Expose-Headers": "'Retry-After,WWW-Authenticate'",
    }


#: Specific response types first; the defaults apply to all others.
GATEWAY_RESPONSES = (
    # API Gateway would answer 403, although the path or method does not exist.
    GatewayResponse("MISSING_AUTHENTICATION_TOKEN", 404, "Not found"),
    GatewayResponse("BAD_REQUEST_BODY", 400, "Bad request"),
    GatewayResponse("BAD_REQUEST_PARAMETERS", 400, "Bad request"),
    GatewayResponse("REQUEST_TOO_LARGE", 413, "Request too large"),
    GatewayResponse("UNSUPPORTED_MEDIA_TYPE", 415, "Unsupported media type"),
    GatewayResponse("UNAUTHORIZED", 401, "A token is required"),
    # The authorizer rejected the token; the app itself rejects a valid token that lacks a scope.
    GatewayResponse("ACCESS_DENIED", 401, "$context.authorizer.title"),
    # The authorizer could not fetch the signing keys.
    GatewayResponse("AUTHORIZER_CONFIGURATION_ERROR", 503, "Service unavailable", retry_after=1),
    GatewayResponse("AUTHORIZER_FAILURE", 503, "Service unavailable", retry_after=1),
    GatewayResponse("THROTTLED", 429, "Too many requests to this deployment", retry_after=1),
    GatewayResponse("QUOTA_EXCEEDED", 429, "Too many requests to this deployment", retry_after=1),
    GatewayResponse("INTEGRATION_FAILURE", 503, "Service unavailable", retry_after=1),
    GatewayResponse("INTEGRATION_TIMEOUT", 504, "Gateway timeout", retry_after=1),
    GatewayResponse("DEFAULT_4XX", None, "Request refused"),
    GatewayResponse("DEFAULT_5XX", None, "Service unavailable"),
)


def front_door(stage: Stage, origins: Sequence[str]) -> dict[str, Any]:
    """Returns the properties of the SAM template's API."""
    return {
        # The API's name is a dimension of its metrics, so each stage needs its own. Chalice's is the same for all.
        "Name": stage.full_name,
        "DefinitionBody": {"info": {"title": stage.full_name}},
        **access_log_setting(stage),
        "GatewayResponses": {response.kind: _as_property(response, origins) for response in GATEWAY_RESPONSES},
        "MethodSettings": [
            {
                "ResourcePath": "/*",
                "HttpMethod": "*",
                "ThrottlingRateLimit": stage.throttling_rate,
                "ThrottlingBurstLimit": stage.throttling_burst,
            }
        ],
    }


def _as_property(response: GatewayResponse, origins: Sequence[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "ResponseParameters": {"Headers": response.headers(origins)},
        "ResponseTemplates": {"application/json": response.body},
    }
    return properties | ({"StatusCode": response.status} if response.status else {})
