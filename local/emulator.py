"""Runs the embedded AWS emulator, MiniStack, as a process that keeps its state on disk.

What a call changed is stored before any answer shows it. While the state can't be stored, as on a full disk, every call
is answered 503.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop

from local.emulator_address import HOST, STATE_FILE
from local.hosts import is_of_this_machine
from local.ministack_calls import FROM_PAGES, UNAVAILABLE, CallProtocol, Calls, refusal
from local.ministack_cleaning import Cleaning, without_reaper
from local.ministack_queues import index_groups
from local.ministack_state import MinistackState
from local.ministack_tuning import Asgi, Scope, given_up_with_client, tune
from local.parent import end_with_parent
from local.state_file import StateFile


def main() -> None:
    port, state_dir, *others = sys.argv[1:]
    at_most = int(others[0]) if others else None
    end_with_parent()
    _set_environment(port)
    with suppress(KeyboardInterrupt):  # uvicorn re-raises the signal that stopped it
        uvloop.run(_serve(int(port), Path(state_dir), at_most))


def _set_environment(port: str) -> None:
    """Gives MiniStack its own environment, since it would misread Paceline's variables (AUTH, STATE_DIR...)."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(
        GATEWAY_PORT=port,
        BIND_HOST=HOST,
        LOG_LEVEL="WARNING",
        SFTP_ENABLED="0",
        IOT_MTLS_ENABLED="0",
    )


async def _serve(port: int, state_dir: Path, finished_at_most: int | None) -> None:
    # For functions, which no stack has here, MiniStack would import Docker's client for an eighth of a second.
    sys.modules["docker"] = None  # type: ignore[assignment]
    from ministack.app import app  # noqa: PLC0415 - MiniStack reads the environment when it is imported

    with without_reaper():
        from ministack.services import dynamodb, sqs  # noqa: PLC0415

    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = StateFile(state_dir / STATE_FILE)
    index_groups(sqs)
    state = MinistackState(file)
    state.restore(state_dir)
    tune()
    CallProtocol.calls = Calls(state)
    # Uvicorn saves 0.6 ms per call over MiniStack's own server, Hypercorn.
    config = uvicorn.Config(
        cast("Any", WriteThrough(given_up_with_client(app), state)),
        host=HOST,
        port=port,
        http=CallProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,  # MiniStack sends its own
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    cleaning = asyncio.create_task(Cleaning(dynamodb, state.is_stored, finished_at_most).run())
    await uvicorn.Server(config).serve()
    cleaning.cancel()
    file.close()


class WriteThrough:
    """Wraps MiniStack: an answer begins once all changes so far are stored; while they can't be, it is a 503.

    A web page, which MiniStack would let read and change everything and run code, gets a 403.
    """

    def __init__(self, app: Asgi, state: MinistackState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _is_of_a_page(scope):
            await _answer(send, 403, "text/plain", b"Web pages may not call the emulator.")
        elif self._state.is_stored():
            await self._app(scope, receive, self._answer_when_stored(scope, send))
        else:  # nothing more is changed while earlier changes wait
            await _refuse(scope, send)

    def _answer_when_stored(self, scope: Scope, send: Any) -> Any:
        is_refused = False

        async def send_when_stored(message: Any) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and not self._state.is_call_stored(_target(scope)):
                is_refused = True
                await _refuse(scope, send)
            if not is_refused:
                await send(message)

        return send_when_stored


def _target(scope: Scope) -> str:
    target: bytes = dict(scope.get("headers", ())).get(b"x-amz-target", b"")
    return target.decode("latin-1")


def _is_of_a_page(scope: Scope) -> bool:
    """True for a request that a browser sends for a page, also one whose name resolves to this machine."""
    headers = dict(scope.get("headers", ()))
    host = headers.get(b"host", b"localhost").decode("latin-1")
    return not headers.keys().isdisjoint(FROM_PAGES) or not is_of_this_machine(host)


async def _refuse(scope: Scope, send: Any) -> None:
    """Answers as AWS does, so that its SDKs repeat the call."""
    if _target(scope):
        _, fields, body = refusal()
        kind = fields["Content-Type"]
    else:
        error = f"<Error><Code>ServiceUnavailable</Code><Message>{UNAVAILABLE}</Message></Error>"
        body, kind = f"<ErrorResponse>{error}</ErrorResponse>".encode(), "text/xml"
    await _answer(send, 503, kind, body)


async def _answer(send: Any, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    main()
