"""The same contract over every adapter: memory, moto in this process, the embedded MiniStack, and LocalStack.

MiniStack is started once, on a free port, as `make run` starts it. LocalStack (or anything else that speaks AWS) takes
part when AWS_ENDPOINT_URL names it; `--ports memory,moto` leaves the others out.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from moto import mock_aws

from chalicelib.aws.client import client
from chalicelib.container import Container
from infra.stack import ensure_stack
from tests.factories import VirtualClock
from tests.in_process import Deploy, Paceline, deploying
from tests.integration.aws import Aws, AwsQueues, boto3_client, make_resources
from tests.integration.ports import AwsPorts, MemoryPorts, Ports

#: moto checks a condition and writes in two steps: nothing about concurrency can be learnt from it.
ATOMIC = ("memory", "ministack", "endpoint")
EVERY = ("memory", "moto", "ministack", "endpoint")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = set(metafunc.config.getoption("--ports").split(","))
    if not os.environ.get("AWS_ENDPOINT_URL"):
        chosen -= {"endpoint"}
    for fixture, kinds in (("ports", EVERY), ("atomic_ports", ATOMIC)):
        if fixture in metafunc.fixturenames:
            kinds_chosen = [kind for kind in kinds if kind in chosen]
            metafunc.parametrize(fixture, kinds_chosen, indirect=True)


@pytest.fixture
def ports(request: pytest.FixtureRequest) -> Ports:
    return ports_of(request)


@pytest.fixture
def atomic_ports(request: pytest.FixtureRequest) -> Ports:
    return ports_of(request)


def ports_of(request: pytest.FixtureRequest) -> Ports:
    if request.param == "memory":
        return MemoryPorts()
    return AwsPorts(request.getfixturevalue(request.param), forgets_duplicates=request.param == "moto")


@pytest.fixture(scope="module")
def moto() -> Iterator[Aws]:
    with mock_aws():
        yield make_resources(boto3_client("dynamodb"), boto3_client("sqs"))


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Deploy]:
    """Makes a deployment of the whole app over a moto of this test alone, with the settings it is given."""
    with mock_aws():
        aws = make_resources(boto3_client("dynamodb"), boto3_client("sqs"))
        queues, clock = AwsQueues(aws), VirtualClock()
        with deploying(Container, queues, clock, aws.environment, tmp_path, monkeypatch) as deploy:
            yield deploy


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy()


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("ministack")
    output = folder / "output.txt"
    with output.open("wb") as out:
        command = [sys.executable, "-m", "local.emulator", str(port), str(folder / "state")]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(f"{url}/_ministack/health", process, output)
            yield at_endpoint(url)
        finally:
            process.terminate()
            process.wait(10)


def wait_until_up(url: str, process: "subprocess.Popen[bytes]", output: Path) -> None:
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.05)  # an emulator that starts has nothing else to wait on
    raise RuntimeError(f"MiniStack did not come up: {output.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def endpoint() -> Aws:
    return at_endpoint(os.environ["AWS_ENDPOINT_URL"])


def at_endpoint(url: str) -> Aws:
    outputs = ensure_stack(url, f"t{uuid4().hex[:8]}")
    names = ("TableName", "QueueUrl", "DeadLetterUrl")
    return Aws(client("sqs", url), *(outputs[name] for name in names), url, outputs["ScheduledQueueUrl"])


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"ann-{uuid4().hex[:12]}"


@pytest.fixture
def in_threads() -> Callable[[int, Callable[[int], Any]], list[Any]]:
    """Calls a function that many times at once, with 0, 1, 2…; what each call gave."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    def run(count: int, call: Callable[[int], Any]) -> list[Any]:
        together = Barrier(count)

        def one(number: int) -> Any:
            together.wait()
            return call(number)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))

    return run


@pytest.fixture
def calls(paceline: Paceline) -> Counter[str]:
    """Counts the requests that go to AWS, by operation."""
    counter: Counter[str] = Counter()

    def count(request: Any, event_name: str, **_: Any) -> None:
        counter[event_name.rpartition(".")[2]] += 1

    for connection in (paceline.parts.dynamodb, paceline.parts.sqs):
        connection.meta.events.register("before-send.*", count)  # type: ignore[attr-defined]
    return counter
