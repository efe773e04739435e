"""These run against a stage that `make deploy` has brought up: `make test-deployed URL=… STAGE=…`."""

import os

import pytest

from tests.deployed.deployment import Deployment


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    url = os.environ.get("E2E_URL")
    if not url:
        pytest.skip("E2E_URL names no deployed stage; `make test-deployed URL=…` does")
    return Deployment(url.rstrip("/"), os.environ.get("STAGE", "dev"))
