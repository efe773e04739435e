"""The stage that the first hour deploys: by the same commands as any stage, with settings of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chalicelib.auth.caller import ADMIN_SCOPE
from infra.deploy.stages import PASSED_ON, ROOT
from operations.first_hour.errors import FirstHourError, with_permission
from operations.first_hour.probe_stack import STAGE

#: Origin whose pages may call the stage.
ORIGIN = "https://first-hour.example"
_TOKEN_MINUTES = 180
_URL = re.compile(r"^Deployed stage \S+: (\S+)$", re.MULTILINE)

Say = Callable[[str], None]


class Signer:
    """Signs tokens with a key pair that exists in this process alone; the stage gets the public key."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._now = now

    @property
    def public_key(self) -> str:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def token(self, user: str, scope: str = "") -> str:
        now = int(self._now())
        claims = {"sub": user, "iat": now, "exp": now + 60 * _TOKEN_MINUTES, "scope": scope}
        return jwt.encode(claims, self._key, "ES256")

    def admin_token(self) -> str:
        return self.token("first-hour", ADMIN_SCOPE)


def stage_environment(env: Mapping[str, str], public_key: str) -> dict[str, str]:
    """Returns the environment of the commands: env without the settings of other stages, and with the first hour's.

    An empty value turns off the setting that `.env` has.
    """
    settings = (*PASSED_ON, "ALARM_TOPIC_ARN")
    own = {"AUTH": "jwt", "JWT_PUBLIC_KEY": public_key, "CORS_ORIGINS": ORIGIN, "LIMITS": "1/second; 20/minute"}
    return {**env, **dict.fromkeys(settings, ""), **own, "STAGE": STAGE}


class StageCommands:
    """`./paceline deploy` and `./paceline destroy` of the stage."""

    def __init__(self, env: Mapping[str, str], say: Say) -> None:
        self._env = env
        self._say = say

    def deploy(self) -> str:
        """Deploys the stage and returns its URL. Raises FirstHourError."""
        found = _URL.search(self._run("deploy"))
        if not found:
            raise FirstHourError(f"`./paceline deploy --stage {STAGE}` printed no URL")
        return found[1].rstrip("/")

    def destroy(self) -> None:
        """Deletes the stage and all that belongs to it. Raises FirstHourError."""
        self._run("destroy")

    def _run(self, command: str) -> str:
        lines = []
        with self._started(command) as child:
            try:
                assert child.stdout
                for line in child.stdout:
                    lines.append(line)
                    self._say(f"    {line.rstrip()}")
            except BaseException:
                child.terminate()  # or leaving the block would wait for its end
                raise
        if child.returncode:
            raise FirstHourError(with_permission(f"{command} of stage {STAGE}: {lines[-1].strip() if lines else ''}"))
        return "".join(lines)

    def _started(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "operations", command, "--stage", STAGE],
            cwd=ROOT,
            env=dict(self._env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C ends a deployment, and must not end the removal after it.
            start_new_session=command == "destroy",
        )


@dataclass(frozen=True)
class Answer:
    status: int
    #: by lower-case name
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


def answered(request: urllib.request.Request) -> Answer:
    """Sends the request and returns the answer, also one that is an error."""
    try:
        with urllib.request.urlopen(request, timeout=40) as response:  # noqa: S310 - the stage's URL
            return _answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers, error.read())


class Api:
    """Calls the stage's API, and counts the calls and the tasks that it accepted."""

    def __init__(self, url: str, signer: Signer, send: Callable[[urllib.request.Request], Answer] = answered) -> None:
        self.url = url
        self.signer = signer
        self._send = send
        self.requests = 0
        self.tasks = 0

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Calls as an admin. headers: further ones; an empty value removes a header. body: text, or a JSON value."""
        self.requests += 1
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        usual = {"Content-Type": "application/json", "Authorization": f"Bearer {self.signer.admin_token()}"}
        wanted = {name: value for name, value in {**usual, **(headers or {})}.items() if value}
        request = urllib.request.Request(self.url + path, data, wanted, method=method)  # noqa: S310 - our own URL
        answer = self._send(request)
        if method == "POST" and answer.status in (202, 429):
            self.tasks += len(body.get("tasks", "1"))
        return answer


def _answer(status: int, headers: Any, content: bytes) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()}, content.decode(errors="replace"))
