"""The first hour's probes: their functions over a recorded SQS, their queues, and their templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from operations.first_hour import cold_start, probe_functions
from operations.first_hour.findings import State
from operations.first_hour.probe_stack import CODE, PREFIX, probe_template, probes
from operations.first_hour.queues import Probes, Record


def record(**facts: Any) -> Record:
    return {"run": "r", "id": "m", "receives": 1, "first_received": 10.0, "begun": 10.0, "ended": 11.0, **facts}


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
