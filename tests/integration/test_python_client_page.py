"""The programs of the page about the Python client: scripts, FastAPI and Django, each in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.node import run
from tests.processes import serving
from tests.programs import ROOT, write_programs
from tests.served import served

PAGE = "docs/how-to/python-client.md"
#: Nobody listens there.
DEAD = "http://127.0.0.1:1024"
CLIENT = str(ROOT / "client")
DJANGO = """
import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}},
    PACELINE_URL=os.environ["PACELINE_URL"],
    PACELINE_TOKEN=None,
    ROOT_URLCONF="site_of_a_shop",
    SECRET_KEY="secret",
)
django.setup()

from shop import views

urlpatterns = [path("orders/<order>/ship", views.ship)]
application = get_wsgi_application()
"""

Serve = Callable[[Path, str], AbstractContextManager[str]]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served(tmp_path / "served", monkeypatch, LIMITS="3/second") as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    assert {"first.py", "first_async.py", "shop_api.py", "shop/queue.py"} <= set(write_programs(PAGE, folder))
    return folder


def with_fastapi(folder: Path, url: str) -> AbstractContextManager[str]:
    command = (sys.executable, "-m", "uvicorn", "shop_api:app", "--port", "{port}")
    return serving(folder, *command, PACELINE_URL=url, PYTHONPATH=CLIENT)


def with_django(folder: Path, url: str) -> AbstractContextManager[str]:
    (folder / "site_of_a_shop.py").write_text(DJANGO)
    command = (sys.executable, "-m", "waitress", "--listen", "127.0.0.1:{port}", "site_of_a_shop:application")
    return serving(folder, *command, PACELINE_URL=url, PYTHONPATH=CLIENT)


def test_the_first_program_runs(folder: Path, url: str) -> None:
    lines = run(folder, sys.executable, "first.py", PACELINE_URL=url, PYTHONPATH=CLIENT).splitlines()
    assert lines == ["0 succeeded", "[2, 3, 4, 5, 6] True"]


def test_the_first_asynchronous_program_runs(folder: Path, url: str) -> None:
    lines = run(folder, sys.executable, "first_async.py", PACELINE_URL=url, PYTHONPATH=CLIENT).splitlines()
    assert lines == ["{'succeeded'}", "[1]"]


@pytest.mark.parametrize("serve", [with_fastapi, with_django])
def test_a_recipe_submits_once_and_fails_fast_without_a_server(serve: Serve, folder: Path, url: str) -> None:
    with serve(folder, url) as shop:
        first, again = (httpx.post(f"{shop}/orders/7/ship") for _ in range(2))
        assert (first.status_code, first.json()) == (202, again.json())
        lane = httpx.get(f"{url}/api/v1/users/ann").json()
        assert lane["admitted"] == 1
        if serve is with_fastapi:
            assert httpx.get(f"{shop}/tasks/{first.json()['task_id']}").json()["state"] in ("queued", "succeeded")
            assert httpx.get(f"{shop}/tasks/unknown").status_code == 404
    with serve(folder, DEAD) as shop:
        assert httpx.post(f"{shop}/orders/7/ship").status_code == 503


def test_the_table_of_retries_names_the_arguments_with_their_defaults() -> None:
    from paceline_client import client

    rows = dict(re.findall(r"^\| `(\w+_seconds)` \| (\d+) \|", (ROOT / PAGE).read_text(), re.MULTILINE))
    defaults = {name: str(int(getattr(client, name.upper()))) for name in rows}
    assert rows == defaults
    assert len(rows) == 3


#: Lines with an error for the type checker end in `# wrong`.
TYPED = """
import asyncio

from paceline_client import AsyncPaceline, Paceline

with Paceline("http://127.0.0.1:8000") as paceline:
    position: int = paceline.submit("ann").position
    started: int = paceline.wait(("ann", "id")).started_at  # wrong
    limits: list[int] = [limit.quota for limit in paceline.lane("ann").policies]
    lost = list(paceline.tasks("ann", state="lost"))  # wrong
    if paceline.task("ann", "id").state == "done":  # wrong
        pass


async def main() -> int:
    async with AsyncPaceline("http://127.0.0.1:8000") as paceline:
        return (await paceline.submit("ann")).colour  # wrong


asyncio.run(main())
"""


def test_a_type_checker_finds_what_is_wrong_in_a_program(folder: Path) -> None:
    (folder / "typed.py").write_text(TYPED)
    command = (sys.executable, "-m", "mypy", "--strict", "typed.py", "first.py", "first_async.py")
    done = subprocess.run(
        command, check=False, cwd=folder, env={**os.environ, "MYPYPATH": CLIENT}, capture_output=True, text=True
    )
    found = {int(line) for line in re.findall(r"^typed\.py:(\d+): error", done.stdout, re.MULTILINE)}
    wrong = {number for number, line in enumerate(TYPED.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout
    assert "first" not in done.stdout
