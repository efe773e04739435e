"""/openapi.json agrees with the API, as far as schemathesis can find out."""

from collections.abc import Iterable

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app import app
from chalicelib.api.openapi import OPERATIONS, Operation
from local.gateway import Environ, Gateway, StartResponse
from tests.extent import extent
from tests.functional.conftest import Deploy

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


#: The same examples each time.
EXAMPLES = settings(
    max_examples=extent(4, 15),
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def api(deploy: Deploy) -> schemathesis.BaseSchema:
    """The app behind the local gateway, over moto."""
    deploy()
    gateway = Gateway(app)

    def with_whole_uri(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Werkzeug's client leaves the query out of what servers give as REQUEST_URI."""
        if environ["QUERY_STRING"] and "?" not in environ["REQUEST_URI"]:
            environ["REQUEST_URI"] += f"?{environ['QUERY_STRING']}"
        return gateway(environ, start_response)

    return schemathesis.openapi.from_wsgi("/openapi.json", with_whole_uri)


#: Nothing can be wrong in a request that has neither parameters nor a body.
REQUESTS = [
    pytest.param(operation, mode, id=f"{operation.name}-{mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.parameters
]


@pytest.mark.parametrize(("operation", "mode"), REQUESTS)
def test_answers_are_as_described(api: schemathesis.BaseSchema, operation: Operation, mode: GenerationMode) -> None:
    """Requests as described, and requests that are wrong in one place or another."""

    @EXAMPLES
    @given(api[operation.path][operation.method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        # A blank body is read as none, and HTTP has no spaces around a header's value.
        assume(not (isinstance(case.body, str | bytes) and not case.body.strip()))
        assume(all(str(value) == str(value).strip() for value in (case.headers or {}).values()))
        case.call_and_validate(checks=CHECKS)

    check()
