"""What API Gateway's REST API makes of a request for a function, and of the function's answer."""

import json
from typing import Any

from tests.facts.fact import Facts
from tests.facts.gateways import Gateway

fact = Facts("API Gateway with a Lambda proxy", "apigateway/test_apigateway_lambda.py", ("ministack", "localstack"))
EVERY = ("own", "ministack", "localstack")


def _path(gateway: Gateway, path: str) -> str:
    return str(gateway.event(path).get("path"))


def _parameter(gateway: Gateway, path: str) -> str:
    return str((gateway.event(path).get("pathParameters") or {}).get("proxy"))


@fact("/proxy-value/", "test_lambda_aws_proxy_integration")
def a_slash_at_the_end_stays_in_the_path(gateway: Gateway) -> str:
    return _path(gateway, "/proxy-value/")


@fact("proxy-value", "test_lambda_aws_proxy_integration", EVERY)
def a_slash_at_the_end_is_not_in_the_path_parameter(gateway: Gateway) -> str:
    return _parameter(gateway, "/proxy-value/")


@fact("/proxy-value//more", "test_lambda_aws_proxy_integration")
def a_double_slash_within_the_path_stays(gateway: Gateway) -> str:
    return _path(gateway, "/proxy-value//more")


@fact("/proxy-value", "test_lambda_aws_proxy_integration")
def a_double_slash_before_the_path_becomes_one(gateway: Gateway) -> str:
    return _path(gateway, "//proxy-value")


@fact("/test%2Balias@gmail.com", "test_lambda_aws_proxy_integration")
def a_path_stays_percent_encoded(gateway: Gateway) -> str:
    return _path(gateway, "/test%2Balias@gmail.com")


@fact("test%2Balias@gmail.com", "test_lambda_aws_proxy_integration", EVERY)
def a_path_parameter_stays_percent_encoded(gateway: Gateway) -> str:
    return _parameter(gateway, "/test%2Balias@gmail.com")


@fact("test+alias@gmail.com", "test_lambda_aws_proxy_integration", EVERY)
def a_plus_in_a_path_parameter_stays_a_plus(gateway: Gateway) -> str:
    return _parameter(gateway, "/test+alias@gmail.com")


@fact("test+alias@gmail.com", "test_lambda_aws_proxy_integration", EVERY)
def what_is_percent_encoded_in_a_query_is_decoded(gateway: Gateway) -> str:
    return _query(gateway, "email=test%2Balias@gmail.com")


@fact("test alias@gmail.com", "test_lambda_aws_proxy_integration", EVERY)
def a_plus_in_a_query_becomes_a_space(gateway: Gateway) -> str:
    return _query(gateway, "email=test+alias@gmail.com")


def _query(gateway: Gateway, query: str) -> str:
    [value] = gateway.event(f"/api?{query}")["multiValueQueryStringParameters"]["email"]
    return str(value)


@fact([["electronics", "books"], "books"], "test_lambda_aws_proxy_integration", EVERY)
def a_repeated_query_parameter_has_all_its_values_and_the_last_as_single_value(gateway: Gateway) -> list[Any]:
    event = gateway.event("/api?category=electronics&category=books")
    single = event.get("queryStringParameters") or {}
    return [event["multiValueQueryStringParameters"]["category"], single.get("category", "no single value")]


@fact("null", "test_lambda_aws_proxy_integration", EVERY)
def without_a_query_its_parameters_are_null(gateway: Gateway) -> str:
    return json.dumps(gateway.event("/api")["multiValueQueryStringParameters"])


@fact(["tEsT-HEADeR", "Authorization"], "test_lambda_aws_proxy_integration", EVERY)
def names_of_headers_keep_their_case_but_for_authorization(gateway: Gateway) -> list[str]:
    event = gateway.event("/api", {"tEsT-HEADeR": "aValUE", "authorization": "random"})
    return [_named(event["headers"], "test-header"), _named(event["headers"], "authorization")]


def _named(headers: dict[str, str], name: str) -> str:
    return next((header for header in headers if header.lower() == name), "missing")


@fact(["201", "no body"], "test_aws_proxy_response_payload_format_validation")
def a_status_in_digits_and_no_body_are_accepted(gateway: Gateway) -> list[str]:
    return gateway.status_and_body({"statusCode": "201"})


@fact(["200", "no body"], "test_aws_proxy_response_payload_format_validation")
def an_answer_of_headers_alone_is_a_200(gateway: Gateway) -> list[str]:
    return gateway.status_and_body({"headers": {"test-header": "value"}})


BROKEN = ["502", '{"message": "Internal server error"}']


@fact(BROKEN, "test_aws_proxy_response_payload_format_validation")
def an_answer_with_an_unknown_key_is_a_502(gateway: Gateway) -> list[str]:
    return gateway.status_and_body({"statusCode": 200, "wrongValue": "value"})


@fact(BROKEN, "test_aws_proxy_response_payload_format_validation")
def an_answer_that_is_no_object_is_a_502(gateway: Gateway) -> list[str]:
    return gateway.status_and_body("justAString")


@fact(BROKEN, "test_aws_proxy_response_payload_format_validation")
def a_status_of_letters_is_a_502(gateway: Gateway) -> list[str]:
    return gateway.status_and_body({"statusCode": "test"})


@fact(["200", "dGVzdC1kYXRh"], "test_aws_proxy_response_payload_format_validation")
def a_base64_body_is_decoded_for_binary_media_types_only(gateway: Gateway) -> list[str]:
    return gateway.status_and_body({"statusCode": 200, "body": "dGVzdC1kYXRh", "isBase64Encoded": True})


@fact("value-multi, value-solo", "test_aws_proxy_response_payload_format_validation")
def a_header_given_in_both_forms_has_all_its_values(gateway: Gateway) -> str:
    answer = {"statusCode": 200, "multiValueHeaders": {"test-multi": ["value-multi"]}}
    return gateway.header({**answer, "headers": {"test-multi": "value-solo"}}, "test-multi")


@fact("application/json", "test_aws_proxy_response_payload_format_validation")
def the_content_type_of_an_answer_without_one(gateway: Gateway) -> str:
    return gateway.header({"statusCode": 200, "headers": None}, "Content-Type")


@fact(
    ["403", "Missing Authentication Token"],
    "apigateway/test_apigateway_common.py::TestApigatewayRouting::test_routing_not_found",
)
def a_method_that_a_path_does_not_have(gateway: Gateway) -> list[str]:
    return gateway.post_to_get_only()
