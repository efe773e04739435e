"""What observes a running system sees: metrics over killed workers, and traces at a collector."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.e2e.running import Paceline, running
from tests.receiver import Receiver

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TASKS = 12


def spans_of(receiver: Receiver, trace_id: str) -> dict[str, Span]:
    """The spans of this trace that were sent to the receiver, as to a collector, by their names."""
    sent = [got for got in receiver.got if got.path == "/v1/traces"]
    bodies = [gzip.decompress(got.body) if got.headers.get("content-encoding") == "gzip" else got.body for got in sent]
    resources = [one for body in bodies for one in ExportTraceServiceRequest.FromString(body).resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    return {span.name: span for span in spans if span.trace_id.hex() == trace_id}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def paceline(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Paceline]:
    settings = {"HTTP_ALLOWED_HOSTS": receiver.authority, "HTTP_ALLOW_PRIVATE": "true"}
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url("").rstrip("/"), "OTEL_BSP_SCHEDULE_DELAY": "200"}
    directory = tmp_path_factory.mktemp("observed")
    with running(directory, LIMITS="5/second; 100/minute", **settings, **collector) as paceline:
        yield paceline


def totals(paceline: Paceline) -> dict[str, float]:
    """The sum over tasks and outcomes of each counter, and each gauge."""
    text = paceline.request("GET", "/metrics").text
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.type in ("counter", "gauge"):
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_totals_never_fall_and_are_whole_though_workers_are_killed(paceline: Paceline) -> None:
    paceline.submit_all(["observed"] * TASKS)
    seen: list[dict[str, float]] = []
    for name in ("worker-1", "worker-2"):
        paceline.wait_for(lambda: totals(paceline).get("paceline_outcomes_total", 0) >= len(seen) + 1, 40, "a count")
        seen.append(totals(paceline))
        pid = paceline.kill(name)
        seen.append(totals(paceline))
        paceline.wait_for(lambda name=name, pid=pid: paceline.is_replaced(name, pid), 20, "it runs again")
    paceline.wait_for_completions(TASKS, "observed", timeout_seconds=90)
    # A worker that is killed between writing a line and counting it leaves that one out.
    paceline.wait_for(lambda: totals(paceline)["paceline_outcomes_total"] >= TASKS - 2, 20, "all are counted")
    seen.append(totals(paceline))
    for name in ("paceline_starts_total", "paceline_outcomes_total"):
        counts = [one.get(name, 0) for one in seen]
        assert counts == sorted(counts)
    assert seen[-1]["paceline_outcomes_total"] <= TASKS
    paceline.wait_for(lambda: totals(paceline)["paceline_waiting"] == 0, 20, "no task waits")


def test_one_trace_from_the_submit_over_the_wait_to_the_call_of_http(paceline: Paceline, receiver: Receiver) -> None:
    paceline.submit_all(["traced"] * 5)
    body = {"user_id": "traced", "task": "http", "payload": {"url": receiver.url("/called"), "body": 1}}
    answer = paceline.request("POST", "/api/v1/task", body, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert answer.status in (202, 429)
    wanted = {"submit", "wait for the pace", "run http"}
    paceline.wait_for(lambda: wanted <= spans_of(receiver, TRACE).keys(), 60, "the spans")
    submit, wait, run = (spans_of(receiver, TRACE)[name] for name in ("submit", "wait for the pace", "run http"))
    assert submit.parent_span_id.hex() == PARENT
    assert wait.parent_span_id == run.parent_span_id == submit.span_id
    assert wait.end_time_unix_nano == run.start_time_unix_nano
    [call] = [got for got in receiver.got if got.path == "/called"]
    assert call.headers["traceparent"] == f"00-{TRACE}-{run.span_id.hex()}-01"
