"""Stores the progress that running functions report: each task's at most once a second, however often it reports.

A report waits for nothing: a thread of its own stores it, one for the whole process, which lives while reports wait.
The last report before an attempt's end may be stored with the outcome instead, in the same write.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import FOREVER_MS
from chalicelib.core.ports import Clock, TaskStore
from chalicelib.core.task import Progress, Task

#: Milliseconds between two writes of one task's progress.
WRITE_AFTER_MS = 1_000

log = logging.getLogger(__name__)


class Reports(Struct, eq=False):
    """The reports of one attempt."""

    task: Task
    #: epoch ms at which the attempt started; no report is dated earlier, though a clock may be set back
    started_at: int
    #: the newest report
    last: Progress | None = None
    #: `last` is not stored yet
    is_waiting: bool = False
    #: epoch ms from which on the next one may be stored
    write_at: int = 0


class ProgressWriter:
    """Thread-safe."""

    def __init__(self, tasks: TaskStore, clock: Clock, in_background: bool = True) -> None:
        """in_background: a thread calls `write_due` while reports wait; otherwise the caller does."""
        self._tasks = tasks
        self._clock = clock
        self._in_background = in_background
        self._open: set[Reports] = set()
        #: notified when a report begins to wait
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def reporting(self, task: Task, started_at: int) -> Iterator[Reports]:
        """Stores what is reported while the body runs; afterwards `last` has the attempt's last report."""
        reports = Reports(task, started_at)
        with self._changed:
            self._open.add(reports)
        try:
            yield reports
        finally:
            with self._changed:
                self._open.discard(reports)

    def report(self, reports: Reports, fraction: float, text: str) -> None:
        """Takes a report; ignores one that comes after the attempt's end."""
        with self._changed:
            if reports not in self._open:
                return
            reports.last = Progress(fraction, text, max(self._clock.now_ms(), reports.started_at))
            if not reports.is_waiting:
                reports.is_waiting = True
                self._start()
                self._changed.notify()

    def write_due(self) -> None:
        """Stores each waiting report whose task's last write is a second old; one that fails is tried again then."""
        now_ms = self._clock.now_ms()
        with self._changed:
            due = [reports for reports in self._open if reports.is_waiting and reports.write_at <= now_ms]
            for reports in due:
                reports.is_waiting, reports.write_at = False, now_ms + WRITE_AFTER_MS
        for reports in due:
            if not self._write(reports):
                reports.is_waiting = True

    def _write(self, reports: Reports) -> bool:
        """False if it is to be tried again."""
        assert reports.last is not None, "a report waits"
        try:
            return self._tasks.report_progress(reports.task, reports.last)
        except UnavailableError:
            return False
        except Exception:
            log.exception("the progress of %s was not stored", reports.task.task_id)
            return True

    def _start(self) -> None:
        if self._in_background and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="progress-writer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.write_due()
            except BaseException:
                log.exception("storing progress failed, going on")
                pause.wait(WRITE_AFTER_MS / 1000)
            with self._changed:
                next_at = min((one.write_at for one in self._open if one.is_waiting), default=FOREVER_MS)
                if next_at == FOREVER_MS:
                    self._thread = None
                    return
                self._changed.wait(max(0, min(next_at - self._clock.now_ms(), WRITE_AFTER_MS)) / 1000)
