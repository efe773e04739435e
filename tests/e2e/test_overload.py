"""API processes stay healthy, and clients get answers, while the emulator does not answer or connections pile up."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

from tests.e2e.running import Paceline, running

API = ("api-1", "api-2")
CLIENTS = 220
IDLE_CONNECTIONS = 2100


def api_pids(paceline: Paceline) -> list[int]:
    return [paceline.process(name).pid for name in API]


def status(paceline: Paceline, number: int) -> int:
    """The status of a submit; 0 if it was not answered."""
    try:
        return paceline.submit(f"user-{number}").status
    except (HTTPException, OSError):
        return 0


def test_clients_of_a_frozen_emulator_are_answered_and_no_api_process_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as paceline, ThreadPoolExecutor(CLIENTS) as pool:
        pids, emulator = api_pids(paceline), paceline.process("emulator").pid
        os.kill(emulator, signal.SIGSTOP)
        try:
            statuses = Counter(pool.map(lambda number: status(paceline, number), range(CLIENTS)))
        finally:
            os.kill(emulator, signal.SIGCONT)
        assert statuses == {503: CLIENTS}
        assert api_pids(paceline) == pids
        assert paceline.submit_until_answered("later").status == 202


def test_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    with running(tmp_path) as paceline, ExitStack() as opened:
        pids = api_pids(paceline)
        for _ in range(IDLE_CONNECTIONS):
            opened.enter_context(socket.create_connection(("127.0.0.1", paceline.port), timeout=30))
        assert paceline.submit_until_answered("active").status == 202
        paceline.wait_for_completions(1, "active")
        assert api_pids(paceline) == pids
