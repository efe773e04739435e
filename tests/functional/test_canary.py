"""The canary's task through the app, and the metric that its alarm looks at."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from chalice.app import Chalice

from chalicelib.canary import CANARY_METRIC, CANARY_USER
from chalicelib.container import container
from chalicelib.core.errors import UnavailableError
from chalicelib.core.task import Task
from chalicelib.worker.completion_event import METRICS_NAMESPACE
from chalicelib.worker.completion_log import StandardOutputLog
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline

MINUTE = 60_000


def late(paceline: Paceline) -> list[int]:
    return [event[CANARY_METRIC] for event in paceline.events if event["event"] == "canary"]


def tasks(paceline: Paceline) -> list[Any]:
    listed: list[Any] = paceline.get(f"/api/v1/users/{CANARY_USER}/tasks").json_body["tasks"]
    return listed


def run(paceline: Paceline) -> None:
    for record in paceline.receive(CANARY_USER):
        assert paceline.work(record) == []
        paceline.delete(record)


def minutes(paceline: Paceline, count: int, *, works: bool) -> None:
    """A tick each minute; where the deployment works, a worker runs the task 250 ms later."""
    for _ in range(count):
        paceline.parts.canary.tick()
        paceline.clock.advance(250)
        if works:
            run(paceline)
        paceline.clock.advance(MINUTE - 250)


def test_each_tick_submits_a_task_and_reports_how_late_the_last_outcome_came(paceline: Paceline) -> None:
    minutes(paceline, 3, works=True)
    assert late(paceline) == [250, 250]
    assert [task["state"] for task in tasks(paceline)] == ["succeeded"] * 3


def test_stall_shows_as_a_growing_lateness_and_leaves_no_backlog(paceline: Paceline) -> None:
    minutes(paceline, 1, works=True)
    minutes(paceline, 5, works=False)
    assert late(paceline) == [250, *(MINUTE * count for count in (1, 2, 3, 4))]
    minutes(paceline, 3, works=True)
    assert late(paceline)[5:] == [5 * MINUTE, 5 * MINUTE + 250, 250]
    assert len(tasks(paceline)) == 4


def test_lost_message_shows_until_its_task_is_finished(paceline: Paceline) -> None:
    paceline.parts.canary.tick()
    [lost] = paceline.receive(CANARY_USER)
    paceline.delete(lost)
    paceline.clock.advance(MINUTE)
    minutes(paceline, 2, works=True)
    assert late(paceline) == [MINUTE, 2 * MINUTE]
    [task] = tasks(paceline)
    assert paceline.request("DELETE", f"/api/v1/users/{CANARY_USER}/tasks/{task['task_id']}").status_code == 200
    minutes(paceline, 2, works=True)
    assert late(paceline)[-1] == 250


class BrokenQueue:
    def send(self, task: Task) -> None:
        raise UnavailableError(f"the queue does not answer for {task.task_id}")


def test_failed_submit_reports_no_lateness_so_that_data_is_missing(
    paceline: Paceline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reporting the last good outcome again would hide that nothing can be submitted."""
    minutes(paceline, 2, works=True)
    monkeypatch.setattr(paceline.parts.submitter, "_queue", BrokenQueue())
    with pytest.raises(UnavailableError):
        paceline.parts.canary.tick()
    assert late(paceline) == [250]


@pytest.mark.parametrize("settings", [{"LIMITS": "2/day"}, {"OVER_LIMIT": "reject", "LIMITS": "1/hour"}])
def test_canary_has_limits_of_its_own(deploy: Deploy, settings: dict[str, str]) -> None:
    paceline = deploy(**settings)
    minutes(paceline, 5, works=True)
    assert late(paceline) == [250] * 4


def test_metric_is_in_the_embedded_format_by_stage(paceline: Paceline) -> None:
    minutes(paceline, 2, works=True)
    [event] = [event for event in paceline.events if event["event"] == "canary"]
    [directive] = event["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == (METRICS_NAMESPACE, [["stage"]])
    assert [metric["Name"] for metric in directive["Metrics"]] == [CANARY_METRIC]
    assert (event["stage"], event["_aws"]["Timestamp"]) == ("dev", NOW + MINUTE)


def test_function_exists_only_in_a_stage_with_a_canary(load_app: Callable[..., Chalice]) -> None:
    def scheduled(app: Chalice) -> list[str]:
        return [source.name for source in app.event_sources if hasattr(source, "schedule_expression")]

    assert scheduled(load_app(CANARY="")) == []
    assert scheduled(load_app(CANARY="true")) == ["canary"]


def test_scheduled_event_ticks(load_app: Callable[..., Chalice]) -> None:
    load_app(CANARY="true", LIMITS="1/hour")
    out = io.StringIO()
    container().log = StandardOutputLog(out)
    event = {"version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "account": "1"}
    event |= {"time": "2026-11-22T00:00:00Z", "region": "us-east-1", "resources": [], "detail": {}}  # type: ignore[dict-item]
    for _ in range(2):
        sys.modules["app"].canary(event, None)
    [line] = out.getvalue().splitlines()
    assert json.loads(line)["state"] == "queued"
