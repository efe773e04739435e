"""Runs the first hour: asks, removes leftovers, deploys, measures, removes everything again, and returns the report."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Protocol
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from infra.stack import StackError, at_endpoint, deploy_stack
from operations.first_hour.errors import FirstHourError, StoppedError, explain
from operations.first_hour.findings import Outcome
from operations.first_hour.measurements import Measurement, Parts
from operations.first_hour.probe_stack import PROBE_STACK, probe_template, probes
from operations.first_hour.queues import Probes
from operations.first_hour.removal import Commands
from operations.first_hour.report import Report
from operations.first_hour.sizes import Size, Sizes
from operations.first_hour.stage import Api, Signer

#: Errors of a step that become one line of the report.
FAILURES = (
    *(BotoCoreError, ClientError, StackError, FirstHourError),
    *(OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError),
)
Say = Callable[[str], None]


class Removes(Protocol):
    """Finds and removes the things of a run, as Removal does."""

    def leftovers(self) -> list[str]:
        """Returns the things of an earlier run that still exist."""

    def remove(self) -> list[str]:
        """Removes everything; returns one line for each thing that remains."""


class FirstHour:
    """One run. Whatever ends it, also Ctrl-C or SIGTERM, it removes all that it made."""

    def __init__(
        self,
        account: Any,
        deploy: Callable[[], Parts],
        removal: Removes,
        say: Say,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._account = account
        self._deploy = deploy
        self._removal = removal
        self._say = say
        self._now = now

    def run(self, size: Size, measurements: Sequence[Measurement], earlier: Sequence[str] = ()) -> Report:
        """Measures and returns the report; a failed or interrupted run has the outcomes until then."""
        begun, outcomes = self._now(), list[Outcome]()
        with stoppable():
            try:
                stopped = self._measure(measurements, earlier, outcomes)
            finally:
                remaining = self._removed()
        return Report(
            target=str(self._account),
            is_aws=not self._account.endpoint_url,
            size=size.value,
            begun_at=begun,
            seconds=self._now() - begun,
            outcomes=tuple(outcomes),
            stopped=stopped,
            earlier=tuple(earlier),
            remaining=tuple(remaining),
        )

    def _measure(self, measurements: Sequence[Measurement], earlier: Sequence[str], outcomes: list[Outcome]) -> str:
        """Adds the outcomes as they come; returns the reason of an early end, and otherwise the empty string."""
        try:
            if earlier:
                self._say("Removing the leftovers of an earlier run")
                self._refuse_remains(self._removal.remove())
            self._say("Deploying")
            parts = self._deploy()
            for number, measurement in enumerate(measurements, 1):
                self._say(f"Measuring {measurement.name} ({number} of {len(measurements)})")
                outcomes.append(self._measured(measurement, parts))
        except KeyboardInterrupt as stop:
            return str(stop) or "Ctrl-C"
        except FirstHourError as error:
            return str(error)
        except FAILURES as error:
            return str(explain("deploying", error, self._account))
        return ""

    def _removed(self) -> list[str]:
        with unstoppable(self._say):
            self._say("Removing everything")
            return self._removal.remove()

    def _refuse_remains(self, remaining: Sequence[str]) -> None:
        if remaining:
            raise FirstHourError(f"an earlier run's leftovers can't be removed: {'; '.join(remaining)}")

    def _measured(self, measurement: Measurement, parts: Parts) -> Outcome:
        begun = self._now()
        try:
            outcome = Outcome(measurement.name, measurement.question, tuple(measurement.measure(parts)))
        except FAILURES as error:
            failure = str(explain(measurement.name, error, self._account))
            outcome = Outcome(measurement.name, measurement.question, (), failure)
        self._say(f"    {outcome.state.value}, after {self._now() - begun:.0f} s")
        return outcome


def deploy_parts(account: Any, commands: Commands, signer: Signer, sizes: Sizes, say: Say, *, has_stage: bool) -> Parts:
    """Deploys the probes, and the stage if asked, and returns the measurements' parts."""
    begun = datetime.now(timezone.utc)
    url = commands.deploy() if has_stage else ""
    wanted = probes(sizes.failure[0], sizes.concurrency)
    outputs = deploy_stack(
        account.client("cloudformation"),
        PROBE_STACK,
        {"TemplateBody": json.dumps(probe_template(wanted))},
        {},
        capabilities=("CAPABILITY_IAM",),
        progress=lambda line: say(f"    {line}"),
    )
    urls = at_endpoint(outputs, account.endpoint_url) if account.endpoint_url else outputs
    return Parts(
        account=account,
        sizes=sizes,
        run=uuid4().hex[:8],
        api=Api(url, signer),
        probes=Probes(account.client("sqs"), urls, time.monotonic),
        begun=begun,
        say=say,
    )


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise StoppedError; Ctrl-C raises KeyboardInterrupt by itself."""
    with _handling((signal.SIGTERM, signal.SIGHUP), _stop):
        yield


@contextmanager
def unstoppable(say: Say) -> Iterator[None]:
    """Within it a signal only says that the removal goes on."""

    def refuse(*_: object) -> None:
        say("Still removing everything; a killed run's leftovers are removed by the next start")

    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), refuse):
        yield


def _stop(number: int, _frame: object) -> None:
    raise StoppedError(signal.Signals(number).name)


@contextmanager
def _handling(signals: Sequence[signal.Signals], handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
