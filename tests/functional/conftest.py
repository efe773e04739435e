"""The whole app through Chalice's own test client, over ports in memory, under a virtual clock."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from chalice.app import Chalice

from chalicelib.container import SystemClock, container, use
from chalicelib.settings import Settings
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


@pytest.fixture
def load_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Chalice]]:
    """Loads the app anew in such an environment, as a process does when it starts; its ports are in memory."""
    memory = Memory(SystemClock().now_ms)
    before = use(lambda: MemoryContainer(Settings.from_env(os.environ), memory))

    def load(**env: str) -> Chalice:
        for name, value in {"TABLE_NAME": "in-memory", **env}.items():
            monkeypatch.setenv(name, value)
        container.cache_clear()
        monkeypatch.delitem(sys.modules, "app", raising=False)
        return cast(Chalice, importlib.import_module("app").app)

    yield load
    use(before)
    sys.modules.pop("app", None)
