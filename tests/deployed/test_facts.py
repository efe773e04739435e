"""LocalStack does as AWS was seen to do, but for differences that are known."""

import os
from collections.abc import Iterator

import pytest

from tests.deployed.deployment import aws_client
from tests.facts.differences import DIFFERENCES
from tests.facts.emulators import chosen, emulating
from tests.facts.fact import Fact, cases, check
from tests.facts.playing import Outcome
from tests.facts.ports import FACTS

pytestmark = pytest.mark.skipif(
    not os.environ.get("AWS_ENDPOINT_URL"),
    reason="AWS_ENDPOINT_URL names no LocalStack to make queues and functions in",
)


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    with emulating(chosen(request.session.items, "localstack"), aws_client) as outcome:
        yield outcome


@pytest.mark.parametrize(("port", "fact"), cases(FACTS, DIFFERENCES, ["localstack"]))
def test_localstack_does_as_aws(port: str, fact: Fact, outcome: Outcome) -> None:
    check(fact, outcome(fact), DIFFERENCES[port])
