import json
from typing import Any

import pytest

from app import PUBLIC, app
from chalicelib.api.openapi import HEADERS, OPERATIONS, PARAMETERS, Operation, document
from chalicelib.api.problems import PROBLEMS
from chalicelib.core.errors import ConflictError, RequestError, UnavailableError

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
    named = {name for name in operation.parameters if PARAMETERS[name]["in"] == "path"}
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
