"""Traces by OpenTelemetry: one trace from a submit to its task's outcome, with the wait for the pace as a span.

Only loaded where OTEL_EXPORTER_OTLP_ENDPOINT is set. The SDK reads all other variables that begin with OTEL_ itself.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chalicelib.core.claim import Start
from chalicelib.core.task import Task
from chalicelib.tasks.runner import Ended, Returned

_propagator = TraceContextTextMapPropagator()


class Tracing:
    """Makes the spans of submits and attempts. Implements Observer."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("paceline")

    @contextmanager
    def submitting(self, traceparent: str) -> Iterator[str]:
        """Spans a submit, within the client's own trace if it has one; yields the traceparent for its tasks."""
        with self._tracer.start_as_current_span("submit", _parent(traceparent), SpanKind.PRODUCER) as span:
            yield _traceparent(span)

    def started(self, task: Task, start: Start) -> "TracedAttempt":
        """Makes the span of the wait, which is over, and begins that of the run: both follow the submit."""
        parent, attributes = _parent(task.traceparent), _attributes(task, start)
        lease = start.lane.lease_of(task.task_id)
        earlier = lease.starts[:-1] if lease else ()
        wait = self._tracer.start_span(
            "wait for the next attempt" if earlier else "wait for the pace",
            parent,
            attributes=attributes,
            start_time=_nanoseconds(min(start.at, earlier[-1] if earlier else task.submitted_at)),
        )
        wait.end(_nanoseconds(start.at))
        run = self._tracer.start_span(
            f"run {task.name}", parent, SpanKind.CONSUMER, attributes, start_time=_nanoseconds(start.at)
        )
        return TracedAttempt(run, start.at)

    def finished(self, event: Mapping[str, Any]) -> None:
        """An outcome ends an attempt, which has its span."""


class TracedAttempt:
    """Implements Attempt."""

    def __init__(self, span: Span, started_at: int) -> None:
        self._span = span
        self._started_at = started_at
        self.traceparent = _traceparent(span)

    def ended(self, ended: Ended, at: int) -> None:
        self._span.set_attribute("paceline.attempt.ended", type(ended).__name__.lower())
        if not isinstance(ended, Returned):
            self._span.set_status(Status(StatusCode.ERROR, ended.error))
        self._span.end(_nanoseconds(max(at, self._started_at)))


def tracing_to_collector(stage: str) -> Tracing:
    """Sends spans to the collector of OTEL_EXPORTER_OTLP_ENDPOINT: on Lambda each at its end, since Lambda freezes."""
    provider = TracerProvider(resource=Resource.create({"service.name": "paceline", "deployment.environment": stage}))
    is_on_lambda = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
    provider.add_span_processor((SimpleSpanProcessor if is_on_lambda else BatchSpanProcessor)(OTLPSpanExporter()))
    return Tracing(provider)


def _parent(traceparent: str) -> Context:
    return _propagator.extract({"traceparent": traceparent} if traceparent else {}, Context())


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent", "")


def _attributes(task: Task, start: Start) -> dict[str, Any]:
    """Of OpenTelemetry's conventions for messaging, and of Paceline."""
    return {
        "messaging.system": "paceline",
        "messaging.message.id": task.task_id,
        "paceline.user_id": task.user_id,
        "paceline.task": task.name,
        "paceline.seq": task.seq,
        "paceline.attempt": start.attempt,
        "paceline.planned_at": start.planned_at,
    }


def _nanoseconds(at: int) -> int:
    return at * 1_000_000
