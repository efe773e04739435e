"""Counts starts and outcomes of all processes of a run, for Prometheus.

Each process counts in a file of its own, which outlives it; a scrape sums all files, whichever process answers it. So
totals never fall, also when a worker is killed or the whole run is stopped and started again.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chalicelib.core.claim import Start
from chalicelib.core.errors import UnavailableError
from chalicelib.core.ports import Backlog, SharedBacklog
from chalicelib.core.task import Task
from chalicelib.worker.observer import UnobservedAttempt
from local.shared_metrics import SharedGauges

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

log = logging.getLogger(__name__)

#: Seconds for which the sums over all lanes are kept: each needs a read of every lane.
BACKLOG_SECONDS = 5.0
#: Upper bounds of the histograms' buckets, seconds.
LATE_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
RUN_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 39_600)
#: What reading a damaged file raises.
DAMAGES = (RuntimeError, ValueError, struct.error)
_OUTCOMES = {"task_completed": "succeeded", "task_failed": "failed", "task_cancelled": "cancelled"}


class ProcessMetrics:
    """The counts of this process, and the sums over all. Implements Metrics; thread-safe."""

    def __init__(
        self,
        folder: Path,
        process_name: str,
        stage: str,
        backlog: Callable[[], Backlog],
        seconds: Callable[[], float] = time.monotonic,
        shared: Callable[[], Sequence[SharedBacklog]] = tuple,
    ) -> None:
        """folder: of all processes of one run. process_name: no other process that lives has it. seconds: a clock."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._process_name, self._stage = folder, process_name, stage
        self._backlog = Kept(backlog, BACKLOG_SECONDS, seconds)
        self._shared = Kept(shared, BACKLOG_SECONDS, seconds)
        self._made: _Counts | None = None
        self._making = threading.Lock()
        if any(_files_of(folder, process_name)):
            self.prepare()  # one that is damaged would fail every scrape

    def prepare(self) -> None:
        """Loads the counts of this process now: the import takes a tenth of a second, which no task should wait for."""
        self._counts()

    def _counts(self) -> _Counts:
        with self._making:  # two of them would overwrite each other's counts
            if self._made is None:
                _delete_damaged(self._folder, self._process_name)
                _count_in_files(self._folder, self._process_name)
                self._made = _Counts(self._stage)
            return self._made

    def started(self, task: Task, _start: Start) -> UnobservedAttempt:
        self._counts().started(task.name)
        return UnobservedAttempt(task.traceparent)

    def finished(self, event: Mapping[str, Any]) -> None:
        """event: a line of the completion log, with the metrics that CloudWatch would extract from it."""
        self._counts().finished(event)

    def text(self) -> str:
        """All metrics of all processes as OpenMetrics text. UnavailableError if the lanes can't be read."""
        from prometheus_client import CollectorRegistry  # noqa: PLC0415
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415
        from prometheus_client.openmetrics.exposition import generate_latest  # noqa: PLC0415

        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._folder))
        registry.register(_Gauges(self._backlog.get(), self._stage))
        registry.register(SharedGauges(self._shared.get(), self._stage))
        try:
            return str(generate_latest(registry), "utf-8")
        except (*DAMAGES, OSError) as error:
            raise UnavailableError(f"reading the metrics in {self._folder}: {error}") from error


class _Counts:
    """What this process counts, in its files. Loads prometheus_client, so it is made when something is counted."""

    def __init__(self, stage: str) -> None:
        from prometheus_client import Counter, Histogram  # noqa: PLC0415 - reads the folder from the environment

        self._stage = stage
        labels = ("stage", "task")
        self._starts = Counter("paceline_starts", "Starts that workers took, retries included.", labels, registry=None)
        self._outcomes = Counter(
            "paceline_outcomes", "Finished tasks, by outcome.", (*labels, "outcome"), registry=None
        )
        self._late = Histogram(
            "paceline_late_seconds",
            "How much later than its planned start a finished task first started.",
            labels,
            buckets=LATE_SECONDS,
            registry=None,
            unit="seconds",
        )
        self._run = Histogram(
            "paceline_run_seconds",
            "From the last start of a finished task to its outcome; cancelled ones are left out.",
            labels,
            buckets=RUN_SECONDS,
            registry=None,
            unit="seconds",
        )

    def started(self, task_name: str) -> None:
        self._starts.labels(self._stage, task_name).inc()

    def finished(self, event: Mapping[str, Any]) -> None:
        labels = (self._stage, event["task"])
        self._outcomes.labels(*labels, _OUTCOMES[event["event"]]).inc()
        if event.get("late_ms") is not None:
            self._late.labels(*labels).observe(max(0, event["late_ms"]) / 1000)
        if "run_ms" in event:
            self._run.labels(*labels).observe(event["run_ms"] / 1000)


Sums = TypeVar("Sums")


class Kept(Generic[Sums]):
    """Remembers the sums for a while, so that frequent scrapes read the lanes once. Thread-safe."""

    def __init__(self, read: Callable[[], Sums], kept_seconds: float, seconds: Callable[[], float]) -> None:
        self._read, self._kept_seconds, self._seconds = read, kept_seconds, seconds
        self._lock = threading.Lock()
        self._last: tuple[float, Sums] | None = None

    def get(self) -> Sums:
        with self._lock:
            if self._last is None or self._seconds() >= self._last[0] + self._kept_seconds:
                self._last = self._seconds(), self._read()
            return self._last[1]


class _Gauges:
    """What waits and runs now, which is in the table and in no process."""

    def __init__(self, backlog: Backlog, stage: str) -> None:
        self._backlog, self._stage = backlog, stage

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        backlog = self._backlog
        for name, text, value in [
            ("paceline_waiting", "Tasks that are admitted and have not started.", backlog.waiting),
            ("paceline_running", "Tasks that run.", backlog.running),
            ("paceline_lanes", "Lanes, idle ones included.", backlog.lanes),
            ("paceline_paused_lanes", "Lanes that are paused.", backlog.paused),
            ("paceline_throttled_lanes", "Lanes that wait because an API answered to slow down.", backlog.throttled),
        ]:
            gauge = GaugeMetricFamily(name, text, labels=["stage"])
            gauge.add_metric([self._stage], value)
            yield gauge


def _files_of(folder: Path, process_name: str) -> Iterable[Path]:
    return folder.glob(f"*_{process_name}.db")


def _count_in_files(folder: Path, process_name: str) -> None:
    """Lets each metric that this process makes from now on count in this process's files."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    from prometheus_client import values  # noqa: PLC0415

    # By name, not by process id: a restarted process goes on in the files of its predecessor.
    values.ValueClass = values.MultiProcessValue(lambda: process_name)


def _delete_damaged(folder: Path, process_name: str) -> None:
    """Deletes this process's files that can't be read, as after a power cut: their counts begin again at 0."""
    from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415

    for path in _files_of(folder, process_name):
        try:
            list(MmapedDict.read_all_values_from_file(str(path)))
        except (*DAMAGES, OSError) as error:
            log.warning("the metrics in %s are damaged and begin again at 0: %s", path, error)
            path.unlink()
