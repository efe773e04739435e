"""Traces: from a submit over the wait for the pace to the run, and on to whom a task calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chalicelib.tasks.registry import Context, Registry
from chalicelib.tracing import Tracing
from tests.in_process import Deploy

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
ROOT = Path(__file__).parents[2]


class Traced:
    """A deployment with the task `show`, which returns its traceparent, and the spans that it has made."""

    def __init__(self, deploy: Deploy, is_traced: bool = True) -> None:
        self._exporter = InMemorySpanExporter()
        self.paceline = deploy()
        if is_traced:
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(self._exporter))
            self.paceline.parts.__dict__["tracing"] = Tracing(provider)
        registry = Registry(self.paceline.parts.registry)
        self.failures = 0

        @registry.task("show", backoff_seconds=1)
        def show(context: Context) -> str:
            if context.attempt <= self.failures:
                raise RuntimeError("not yet")
            return context.traceparent

        self.paceline.parts.__dict__["registry"] = registry

    def submit(self, user: str, **headers: str) -> dict[str, Any]:
        body = {"user_id": user, "task": "show"}
        answer: dict[str, Any] = self.paceline.request("POST", "/api/v1/task", body, **headers).json_body
        return answer

    def work(self, user: str) -> None:
        self.paceline.work(*self.paceline.receive(user))

    def result(self, user: str, task_id: str) -> str:
        return str(self.paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body["result"])

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


def parent_id(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"


def own_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def test_one_trace_from_the_client_to_the_outcome_with_the_wait_as_a_span(deploy: Deploy, user: str) -> None:
    traced = Traced(deploy)
    traced.submit(user)
    answer = traced.submit(user, traceparent=TRACEPARENT)
    traced.work(user)
    result = traced.result(user, answer["task_id"])
    submit, wait, run = (traced.spans[name] for name in ("submit", "wait for the pace", "run show"))
    assert {f"{span.context.trace_id:032x}" for span in (submit, wait, run) if span.context} == {TRACE}
    assert parent_id(submit) == PARENT
    assert parent_id(wait) == parent_id(run) == own_id(submit)
    assert result == f"00-{TRACE}-{own_id(run)}-01"
    # The second task of the user waited for a second.
    assert wait.start_time is not None
    assert wait.end_time == run.start_time
    assert run.start_time is not None
    assert run.start_time - wait.start_time == 1_000_000_000
    assert run.attributes is not None
    assert run.attributes["messaging.message.id"] == answer["task_id"]


def test_failed_attempt_is_an_error_and_its_retry_waits_in_a_span_of_its_own(deploy: Deploy, user: str) -> None:
    traced = Traced(deploy)
    traced.failures = 1
    traced.submit(user, traceparent=TRACEPARENT)
    records = traced.paceline.receive(user)
    traced.paceline.work(*records)
    failed = traced.spans["run show"]
    assert not failed.status.is_ok
    assert failed.status.description == "RuntimeError: not yet"
    traced.paceline.clock.advance(2_000)
    traced.paceline.work(*records)
    assert "wait for the next attempt" in traced.spans
    assert traced.spans["run show"].status.is_unset


def test_without_tracing_the_clients_own_trace_is_passed_on(deploy: Deploy, user: str) -> None:
    traced = Traced(deploy, is_traced=False)
    answer = traced.submit(user, traceparent=TRACEPARENT)
    traced.work(user)
    assert traced.result(user, answer["task_id"]) == TRACEPARENT


@pytest.mark.parametrize(
    "value", ["", "x", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01", "é" * 55]
)
def test_invalid_traceparent_begins_no_trace_and_refuses_nothing(deploy: Deploy, user: str, value: str) -> None:
    traced = Traced(deploy, is_traced=False)
    answer = traced.submit(user, **{"traceparent": value} if value else {})
    traced.work(user)
    assert traced.result(user, answer["task_id"]) == ""


def test_each_task_of_a_bulk_follows_the_one_submit(deploy: Deploy, user: str) -> None:
    traced = Traced(deploy)
    body = {"user_id": user, "tasks": [{"task": "show"}, {"task": "show"}]}
    answer = traced.paceline.request("POST", "/api/v1/tasks", body).json_body
    traced.work(user)
    results = [traced.result(user, task["task_id"]) for task in answer["tasks"]]
    trace_ids = {result.split("-")[1] for result in results}
    assert len(trace_ids) == 1
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", result) for result in results)


def test_open_telemetry_is_not_imported_without_a_collector() -> None:
    code = (
        "import sys; from chalicelib.container import container; "
        "_ = (container().observer, container().submitting('')); "
        "sys.exit(any(name.startswith(('opentelemetry', 'prometheus_client')) for name in sys.modules))"
    )
    env = {**os.environ, "TABLE_NAME": "t", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    ended = subprocess.run([sys.executable, "-c", f"import app; {code}"], env=env, cwd=ROOT, check=False)
    assert ended.returncode == 0
