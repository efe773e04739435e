"""The whole app through Chalice's own test client, over ports in memory, under a virtual clock."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.factories import VirtualClock
from tests.in_process import Deploy, Paceline, deploying
from tests.memory.container import Memory, MemoryContainer

__all__ = ["Deploy", "Paceline"]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Deploy]:
    """Makes a deployment with the settings it is given; all of one test share their stores and queues."""
    clock = VirtualClock()
    memory = Memory(clock.now_ms)
    with deploying(partial(MemoryContainer, memory=memory), memory, clock, {}, tmp_path, monkeypatch) as deploy:
        yield deploy


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy()


@pytest.fixture
def user() -> str:
    return f"ann-{uuid4().hex[:12]}"
