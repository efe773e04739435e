"""moto and MiniStack do as AWS was seen to do, but for differences that are known."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from tests.facts.differences import DIFFERENCES
from tests.facts.emulators import chosen, emulating
from tests.facts.fact import Fact, cases, check
from tests.facts.playing import Outcome
from tests.facts.ports import FACTS
from tests.integration.aws import Aws


@pytest.fixture(scope="module")
def of_moto(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    with mock_aws(), emulating(chosen(request.session.items, "moto"), boto3.client) as outcome:
        yield outcome


@pytest.fixture(scope="module")
def of_ministack(request: pytest.FixtureRequest, ministack: Aws) -> Iterator[Outcome]:
    def client(service):  # type: ignore[no-untyped-def]
        return boto3.client(service, endpoint_url=ministack.endpoint_url)

    with emulating(chosen(request.session.items, "ministack"), client) as outcome:
        yield outcome


@pytest.mark.parametrize(("port", "fact"), cases(FACTS, DIFFERENCES, ["moto", "ministack"]))
def test_emulator_does_as_aws(port: str, fact: Fact, request: pytest.FixtureRequest) -> None:
    outcome: Outcome = request.getfixturevalue(f"of_{port}")
    check(fact, outcome(fact), DIFFERENCES[port])
