"""What API Gateway itself does before and instead of the app: throttling, and answers in the form of the app's own.

One table, in two languages: calls for a deployed API, properties for the packaged template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from infra.deploy.deployed import Account
from infra.deploy.stages import Stage


@dataclass(frozen=True)
class GatewayResponse:
    """An answer that API Gateway gives without asking the app."""

    #: API Gateway's name for the occasion.
    kind: str
    #: None: the status that API Gateway gives it.
    status: int | None
    title: str
    #: Seconds; None where trying again is of no use.
    retry_after: int | None = None

    @property
    def body(self) -> str:
        """problem+json (RFC 9457) as API Gateway's template; what went wrong it puts in itself, quoted."""
        status = f'"status":{self.status},' if self.status else ""
        return (
            f'{{"type":"about:blank","title":{json.dumps(self.title)},{status}"detail":$context.error.messageString}}'
        )

    @property
    def headers(self) -> dict[str, str]:
        """Header values in the quotes that API Gateway wants around a constant."""
        headers = {
            "Access-Control-Allow-Origin": "'*'",
            "Access-Control-Expose-Headers": "'Retry-After'",
            "Content-Type": "'application/problem+json'",
        }
        if self.status == 401:
            headers["WWW-Authenticate"] = "'Bearer'"
        return headers | ({"Retry-After": f"'{self.retry_after}'"} if self.retry_after else {})


#: The kinds that have a status of their own come first; the defaults catch the rest.
GATEWAY_RESPONSES = (
    # API Gateway's own status is 403, which says something else: no such path or method.
    GatewayResponse("MISSING_AUTHENTICATION_TOKEN", 404, "Not found"),
    GatewayResponse("BAD_REQUEST_BODY", 400, "Bad request"),
    GatewayResponse("BAD_REQUEST_PARAMETERS", 400, "Bad request"),
    GatewayResponse("REQUEST_TOO_LARGE", 413, "Request too large"),
    GatewayResponse("UNSUPPORTED_MEDIA_TYPE", 415, "Unsupported media type"),
    GatewayResponse("UNAUTHORIZED", 401, "A token is required"),
    # What the authorizer says is wrong with the token; that a good one does not suffice, the app itself says.
    GatewayResponse("ACCESS_DENIED", 401, "$context.authorizer.title"),
    # The authorizer could not get the keys.
    GatewayResponse("AUTHORIZER_CONFIGURATION_ERROR", 503, "Service unavailable", retry_after=1),
    GatewayResponse("AUTHORIZER_FAILURE", 503, "Service unavailable", retry_after=1),
    GatewayResponse("THROTTLED", 429, "Too many requests to this deployment", retry_after=1),
    GatewayResponse("QUOTA_EXCEEDED", 429, "Too many requests to this deployment", retry_after=1),
    GatewayResponse("INTEGRATION_FAILURE", 503, "Service unavailable", retry_after=1),
    GatewayResponse("INTEGRATION_TIMEOUT", 504, "Took too long", retry_after=1),
    GatewayResponse("DEFAULT_4XX", None, "Request refused"),
    GatewayResponse("DEFAULT_5XX", None, "Service unavailable"),
)


def set_up_front_door(account: Account, stage: Stage, rest_api_id: str) -> None:
    """Give the deployed API its responses and its throttling. Chalice's next deployment takes the responses away."""
    client = account.client("apigateway")
    for response in GATEWAY_RESPONSES:
        client.put_gateway_response(restApiId=rest_api_id, **_as_call(response))
    # They come into force with a deployment only.
    client.create_deployment(restApiId=rest_api_id, stageName=stage.api_gateway_stage)
    client.update_stage(
        restApiId=rest_api_id,
        stageName=stage.api_gateway_stage,
        patchOperations=[
            _replace("/*/*/throttling/rateLimit", stage.throttling_rate),
            _replace("/*/*/throttling/burstLimit", stage.throttling_burst),
        ],
    )


def _replace(path: str, value: int) -> dict[str, str]:
    return {"op": "replace", "path": path, "value": str(value)}


def _as_call(response: GatewayResponse) -> dict[str, Any]:
    call: dict[str, Any] = {
        "responseType": response.kind,
        "responseParameters": {f"gatewayresponse.header.{name}": value for name, value in response.headers.items()},
        "responseTemplates": {"application/json": response.body},
    }
    return call | ({"statusCode": str(response.status)} if response.status else {})


def packaged_front_door(stage: Stage) -> dict[str, Any]:
    """The same as properties of the SAM template's API."""
    return {
        "GatewayResponses": {response.kind: _as_property(response) for response in GATEWAY_RESPONSES},
        "MethodSettings": [
            {
                "ResourcePath": "/*",
                "HttpMethod": "*",
                "ThrottlingRateLimit": stage.throttling_rate,
                "ThrottlingBurstLimit": stage.throttling_burst,
            }
        ],
    }


def _as_property(response: GatewayResponse) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "ResponseParameters": {"Headers": response.headers},
        "ResponseTemplates": {"application/json": response.body},
    }
    return properties | ({"StatusCode": response.status} if response.status else {})
