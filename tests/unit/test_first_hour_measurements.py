"""The first hour's measurements over records as its probes send them, and the probes' functions over a recorded SQS."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from infra.deploy.stages import read_config
from operations.first_hour import cold_start, contract, gateway, measure_findings, measure_queues, probe_functions
from operations.first_hour.findings import Finding, State
from operations.first_hour.probe_stack import CODE, PREFIX, STAGE, probe_template, probes
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


class RecordedSqs:
    """Remembers the calls of a probe's function."""

    def __init__(self) -> None:
        self.calls = list[tuple[str, dict[str, Any]]]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda **request: self.calls.append((name, request))

    @property
    def record(self) -> Record:
        return cast(Record, json.loads(self.calls[-1][1]["MessageBody"]))


def invoked(handler: Any, body: Record, receives: int = 1) -> tuple[RecordedSqs, list[Record]]:
    sqs = RecordedSqs()
    attributes = {"ApproximateReceiveCount": str(receives), "ApproximateFirstReceiveTimestamp": "1000"}
    message = {
        "messageId": "m",
        "receiptHandle": "h",
        "body": json.dumps({"run": "r", **body}),
        "attributes": attributes,
    }
    answer = handler({"Records": [message]}, None, sqs)
    return sqs, answer["batchItemFailures"]


def test_a_deferring_probe_hides_a_message_until_its_time() -> None:
    sqs, failed = invoked(probe_functions.hide_until, {"until": 4e9})
    assert sqs.calls[0][0] == "change_message_visibility"
    assert sqs.record["visible_at"] >= 4e9
    assert failed == [{"itemIdentifier": "m"}]
    sqs, failed = invoked(probe_functions.hide_until, {"until": 0}, receives=2)
    assert [name for name, _ in sqs.calls] == ["send_message"]
    assert (sqs.record["receives"], sqs.record["first_received"], failed) == (2, 1.0, [])


def test_an_early_deleting_probe_deletes_before_it_goes_on() -> None:
    sqs, failed = invoked(probe_functions.delete_early, {"early": True, "seconds": 0})
    assert [name for name, _ in sqs.calls] == ["delete_message", "send_message"]
    assert (sqs.record["deleted"] is not None, failed) == (True, [])
    sqs, _ = invoked(probe_functions.delete_early, {"early": False, "seconds": 0})
    assert [name for name, _ in sqs.calls] == ["send_message"]


def test_a_chaining_probe_sends_until_the_last() -> None:
    sqs, _ = invoked(probe_functions.send_next, {"n": 1, "last": 2})
    assert json.loads(sqs.calls[0][1]["MessageBody"])["n"] == 2
    sqs, _ = invoked(probe_functions.send_next, {"n": 2, "last": 2})
    assert len(sqs.calls) == 1


@pytest.mark.parametrize(("receives", "most", "seconds"), [(1, 8, 1), (3, 8, 4), (9, 8, 8), (9, 1, 1)])
def test_a_failing_probe_waits_by_the_receive_count(receives: int, most: int, seconds: int) -> None:
    sqs, failed = invoked(probe_functions.fail, {"most": most}, receives)
    assert sqs.calls[0][1]["VisibilityTimeout"] == seconds
    assert failed == [{"itemIdentifier": "m"}]


def test_the_probes_code_fits_into_a_template() -> None:
    assert len(CODE.read_text()) <= 4096


def test_every_resource_of_the_probes_is_named_after_the_first_hour() -> None:
    template = probe_template(probes(3, 20))
    named = [
        name
        for resource in template["Resources"].values()
        for key in ("QueueName", "FunctionName", "LogGroupName")
        if isinstance(name := resource["Properties"].get(key), str)
    ]
    assert len(named) == 1 + 3 * 6 + 3  # results; queue, function and log group of each probe; three dead-letter queues
    assert all(name.removeprefix("/aws/lambda/").startswith(f"{PREFIX}-probe") for name in named)


def test_only_one_chain_is_allowed() -> None:
    resources = probe_template(probes(3, 20))["Resources"].values()
    loops = {
        one["Properties"]["FunctionName"]: one["Properties"].get("RecursiveLoop")
        for one in resources
        if one["Type"] == "AWS::Lambda::Function"
    }
    assert loops.pop(f"{PREFIX}-probe-allowed") == "Allow"
    assert set(loops.values()) == {None}


def test_the_copies_differ_in_memory_and_snapstart_alone() -> None:
    function = {"Runtime": "python3.13", "Handler": "app.app", "Role": "r", "Timeout": 29, "Architectures": ["arm64"]}
    resources = cold_start.cold_template(function, "b", "k", is_aws=True)["Resources"]
    copies = [one["Properties"] for one in resources.values() if one["Type"] == "AWS::Lambda::Function"]
    assert sorted((one["MemorySize"], "SnapStart" in one) for one in copies) == [
        (256, False),
        (256, True),
        (512, False),
        (512, True),
    ]
    same = [
        {key: value for key, value in one.items() if key not in ("FunctionName", "MemorySize", "SnapStart")}
        for one in copies
    ]
    assert all(one == same[0] for one in same)
    assert sum(one["Type"] == "AWS::Lambda::Version" for one in resources.values()) == 2


