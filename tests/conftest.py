"""How every test runs: with hypothesis the same way each time, and with no credentials that reach an account."""

import os
import signal
import threading

import pytest
from hypothesis import HealthCheck, settings

from chalicelib import own_tasks
from tests.extent import PROFILE

#: `make test` draws few examples, `make test-all` more, and HYPOTHESIS_PROFILE=thorough many, new ones each time.
settings.register_profile(
    "quick", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("full", parent=settings.get_profile("quick"), max_examples=80)
settings.register_profile("thorough", parent=settings.get_profile("full"), derandomize=False, max_examples=5_000)
settings.load_profile(PROFILE)

# In this process no test sees the tasks that whoever runs it has put into chalicelib/own_tasks.
own_tasks.__path__ = []

# In the background of a shell Ctrl-C is ignored, also by children and theirs: the programs under test have to see it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Only the tests of a deployed stage (`make test-deployed URL=…`) may use the credentials at hand, to read its log.
if not os.environ.get("E2E_URL"):
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_SESSION_TOKEN="",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ports",
        default=os.environ.get("PORTS", "memory,moto,ministack,endpoint"),
        help="which adapters the contract tests run over: of memory, moto, ministack, endpoint (AWS_ENDPOINT_URL)",
    )
