import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from app import PUBLIC, app
from chalicelib.api.openapi import HEADERS, OPERATIONS, PARAMETERS, Operation, document
from chalicelib.api.problems import PROBLEMS
from chalicelib.core.errors import ConflictError, LimitsError, RequestError, UnavailableError
from chalicelib.core.limits import parse_limits

#: For people: not described.
PAGES = {"/", "/web/{name}"}

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


def described() -> Any:
    return json.loads(document())


def test_every_route_is_described_and_every_description_has_its_route() -> None:
    routes = {(method, path) for path, methods in app.routes.items() if path not in PAGES for method in methods}
    assert {(operation.method, operation.path) for operation in OPERATIONS} == routes


def test_operations_have_names_of_their_own() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


@every_operation
def test_parameters_of_the_path_are_those_of_the_operation(operation: Operation) -> None:
    named = {name.rpartition(".")[2] for name in operation.parameters if PARAMETERS[name]["in"] == "path"}
    assert named == {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}


@every_operation
def test_an_operation_is_public_exactly_if_its_route_is(operation: Operation) -> None:
    assert operation.is_public == (operation.path in PUBLIC)
    assert operation.is_public == (401 not in operation.answers)


@every_operation
def test_headers_of_answers_are_described(operation: Operation) -> None:
    assert {header for answer in operation.answers.values() for header in answer.headers} <= HEADERS.keys()


def test_every_error_has_its_status_among_the_answers() -> None:
    statuses = {status for operation in OPERATIONS for status in operation.answers}
    errors = {kind: status for kind, status in PROBLEMS if issubclass(kind, RequestError | UnavailableError)}
    assert set(errors.values()) <= statuses
    assert errors[ConflictError] == 409


def test_every_reference_leads_somewhere() -> None:
    text = document()
    components = described()["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"$ref":"#/components/schemas/')[1:]}
    assert references == set(components)


def test_requests_are_described_by_the_types_that_check_them() -> None:
    schemas = described()["components"]["schemas"]
    assert schemas["BulkRequest"]["properties"]["tasks"]["maxItems"] == 100
    assert schemas["SubmitRequest"]["additionalProperties"] is False


def test_base_path_is_where_the_api_is() -> None:
    assert json.loads(document("/api"))["servers"] == [{"url": "/api"}]


def every_schema(inside: Any) -> Iterator[dict[str, Any]]:
    if isinstance(inside, dict):
        yield inside
        inside = list(inside.values())
    for one in inside if isinstance(inside, list) else ():
        yield from every_schema(one)


def test_no_property_has_a_default_and_every_enum_has_a_type() -> None:
    """Generators make a property with a default a required one, and an enum without a type any value."""
    for schema in every_schema(described()["components"]["schemas"]):
        assert "default" not in schema
        assert "enum" not in schema or schema["type"] in ("string", "integer")
    assert (
        "Default: `log`." in described()["components"]["schemas"]["SubmitRequest"]["properties"]["task"]["description"]
    )


@pytest.mark.parametrize(
    "text",
    ["1/second", "5/10 seconds", "20 per 5 minutes", "1/s;20/m", " 2 / Hour ,\n3/day;", "100/7d", "1 PER 2sec", ";1/s"],
)
def test_pattern_of_limits_takes_what_can_be_read(text: str) -> None:
    pattern = described()["components"]["schemas"]["LimitsRequest"]["properties"]["limits"]["pattern"]
    assert parse_limits(text)
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize("text", ["often", "1", "1/", "/second", "1 second", "20per minute", "1/s 2/m", "1/s;" * 6, ""])
def test_pattern_of_limits_refuses_what_can_not_be_read(text: str) -> None:
    pattern = described()["components"]["schemas"]["LimitsRequest"]["properties"]["limits"]["pattern"]
    with pytest.raises(LimitsError):
        parse_limits(text)
    assert not re.fullmatch(pattern, text)
