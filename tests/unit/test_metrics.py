"""The metrics of a run: what they count, and that sums outlive the processes that counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from chalicelib.core.claim import Start
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lane
from chalicelib.core.ports import Backlog, SharedBacklog
from chalicelib.core.task import Task
from local.metrics import BACKLOG_SECONDS, ProcessMetrics
from tests.factories import make_task

Make = Callable[..., ProcessMetrics]
IDLE = Backlog(lanes=2, waiting=7, running=1, paused=1, throttled=0)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the metrics of a process with this name; all of one test belong to one run."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "set back after the test")
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)

    def make(name: str = "worker-1", **options: Any) -> ProcessMetrics:
        return ProcessMetrics(tmp_path / "metrics", name, "dev", **{"backlog": lambda: IDLE, **options})

    return make


def samples(metrics: ProcessMetrics) -> dict[tuple[str, str, str], float]:
    """Each sample by its name, its task, and its outcome or bucket; read by Prometheus' own parser."""
    return {
        (one.name, one.labels.get("task", ""), one.labels.get("outcome", one.labels.get("le", ""))): one.value
        for family in text_string_to_metric_families(metrics.text())
        for one in family.samples
    }


def start_of(task: Task) -> Start:
    return Start(1_000, 1, 1_000, Lane(task.user_id))


def event(name: str = "task_completed", **fields: Any) -> dict[str, Any]:
    return {"event": name, "task": "charge", "late_ms": 40, "run_ms": 2_000, **fields}


def test_starts_and_outcomes_are_counted_by_task(make: Make) -> None:
    metrics = make()
    for name in ("charge", "charge", "log"):
        task = make_task(name=name)
        metrics.started(task, start_of(task))
    metrics.finished(event())
    metrics.finished(event("task_failed", late_ms=3_000))
    metrics.finished({"event": "task_cancelled", "task": "charge", "late_ms": None})
    found = samples(metrics)
    assert found["paceline_starts_total", "charge", ""] == 2
    assert found["paceline_starts_total", "log", ""] == 1
    outcomes = {outcome: value for (name, _, outcome), value in found.items() if name == "paceline_outcomes_total"}
    assert outcomes == {"succeeded": 1, "failed": 1, "cancelled": 1}
    late = {bound: value for (name, _, bound), value in found.items() if name == "paceline_late_seconds_bucket"}
    assert (late["0.01"], late["0.05"], late["2.5"], late["5.0"], late["+Inf"]) == (0, 1, 1, 2, 2)
    assert found["paceline_run_seconds_sum", "charge", ""] == 4
    assert found["paceline_waiting", "", ""] == 7
    assert found["paceline_running", "", ""] == 1


def test_each_process_gives_the_sums_of_all_also_of_those_that_have_ended(make: Make) -> None:
    task = make_task(name="charge")
    make("worker-1").started(task, start_of(task))
    make("worker-2").started(task, start_of(task))
    again, api = make("worker-1"), make("api-1")
    again.started(task, start_of(task))
    for metrics in (again, api):
        assert samples(metrics)["paceline_starts_total", "charge", ""] == 3


def test_library_is_loaded_once_something_is_counted_or_scraped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name in [one for one in sys.modules if one.partition(".")[0] == "prometheus_client"]:
            patch.setitem(sys.modules, name, None)  # an import now fails
        metrics = make("api-1")
        with pytest.raises(ImportError):
            metrics.prepare()
    metrics.finished(event("task_cancelled", late_ms=None))
    assert samples(metrics)["paceline_outcomes_total", "charge", "cancelled"] == 1


def test_counts_of_threads_that_begin_together_are_all_kept(make: Make) -> None:
    metrics = make()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(metrics.finished, [event()] * 64))
    assert samples(metrics)["paceline_outcomes_total", "charge", "succeeded"] == 64


def test_damaged_file_begins_again_and_takes_no_other_file_with_it(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(name="charge")
    for name in ("worker-1", "worker-2"):
        make(name).started(task, start_of(task))
    file = tmp_path / "metrics" / "counter_worker-1.db"
    file.write_bytes(file.read_bytes()[:10] + b"\xff" * 200)
    with pytest.raises(UnavailableError, match="metrics"):
        make("api-1").text()
    restarted = make("worker-1")
    assert "begin again at 0" in caplog.text
    assert samples(restarted)["paceline_starts_total", "charge", ""] == 1


def test_frequent_scrapes_read_the_lanes_once(make: Make) -> None:
    now, reads = 100.0, 0

    def read() -> Backlog:
        nonlocal reads
        reads += 1
        return IDLE

    metrics = make(backlog=read, seconds=lambda: now)
    for seconds in (0, BACKLOG_SECONDS - 1, 1):
        now += seconds
        metrics.text()
    assert reads == 2


def test_use_of_shared_limits_is_shown_by_name_and_limit(make: Make) -> None:
    used = [SharedBacklog("stripe", 12, 4, {"second": (25, 25), "minute-units": (90, 1_000)})]
    families = text_string_to_metric_families(make(shared=lambda: used).text())
    found = {
        (one.name, one.labels.get("shared", ""), one.labels.get("limit", "")): one.value
        for family in families
        for one in family.samples
    }
    assert {name: value for name, value in found.items() if "shared" in name[0]} == {
        ("paceline_shared_waiting", "stripe", ""): 12,
        ("paceline_shared_running", "stripe", ""): 4,
        ("paceline_shared_used", "stripe", "second"): 25,
        ("paceline_shared_quota", "stripe", "second"): 25,
        ("paceline_shared_used", "stripe", "minute-units"): 90,
        ("paceline_shared_quota", "stripe", "minute-units"): 1_000,
    }
