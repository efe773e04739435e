"""Lambda functions of two lines, which hand each event to the test and give back its answer."""

import io
import json
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

#: Gives a function's answer to an event. Where it raises, the function does.
Answer = Callable[[dict[str, Any]], Any]

CODE = """
import json, os
from urllib.request import Request, urlopen


def handler(event, context):
    with urlopen(Request(os.environ["ANSWERED_AT"], json.dumps(event).encode())) as response:
        return json.load(response)
"""
ROLE = "arn:aws:iam::000000000000:role/fact"


class Functions:
    """Deploys functions to an emulator on this machine. Close it, and all of them are gone."""

    def __init__(self, client: Callable[[str], Any]) -> None:
        self.client = client
        self._answers: dict[str, Answer] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._removals: list[Callable[[], Any]] = []

    def deploy(self, answer: Answer) -> tuple[str, str]:
        """Name and ARN of a new function."""
        name = f"fact-{uuid4().hex[:12]}"
        self._answers[f"/{name}"] = answer
        functions = self.client("lambda")
        created = functions.create_function(
            FunctionName=name,
            Runtime="python3.12",
            Role=ROLE,
            Handler="function.handler",
            Code={"ZipFile": _zip()},
            Timeout=20,
            Environment={"Variables": {"ANSWERED_AT": f"http://127.0.0.1:{self._server.server_port}/{name}"}},
        )
        self.remove_later(lambda: self.client("logs").delete_log_group(logGroupName=f"/aws/lambda/{name}"))
        self.remove_later(lambda: functions.delete_function(FunctionName=name))
        functions.get_waiter("function_active_v2").wait(FunctionName=name)
        return name, str(created["FunctionArn"])

    def remove_later(self, remove: Callable[[], Any]) -> None:
        self._removals.append(remove)

    def close(self) -> None:
        for remove in reversed(self._removals):
            with suppress(ClientError):  # some leave no log group
                remove()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answers = self._answers

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    status, body = 200, json.dumps(answers[self.path](event)).encode()
                except ValueError:
                    status, body = 500, b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Keeps the tests' output clean."""

        return Handler


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("function.py", CODE)
    return file.getvalue()
