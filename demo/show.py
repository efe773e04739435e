"""Runs the demo from its first submit to its picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from completions.audit import audit
from completions.audit_table import as_table
from completions.reader import Completion
from completions.report import Report
from demo.board import Board
from demo.performance import Performance, Show
from demo.picture import Row, draw
from demo.system import ROOT, DemoError, running_system
from paceline_cli import failures
from paceline_client import Paceline, PacelineError

DEFAULT_FOLDER = ROOT / "build" / "demo"
#: Milliseconds between two lines without a terminal.
LINE_MS = 10_000


def show_demo(is_fast: bool, folder: Path | None) -> int:
    """Runs the demo on this terminal. Exit code: 0 if the audit is clean, 1 if not, else that of the error."""
    try:
        return 0 if perform(is_fast, folder or DEFAULT_FOLDER, Console(highlight=False)).clean else 1
    except (DemoError, PacelineError, OSError) as error:
        print(failures.line(error), file=sys.stderr)
        return failures.exit_code(error)


def perform(is_fast: bool, folder: Path, out: Console, also_show: Show | None = None) -> Report:
    """The whole demo. also_show: is handed every state too. Raises DemoError, and what the client raises."""

    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    token = os.environ.get("PACELINE_TOKEN")
    with running_system(say) as system, Paceline(system.url, token, fail_fast=False) as paceline:
        performance = Performance(paceline, system, is_fast)
        with _showing(out) as show:
            board = performance.run(lambda board, now: _both(board, now, show, also_show))
        completions = performance.completions()
        report = audit(completions, performance.limits)
        say(f"\n{as_table(report, str(system.folder))}\n")
        for path in draw(rows(performance, board.begin, completions), performance.limits, report.clean, folder):
            say(f"picture: {_short(path)}")
    return report


def _both(board: Board, now: int, show: Show, also_show: Show | None) -> None:
    show(board, now)
    if also_show:
        also_show(board, now)


@contextmanager
def _showing(out: Console) -> Iterator[Show]:
    """Yields a display: a live picture on a terminal, elsewhere printed events."""
    if not out.is_terminal:
        yield _Lines(out)
        return
    with Live(console=out, auto_refresh=False) as live:
        yield lambda board, now: live.update(board.picture(now, out.width), refresh=True)


class _Lines:
    def __init__(self, out: Console) -> None:
        self._out = out
        self._told = 0
        self._next_ms = LINE_MS

    def __call__(self, board: Board, now: int) -> None:
        passed = now - board.begin
        lines = board.events[self._told :]
        self._told += len(lines)
        if passed >= self._next_ms:
            self._next_ms += LINE_MS
            lines.append(f"{passed / 1000:5.1f} s  {board.summary}")
        for line in lines:
            self._out.print(line, markup=False, soft_wrap=True)


def rows(performance: Performance, begin: int, completions: Sequence[Completion]) -> list[Row]:
    """The picture's rows, from the sent submits and the logged starts."""
    return [
        Row(
            member.name,
            [(one.at - begin, one.count) for one in performance.submitted if one.user_id == member.user_id],
            sorted(at - begin for one in completions if one.user_id == member.user_id for at in one.starts),
            len({one.task_id for one in completions if one.user_id == member.user_id}),
        )
        for member in performance.members
    ]


def _short(path: Path) -> str:
    """The path relative to the current folder if it is below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