class InvokedLambda:
    """Lambda that answers with this REPORT line for published versions, and that one for the others."""

    def __init__(self, published: str, latest: str) -> None:
        self._lines = {True: published, False: latest}

    def list_versions_by_function(self, **_: str) -> dict[str, Any]:
        return {"Versions": [{"Version": "$LATEST"}, {"Version": "9"}, {"Version": "10"}]}

    def get_function_configuration(self, **request: str) -> dict[str, Any]:
        assert request["Qualifier"] == "10"
        return {"State": "Active"}

    def invoke(self, **request: Any) -> dict[str, Any]:
        import base64
        import io

        line = self._lines["Qualifier" in request]
        payload = io.BytesIO(json.dumps({"statusCode": 200}).encode())
        return {"Payload": payload, "LogResult": base64.b64encode(line.encode()).decode()}


def test_cold_starts_are_read_from_lambdas_report() -> None:
    client = InvokedLambda(
        "REPORT Duration: 9 ms Restore Duration: 300.5 ms Billed Restore Duration: 77 ms",
        "REPORT Duration: 9 ms Init Duration: 900 ms",
    )
    cold = {one.label: one for one in cold_start.cold_starts(client, "t", 2, is_aws=True)}
    assert cold["256 MB, without SnapStart: ms of init by Lambda's report, median"].value == 900
    assert cold["512 MB, with SnapStart: ms of restore by Lambda's report, median"].value == 300.5
    assert cold["512 MB: ms that SnapStart saves"].value == 600
    assert cold["512 MB: ms that SnapStart saves"].state is State.EXPECTED
    elsewhere = cold_start.cold_starts(InvokedLambda("", ""), "t", 1, is_aws=False)
    assert {one.state for one in elsewhere} == {State.NOT_MEASURED}


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
    configured = {
        "JWT_SECRET": "s",
        "AUTH_X": "y",
        "LIMITS": "9/second",
        "PATH": "/bin",
        "MAX_DELAY": "2h",
        "ALARM_TOPIC_ARN": "a",
    }
    env = stage_environment({"PATH": "/bin", "JWT_SECRET": "s"}, configured, signer.public_key)
    assert {name: env[name] for name in ("JWT_SECRET", "AUTH_X", "MAX_DELAY", "WEBHOOK_SECRET", "ALARM_TOPIC_ARN")} == {
        "JWT_SECRET": "",
        "AUTH_X": "",
        "MAX_DELAY": "",
        "WEBHOOK_SECRET": "",
        "ALARM_TOPIC_ARN": "",
    }
    assert (env["AUTH"], env["CORS_ORIGINS"], env["LIMITS"]) == ("jwt", ORIGIN, "1/second; 20/minute")
    assert (env["PATH"], env["STAGE"]) == ("/bin", "firsthour")


class Queue:
    """SQS with batches of records to receive."""

    def __init__(self, *batches: Sequence[Record]) -> None:
        self._batches = list(batches)
        self.sent = list[dict[str, Any]]()
        self.deleted = 0

    def send_message_batch(self, **request: Any) -> dict[str, Any]:
        self.sent += request["Entries"]
        return {}

    def receive_message(self, **_: Any) -> dict[str, Any]:
        batch = self._batches.pop(0) if self._batches else []
        return {"Messages": [{"Body": json.dumps(one), "ReceiptHandle": "h"} for one in batch]}

    def delete_message_batch(self, **request: Any) -> None:
        self.deleted += len(request["Entries"])


def clock() -> Callable[[], float]:
    ticks = iter(range(10_000))
    return lambda: float(next(ticks))


def test_a_record_that_comes_twice_counts_once() -> None:
    one = record(probe="delay")
    queue = Queue([one, one], [{**one, "receives": 2}])
    probed = Probes(queue, {"ResultsUrl": "u"}, clock())
    assert len(probed.wait("r", lambda found: len(found) == 2, seconds=100)) == 2
    assert (queue.deleted, probed.records_seen) == (3, 2)


def test_the_wait_for_records_ends_when_none_comes_any_more() -> None:
    probed = Probes(Queue([record(probe="delay")]), {"ResultsUrl": "u"}, now := clock())
    assert len(probed.wait("r", lambda _: False, seconds=5_000, quiet=20)) == 1
    assert now() < 200


def test_messages_are_sent_in_tens_and_in_groups() -> None:
    queue = Queue()
    Probes(queue, {"DelayUrl": "u/delay.fifo"}, clock()).send("delay", [(f"g{n}", {"run": "r"}) for n in range(11)])
    assert [one["MessageGroupId"] for one in queue.sent] == [f"g{n}" for n in range(11)]
    assert len({one["MessageDeduplicationId"] for one in queue.sent}) == 11
