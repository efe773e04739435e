"""The receivers of the documentation: each gets a callback that Paceline signed, and refuses forged ones."""

import base64
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from chalicelib.outbound.signing import secret_bytes, signed_headers
from paceline_client import Paceline
from tests.node import compiled, packages, run
from tests.processes import PATIENCE_SECONDS, serving
from tests.programs import write_programs
from tests.served import served

PAGE = "docs/how-to/verify-calls.md"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
DJANGO = """
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import path

settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="site_of_a_shop", SECRET_KEY="secret")
django.setup()

import django_receiver

urlpatterns = [path("finished", django_receiver.finished)]
application = get_wsgi_application()
"""

Serve = Callable[[Path], AbstractContextManager[str]]


def with_fastapi(folder: Path) -> AbstractContextManager[str]:
    command = (sys.executable, "-m", "uvicorn", "fastapi_receiver:app", "--port", "{port}")
    return serving(folder, *command, WEBHOOK_SECRET=SECRET)


def with_django(folder: Path) -> AbstractContextManager[str]:
    (folder / "site_of_a_shop.py").write_text(DJANGO)
    command = (sys.executable, "-m", "waitress", "--listen", "127.0.0.1:{port}", "site_of_a_shop:application")
    return serving(folder, *command, WEBHOOK_SECRET=SECRET)


def with_express(folder: Path) -> AbstractContextManager[str]:
    (folder / "node_modules").symlink_to(packages())
    (folder / "package.json").write_text(json.dumps({"type": "module"}))
    compiled(folder, "receiver.ts", "express_receiver.ts")
    return serving(folder, "node", "express_receiver.js", WEBHOOK_SECRET=SECRET)


def seen(folder: Path, text: str) -> bool:
    """Whether the receiver has printed it in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while text not in (folder / "output.txt").read_text():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("serve", [with_fastapi, with_django, with_express])
def test_a_receiver_takes_what_paceline_signed_and_nothing_else(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "receiver"
    write_programs(PAGE, folder)
    settings = {"WEBHOOK_SECRET": SECRET, "HTTP_ALLOWED_HOSTS": "*", "HTTP_ALLOW_PRIVATE": "true"}
    with serve(folder) as receiver, served(tmp_path / "served", monkeypatch, **settings) as url:
        with Paceline(url) as paceline:
            submitted = paceline.submit("ann", callback_url=f"{receiver}/finished")
        assert seen(folder, f"task_completed {submitted.task_id}")

        body = json.dumps({"event": "task_completed", "task_id": "forged"}).encode()
        now = int(time.time())
        forged = [
            signed_headers(secret_bytes(OTHER), "1", now, body),
            signed_headers(secret_bytes(SECRET), "1", 1, body),
        ]
        for headers in [*map(dict, forged), {}, dict(signed_headers(secret_bytes(SECRET), "1", now, body + b" "))]:
            assert httpx.post(f"{receiver}/finished", content=body, headers=headers).status_code == 401
    assert "forged" not in (folder / "output.txt").read_text()


IN_PYTHON = """
import json
from receiver import verified

call = json.load(open("call.json", encoding="utf-8"))
print(json.dumps(verified(call["body"].encode(), call["headers"])))
"""
IN_NODE = """
import { readFileSync } from "node:fs";
import { verified } from "./receiver.js";

const { body, headers } = JSON.parse(readFileSync("call.json", "utf8"));
console.log(JSON.stringify(verified(body, headers)));
"""


@pytest.mark.parametrize("language", ["python", "node"])
def test_five_lines_verify_a_call(language: str, tmp_path: Path) -> None:
    write_programs(PAGE, tmp_path)
    body = json.dumps({"text": "äöü"}).encode()
    headers = dict(signed_headers(secret_bytes(SECRET), "1", int(time.time()), body))
    (tmp_path / "call.json").write_text(json.dumps({"body": body.decode(), "headers": headers}))
    if language == "python":
        command = (sys.executable, "-c", IN_PYTHON)
    else:
        (tmp_path / "node_modules").symlink_to(packages())
        (tmp_path / "package.json").write_text(json.dumps({"type": "module"}))
        compiled(tmp_path, "receiver.ts")
        command = ("node", "--input-type=module", "--eval", IN_NODE)
    assert json.loads(run(tmp_path, *command, WEBHOOK_SECRET=SECRET)) == {"text": "äöü"}
    with pytest.raises(AssertionError, match="No matching signature found"):
        run(tmp_path, *command, WEBHOOK_SECRET=OTHER)
