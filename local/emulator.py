"""Runs the embedded AWS emulator, MiniStack, as a process that keeps its state on disk.

MiniStack saves only on a clean stop. Here a forked copy of the process also saves about once a second if anything
changed, so a crash or `kill -9` loses about the last second only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop

from local.ministack_tuning import Asgi, Scope, given_up_with_client, tune
from local.parent import end_with_parent

HOST = "127.0.0.1"

_SAVE_SECONDS = 1.0
#: The services that the template uses, by MiniStack's keys for their saved state.
_SERVICES = ("cloudformation", "dynamodb", "sqs")
#: Prefixes of operations that leave the state unchanged. An empty receive changes nothing; a full one is followed by a
#: delete or a change of visibility.
_READS = ("Get", "List", "Describe", "Query", "Scan", "ReceiveMessage")

log = logging.getLogger("emulator")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    port, state_dir = sys.argv[1:]
    end_with_parent()
    _set_environment(port, Path(state_dir))
    with suppress(KeyboardInterrupt):  # uvicorn re-raises the signal that stopped it
        uvloop.run(_serve(int(port)))


def _set_environment(port: str, state_dir: Path) -> None:
    """Gives MiniStack its own environment, since it would misread Paceline's variables (AUTH, STATE_DIR...)."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(
        GATEWAY_PORT=port,
        BIND_HOST=HOST,
        PERSIST_STATE="1",
        STATE_DIR=str(state_dir),
        LOG_LEVEL="WARNING",
        SFTP_ENABLED="0",
        IOT_MTLS_ENABLED="0",
    )


async def _serve(port: int) -> None:
    from ministack.app import app  # noqa: PLC0415 - MiniStack reads the environment when it is imported

    tune()
    saver = Saver(given_up_with_client(app), save_in_child)
    # Uvicorn saves 0.6 ms per call over MiniStack's own server, Hypercorn.
    config = uvicorn.Config(
        cast("Any", saver),
        host=HOST,
        port=port,
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,  # MiniStack sends its own
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    task = asyncio.create_task(saver.run())
    await uvicorn.Server(config).serve()
    task.cancel()


class Saver:
    """Wraps MiniStack and saves its state from a forked copy of the process after changes."""

    def __init__(self, app: Asgi, begin_save: Callable[[], int]) -> None:
        """begin_save: forks a process that saves and exits with 0 on success; returns its process id."""
        self._app = app
        self._begin_save = begin_save
        self._changed = False
        self._child: int | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        await self._app(scope, receive, send)
        self._changed = self._changed or not _is_read(scope)

    async def _lifespan(self, scope: Scope, receive: Any, send: Any) -> None:
        async def receive_after_child() -> Any:
            message = await receive()
            # MiniStack saves last; wait for our child, or its older state could overwrite that.
            if message["type"] == "lifespan.shutdown" and self._child is not None:
                os.waitpid(self._child, 0)
                self._child = None
            return message

        await self._app(scope, receive_after_child, send)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            self.look()

    def look(self) -> None:
        """Checks the last save and begins another if the state changed."""
        if self._child is not None:
            child, status = os.waitpid(self._child, os.WNOHANG)
            if not child:
                return
            self._child = None
            if status:
                self._failed(f"the saving process ended with {os.waitstatus_to_exitcode(status)}")
        if self._changed:
            self._changed = False
            try:
                self._child = self._begin_save()
            except OSError as error:
                self._failed(str(error))

    def _failed(self, reason: str) -> None:
        self._changed = True
        log.error("saving the state failed, retrying: %s", reason)


def _is_read(scope: Scope) -> bool:
    headers: dict[bytes, bytes] = dict(scope.get("headers", ()))
    operation = headers.get(b"x-amz-target", b"").decode("latin-1").rpartition(".")[2]
    return operation.startswith(_READS)


def save_in_child() -> int:
    """Forks and saves in the child; returns its process id while the parent keeps serving.

    The fork happens between two requests, so the child sees one consistent state of all services.
    """
    child = os.fork()
    if child:
        return child
    exit_code = 1
    try:
        os.nice(19)  # let requests go first
        exit_code = 0 if _save() else 1
    except Exception:
        log.exception("saving")
    finally:
        os._exit(exit_code)


def _save() -> bool:
    """Returns True if all services were saved; MiniStack itself only logs failures."""
    from ministack.core import persistence  # noqa: PLC0415
    from ministack.services import cloudformation, dynamodb, sqs  # noqa: PLC0415

    errors = BufferingHandler(1000)
    errors.setLevel(logging.ERROR)
    persistence.logger.addHandler(errors)
    persistence.save_all(dict(zip(_SERVICES, (m.get_state for m in (cloudformation, dynamodb, sqs)), strict=True)))
    return not errors.buffer


if __name__ == "__main__":
    main()
