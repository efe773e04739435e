"""Clients that other projects' generators make of /openapi.json: checked by their compilers, and used on the app.

The generators come from npm and PyPI into build/, once.
"""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from waitress.server import create_server

from app import app
from chalicelib.api.openapi import document
from local.gateway import Gateway
from tests.factories import VirtualClock
from tests.in_process import deploying
from tests.memory.container import Memory, MemoryContainer
from tests.node import BUILD, install, packages, run

SOURCES = Path(__file__).parent / "generated"
PYTHON_GENERATOR = "openapi-python-client==0.29.1"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The app over memory, behind the local gateway, on a port of its own."""
    clock = VirtualClock()
    memory = Memory(clock.now_ms)
    with deploying(partial(MemoryContainer, memory=memory), memory, clock, {}, tmp_path, monkeypatch) as deploy:
        deploy()
        server = create_server(Gateway(app), host="127.0.0.1", port=0, threads=4)
        thread = threading.Thread(target=server.run)
        thread.start()
        yield f"http://127.0.0.1:{server.effective_port}"
        server.close()
        thread.join()


def test_typescript_client_compiles_and_submits(url: str, tmp_path: Path) -> None:
    modules = packages()
    for file in (SOURCES / "client.ts", SOURCES / "package.json"):
        shutil.copy(file, tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "openapi.json").write_text(document())

    run(tmp_path, "node_modules/.bin/openapi-typescript", "openapi.json", "--output", "api.ts")
    options = ("--target", "es2022", "--module", "nodenext", "--types", "node", "--skipLibCheck")
    run(tmp_path, "node_modules/.bin/tsc", "--strict", *options, "client.ts")
    answered = json.loads(run(tmp_path, "node", "client.js", url))

    assert answered == {"first": "queued", "many": 3, "state": "queued", "failed": 0, "wrong": "lost"}


def test_python_client_is_well_typed_and_submits(url: str, tmp_path: Path) -> None:
    folder = BUILD / "python"
    install(
        folder,
        PYTHON_GENERATOR,
        sys.executable,
        *["-m", "pip", "install", "-q", "--target", "packages"],
        PYTHON_GENERATOR,
    )
    shutil.copy(SOURCES / "use_client.py", tmp_path)
    (tmp_path / "openapi.json").write_text(document())
    path = {"PYTHONPATH": str(folder / "packages"), "PYTHONWARNINGS": ""}
    generate = ("generate", "--path", "openapi.json", "--meta", "none", "--output-path", "paceline_api")

    run(tmp_path, sys.executable, "-m", "openapi_python_client", *generate, **path)
    run(tmp_path, sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "use_client.py", **path)
    answered = json.loads(run(tmp_path, sys.executable, "use_client.py", url, **path))

    assert answered == {"first": "queued", "many": 3, "state": "queued"}
