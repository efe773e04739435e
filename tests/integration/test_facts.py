"""moto and MiniStack do as AWS was seen to do, but for differences that are known."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.emulator_address import free_port
from tests.facts.differences import DIFFERENCES
from tests.facts.emulators import chosen, emulating
from tests.facts.fact import Fact, cases, check
from tests.facts.playing import Outcome
from tests.facts.ports import FACTS, takes_functions
from tests.integration.aws import Aws
from tests.integration.conftest import wait_until_up


@pytest.fixture(scope="module")
def of_moto(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    with mock_aws(), emulating(chosen(request.session.items, "moto"), boto3.client) as outcome:
        yield outcome


@pytest.fixture(scope="module")
def of_ministack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Queues and tables of the embedded MiniStack; functions and APIs of MiniStack alone: `make run` uses none."""
    facts = chosen(request.session.items, "ministack")
    embedded: Aws = request.getfixturevalue("ministack")
    with (
        emulating([fact for fact in facts if not takes_functions(fact)], client_of(embedded.endpoint_url)) as simple,
        ministack_alone(tmp_path_factory.mktemp("alone")) as url,
        emulating([fact for fact in facts if takes_functions(fact)], client_of(url)) as functional,
    ):
        yield lambda fact: functional(fact) if takes_functions(fact) else simple(fact)


@contextmanager
def ministack_alone(folder: Path) -> Iterator[str]:
    port, output = free_port(), folder / "output.txt"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment = {**kept, "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "SFTP_ENABLED": "0"}
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"], stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        try:
            wait_until_up(f"http://127.0.0.1:{port}/_ministack/health", process, output)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def client_of(url: str) -> Callable[[str], Any]:
    return lambda service: boto3.client(service, endpoint_url=url)  # type: ignore[call-overload]


@pytest.mark.parametrize(("port", "fact"), cases(FACTS, DIFFERENCES, ["moto", "ministack"]))
def test_emulator_does_as_aws(port: str, fact: Fact, request: pytest.FixtureRequest) -> None:
    outcome: Outcome = request.getfixturevalue(f"of_{port}")
    check(fact, outcome(fact), DIFFERENCES[port])
