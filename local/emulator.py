"""The embedded AWS emulator, MiniStack, as a process that keeps its state on disk.

MiniStack saves only when it is stopped cleanly. Here a forked copy of the process saves about once a second as
well if anything has changed, so that a crash or `kill -9` loses about the last second and not everything.
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
#: What the template uses; the keys under which MiniStack saves and loads them.
_SERVICES = ("cloudformation", "dynamodb", "sqs")
#: Operations that leave everything as it was begin like this. An empty receive changes nothing, and a full one is
#: followed by a delete or a change of visibility.
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
    with suppress(KeyboardInterrupt):  # uvicorn raises what it was stopped by again
        uvloop.run(_serve(int(port)))


def _set_environment(port: str, state_dir: Path) -> None:
    """MiniStack reads variables whose names mean something else to Paceline (AUTH, STATE_DIR...): it gets its own."""
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
    # With MiniStack's own server, Hypercorn, a call takes 0.6 ms longer.
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
    """MiniStack, watched for changes, which it saves from a forked copy of the process."""

    def __init__(self, app: Asgi, begin_save: Callable[[], int]) -> None:
        """begin_save: forks a process that saves and exits with 0 once it has, and gives its id."""
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
            # The last save is MiniStack's own; an older one must not end up on top of it.
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
        """See whether the last save worked, and begin another one if there is something to save."""
        if self._child is not None:
            child, status = os.waitpid(self._child, os.WNOHANG)
            if not child:
                return
            self._child = None
            if status:
                self._failed(f"the process that does it ended with {os.waitstatus_to_exitcode(status)}")
        if self._changed:
            self._changed = False
            try:
                self._child = self._begin_save()
            except OSError as error:
                self._failed(str(error))

    def _failed(self, why: str) -> None:
        self._changed = True
        log.error("the state could not be saved, trying again: %s", why)


def _is_read(scope: Scope) -> bool:
    headers: dict[bytes, bytes] = dict(scope.get("headers", ()))
    operation = headers.get(b"x-amz-target", b"").decode("latin-1").rpartition(".")[2]
    return operation.startswith(_READS)


def save_in_child() -> int:
    """Fork, save in the child and return its process id: the parent goes on serving at once.

    A fork happens between two requests, so what the child sees is one moment of all services together.
    """
    child = os.fork()
    if child:
        return child
    exit_code = 1
    try:
        os.nice(19)  # those who wait for an answer go first
        exit_code = 0 if _save() else 1
    except Exception:
        log.exception("saving")
    finally:
        os._exit(exit_code)


def _save() -> bool:
    """Whether all was saved; MiniStack itself only logs what was not."""
    from ministack.core import persistence  # noqa: PLC0415
    from ministack.services import cloudformation, dynamodb, sqs  # noqa: PLC0415

    errors = BufferingHandler(1000)
    errors.setLevel(logging.ERROR)
    persistence.logger.addHandler(errors)
    persistence.save_all(dict(zip(_SERVICES, (m.get_state for m in (cloudformation, dynamodb, sqs)), strict=True)))
    return not errors.buffer


if __name__ == "__main__":
    main()
