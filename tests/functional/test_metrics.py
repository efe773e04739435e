"""GET /metrics: where there are metrics, who may read them, and their sums over lanes."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from chalicelib.core.ports import Backlog
from chalicelib.worker.observer import Observers
from tests.functional.conftest import Paceline
from tests.in_process import Deploy

TEXT = "# TYPE paceline_lanes gauge\npaceline_lanes 1\n# EOF\n"


class Metrics(Observers):
    def text(self) -> str:
        return TEXT


def test_metrics_are_open_metrics_text(paceline: Paceline) -> None:
    paceline.parts.metrics = Metrics()
    answer = paceline.get("/metrics")
    assert (answer.status_code, answer.body.decode()) == (200, TEXT)
    assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert len(list(text_string_to_metric_families(answer.body.decode()))) == 1


def test_without_metrics_as_on_lambda_there_is_nothing(paceline: Paceline) -> None:
    answer = paceline.get("/metrics")
    assert answer.status_code == 404
    assert "CloudWatch" in answer.json_body["detail"]


def test_backlog_sums_over_more_lanes_than_one_page(deploy: Deploy) -> None:
    paceline = deploy(LIMITS="1/second; 20/minute")
    for n in range(3):
        for _ in range(4):
            paceline.submit(f"user-{n}")
    paceline.request("POST", "/api/v1/users/user-1/pause", {})
    assert paceline.parts.overview.backlog() == Backlog(lanes=3, waiting=12, running=0, paused=1, throttled=0)
    paceline.work(*paceline.receive("user-0"))
    assert paceline.parts.overview.backlog().waiting == 8
