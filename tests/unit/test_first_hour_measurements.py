"""The first hour's measurements over records as its probes send them, and the probes' functions over a recorded SQS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from infra.deploy.stages import read_config
from operations.first_hour import contract, gateway, measure_findings, measure_queues
from operations.first_hour.findings import Finding, State
from operations.first_hour.probe_stack import STAGE
from operations.first_hour.queues import Probes, Record
from operations.first_hour.sizes import SIZES, Size, Sizes
from operations.first_hour.stage import ORIGIN, Answer, Signer, stage_environment

SMALLEST = SIZES[Size.SMALLEST]


class Scripted:
    """Probes whose records and queue counts are given."""

    def __init__(self, records: Sequence[Record], in_flight: int = 0, dead: int = 0) -> None:
        self._records = records
        self._in_flight = in_flight
        self._dead = dead
        self.sent = list[tuple[str, Record]]()

    def send(self, _probe: str, messages: Sequence[tuple[str, Record]]) -> None:
        self.sent += messages

    def wait(self, run: str, *_: Any, meanwhile: Callable[[], None] | None = None, **__: Any) -> list[Record]:
        if meanwhile:
            meanwhile()
        return self.records(run)

    def records(self, run: str) -> list[Record]:
        return [one for one in self._records if one["run"] == run]

    def counts(self, _probe: str, *, dead: bool = False) -> tuple[int, int]:
        return (self._dead, 0) if dead else (0, self._in_flight)


def record(**facts: Any) -> Record:
    return {"run": "r", "id": "m", "receives": 1, "first_received": 10.0, "begun": 10.0, "ended": 11.0, **facts}


def found(measure: Any, scripted: Scripted, sizes: Sizes = SMALLEST) -> dict[str, Finding]:
    return {one.label: one for one in measure(cast(Probes, scripted), sizes, "r", lambda: 10.5)}


def only(findings: dict[str, Finding], part: str) -> Finding:
    [one] = [finding for label, finding in findings.items() if part in label]
    return one


def test_a_message_that_waited_for_a_function_after_its_receive_was_prefetched() -> None:
    records = [record(id="a"), record(id="b", begun=14.5, ended=15.5)]
    prefetched = found(measure_queues.prefetch, Scripted(records, in_flight=3))
    held = only(prefetched, "receive to its invocation, most")
    assert (held.value, held.state) == (4.5, State.UNEXPECTED)
    assert only(prefetched, "in flight").value == 2  # one of three ran at that time
    prompt = found(measure_queues.prefetch, Scripted([record(id="a", begun=10.02)]))
    assert only(prompt, "receive to its invocation, most").state is State.EXPECTED


def test_receives_are_counted_beside_invocations() -> None:
    records = [record(id="a", receives=3), record(id="b")]
    counted = found(measure_queues.prefetch, Scripted(records))
    assert (only(counted, "messages received").value, only(counted, "invocations").value) == (4, 2)


def test_a_delay_counts_from_the_last_deferral_of_a_message() -> None:
    sizes = SIZES[Size.SMALLEST]
    one = [record(run="r-1", visible_at=16.0), record(run="r-1", receives=2, begun=16.4)]
    three = [
        *(record(run="r-3", id=str(n), visible_at=17.0) for n in range(2)),
        record(run="r-3", id="0", receives=2, visible_at=20.0),
        record(run="r-3", id="0", receives=3, begun=20.25),
        record(run="r-3", id="1", receives=2, begun=24.0),
    ]
    delays = found(measure_queues.delay, Scripted(one + three), sizes)
    assert only(delays, "1 lane: seconds from visible to invoked, median").value == pytest.approx(0.4)
    assert only(delays, "3 lanes: seconds from visible to invoked, least").value == 0.25
    assert only(delays, "3 lanes: seconds from visible to invoked, p99").state is State.UNEXPECTED
    missing = only(delays, "3 lanes: deferred messages")
    assert (missing.value, missing.state) == (2, State.UNEXPECTED)


def early(run: str, n: int, **facts: Any) -> Record:
    return record(run=f"r-{run}", group="g", n=n, id=f"{run}{n}", deleted=None, **facts)


@pytest.mark.parametrize(("begun", "state"), [(10.4, State.EXPECTED), (13.1, State.UNEXPECTED)])
def test_an_early_delete_lets_the_next_run_beside_it_or_not(begun: float, state: State) -> None:
    records = [
        early("late", 0, ended=13.0),
        early("late", 1, begun=13.2),
        {**early("early", 0, ended=13.0), "deleted": 10.1},
        early("early", 1, begun=begun),
    ]
    deleted = found(measure_queues.early_delete, Scripted(records))
    assert only(deleted, "without a delete").value == 0.2
    assert only(deleted, "ran beside the first").state is state
    assert only(deleted, "from the delete").value == round(begun - 10.1, 3)


def chain_records(probe: str, length: int) -> list[Record]:
    return [record(run=f"r-{probe}", n=n, id=str(n)) for n in range(1, length + 1)]


@pytest.mark.parametrize(("length", "state"), [(16, State.EXPECTED), (18, State.UNEXPECTED), (3, State.UNEXPECTED)])
def test_a_chain_is_expected_to_stop_after_16_invocations(length: int, state: State) -> None:
    chained = found(
        measure_findings.chain, Scripted(chain_records("chain", length) + chain_records("allowed", 18), dead=1)
    )
    assert only(chained, "before Lambda stopped it").state is state
    assert only(chained, "RecursiveLoop").state is State.EXPECTED
    assert only(chained, "dead-letter queue").value == 1


def test_an_allowed_chain_that_stops_differs() -> None:
    chained = found(measure_findings.chain, Scripted(chain_records("chain", 16) + chain_records("allowed", 16)))
    assert only(chained, "RecursiveLoop").state is State.UNEXPECTED


def failures(group: str, waits: Sequence[float]) -> list[Record]:
    begun, records = 10.0, []
    for n, wait in enumerate(waits, 1):
        records.append(record(group=group, id=group, receives=n, begun=begun, visible_at=begun + wait))
        begun += wait + 0.5
    return records


def test_receives_under_failure_are_counted_and_extended_to_those_of_a_stage() -> None:
    records = failures("constant", [1, 1, 1]) + failures("backoff", [1, 2, 2])
    failed = found(measure_findings.failure, Scripted(records, dead=2))
    assert only(failed, "constant: ApproximateReceiveCount").value == "1, 2, 3"
    assert only(failed, "dead letters").state is State.EXPECTED
    assert only(failed, "later than asked").value == 0.5
    assert only(failed, "backoff: seconds from the first").value == 6.0
    assert only(failed, "computed: hours").value == 16.8
    assert only(failed, "computed: minutes").value == 92


def test_a_receive_that_is_not_counted_differs() -> None:
    failed = found(measure_findings.failure, Scripted(failures("constant", [1, 1]) + failures("backoff", [1, 2, 2])))
    assert only(failed, "constant: ApproximateReceiveCount").state is State.UNEXPECTED
    assert only(failed, "dead letters").state is State.UNEXPECTED


@pytest.mark.parametrize("measure", [measure_queues.prefetch, measure_queues.delay, measure_findings.failure])
def test_a_probe_without_a_record_fails(measure: Any) -> None:
    with pytest.raises(TimeoutError):
        found(measure, Scripted([]))


CHECK = contract.Check("x", "GET", "/", 404, {"content-type": "problem", "vary": None}, field=("title", "No"))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (Answer(404, {"content-type": "application/problem+json"}, '{"title": "No"}'), "404, as the contract says"),
        (Answer(403, {"content-type": "problem"}, '{"title": "No"}'), "status 403"),
        (Answer(404, {}, '{"title": "No"}'), "content-type: None"),
        (Answer(404, {"content-type": "problem", "vary": "Origin"}, '{"title": "No"}'), "vary: Origin"),
        (Answer(404, {"content-type": "problem"}, "<html>"), "title '<html>'"),
    ],
)
def test_an_answer_is_compared_part_by_part(answer: Answer, value: str) -> None:
    compared = gateway.compared(CHECK, answer)
    assert compared.value == value
    assert compared.is_expected is value.endswith("contract says")


def test_the_stage_is_configured_as_dev_is() -> None:
    stages = read_config()["stages"]
    own = {"environment_variables": {"STAGE": STAGE}, "log_retention_in_days": 1}
    assert stages[STAGE] == stages["dev"] | own


def test_the_stage_gets_the_first_hours_settings_alone() -> None:
    signer = Signer(lambda: 1_000_000.0)
    others = ("JWT_SECRET", "JWT_JWKS", "MAX_DELAY", "WEBHOOK_SECRET", "ALARM_TOPIC_ARN")
    env = stage_environment({"PATH": "/bin", "JWT_SECRET": "s", "LIMITS": "9/second"}, signer.public_key)
    assert {env[name] for name in others} == {""}
    assert (env["AUTH"], env["CORS_ORIGINS"], env["LIMITS"]) == ("jwt", ORIGIN, "1/second; 20/minute")
    assert (env["PATH"], env["STAGE"]) == ("/bin", "firsthour")
