"""API Gateway's own errors, and how they are configured."""

from typing import Any
from uuid import uuid4

from tests.facts.fact import Facts

fact = Facts("API Gateway's own responses", "apigateway/test_apigateway_api.py", ("ministack", "localstack"))

TEMPLATE = '{"message":$context.error.messageString}'


class Api:
    """A new REST API. Its responses are given as status and body template."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._id = client.create_rest_api(name=f"fact-{uuid4().hex[:12]}")["id"]

    def response(self, kind: str) -> list[str]:
        return _response(self._client.get_gateway_response(restApiId=self._id, responseType=kind))

    def put(self, kind: str, **parameters: Any) -> list[str]:
        return _response(self._client.put_gateway_response(restApiId=self._id, responseType=kind, **parameters))

    def delete(self, kind: str) -> None:
        self._client.delete_gateway_response(restApiId=self._id, responseType=kind)

    def remove(self) -> None:
        self._client.delete_rest_api(restApiId=self._id)


def _response(answer: dict[str, Any]) -> list[str]:
    templates = answer.get("responseTemplates") or {}
    return [str(answer.get("statusCode")), templates.get("application/json", "no template")]


@fact(["403", TEMPLATE], "TestApiGatewayGatewayResponse::test_gateway_response_crud")
def an_unknown_path_or_method_is_a_403_unless_configured(api: Api) -> list[str]:
    return api.response("MISSING_AUTHENTICATION_TOKEN")


@fact(["404", TEMPLATE], "TestApiGatewayGatewayResponse::test_gateway_response_put")
def a_response_put_with_a_status_alone_keeps_the_body(api: Api) -> list[str]:
    return api.put("MISSING_AUTHENTICATION_TOKEN", statusCode="404")


@fact(["403", TEMPLATE], "TestApiGatewayGatewayResponse::test_gateway_response_put")
def a_response_put_with_headers_alone_keeps_status_and_body(api: Api) -> list[str]:
    headers = {"gatewayresponse.header.x-request-header": "method.request.header.Accept"}
    return api.put("MISSING_AUTHENTICATION_TOKEN", responseParameters=headers)


@fact(["599", "body"], "TestApiGatewayGatewayResponse::test_gateway_response_put")
def a_default_with_a_status_replaces_the_status_of_each_response_that_is_not_put(api: Api) -> list[str]:
    api.put("DEFAULT_5XX", statusCode="599", responseTemplates={"application/json": "body"})
    return api.response("INTEGRATION_TIMEOUT")


@fact(["403", TEMPLATE], "TestApiGatewayGatewayResponse::test_gateway_response_crud")
def a_deleted_response_is_the_default_again(api: Api) -> list[str]:
    api.put("MISSING_AUTHENTICATION_TOKEN", statusCode="404")
    api.delete("MISSING_AUTHENTICATION_TOKEN")
    return api.response("MISSING_AUTHENTICATION_TOKEN")
