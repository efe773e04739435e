from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from local.deletions import Deletions
from local.invocation import Context, sqs_event
from local.lane_threads import HELD, Lanes
from local.queue_source import Message, Source, SourceError
from local.worker_process import RECEIVERS, Poller, handler

WAIT_SECONDS = 5
QUEUE_ARN = "arn:aws:sqs:eu-central-1:000000000000:paceline-dev.fifo"


def message(lane: str, sequence: int) -> Message:
    name = f"{lane}{sequence}"
    raw = {
        "Body": "{}",
        "MD5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
        "Attributes": {"MessageGroupId": lane, "SequenceNumber": str(sequence)},
        "MessageAttributes": {"trace": {"DataType": "String", "StringValue": "t"}},
    }
    return Message(name, f"receipt-{name}", lane, sequence, raw)


class FakeSource:
    """Notes what is deleted, and for how long each message is hidden."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.hidden: list[tuple[str, int]] = []
        self.is_down = False
        self.fault: Exception | None = None

    def delete(self, messages: Sequence[Message]) -> list[str]:
        if self.fault:
            raise self.fault
        self.deleted += [message.id for message in messages]
        return []

    def hide(self, messages: Sequence[Message], seconds: int) -> None:
        if self.is_down:
            raise SourceError("down")
        if self.fault and messages:
            raise self.fault
        self.hidden += [(message.id, seconds) for message in messages]


class Bench:
    """Lanes over a fake queue; `handle` decides what becomes of a message."""

    def __init__(self, handle: Callable[[Message], bool]) -> None:
        self.source = FakeSource()
        self.seen: list[str] = []
        self.done: list[str] = []
        self.lanes_that_wait: list[str] = []
        self._handle = handle
        self.lanes = Lanes(cast("Source", self.source), self._note, self._done)

    def _note(self, message: Message) -> bool:
        self.seen.append(message.id)
        return self._handle(message)

    def _done(self, message: Message, lane_waits: bool) -> None:
        self.done.append(message.id)
        self.lanes_that_wait += [message.id] if lane_waits else []

    def run(self, *messages: Message) -> None:
        self.lanes.add(messages)
        self.lanes.join()


def test_a_lane_runs_in_the_order_of_its_sequence() -> None:
    bench = Bench(lambda _: True)
    bench.run(message("a", 3), message("a", 1), message("a", 2))
    assert bench.seen == sorted(bench.seen)
    assert bench.done == bench.seen


def test_a_lane_waits_for_the_deletion_of_the_last_of_its_messages_here() -> None:
    bench = Bench(lambda _: True)
    bench.run(message("a", 1), message("a", 2), message("b", 1))
    assert sorted(bench.lanes_that_wait) == ["a2", "b1"]


def test_what_was_done_is_deleted_before_the_end() -> None:
    source = FakeSource()
    deletions = Deletions(cast("Source", source))
    deletions.start(lambda: False)
    for sequence in range(1, 13):
        deletions.add(message("a", sequence), False)
    deletions.close()
    assert source.deleted == [f"a{sequence}" for sequence in range(1, 13)]


def test_lanes_run_side_by_side() -> None:
    both = threading.Barrier(2)
    bench = Bench(lambda _: both.wait(WAIT_SECONDS) >= 0)
    bench.run(message("a", 1), message("b", 1))
    assert sorted(bench.done) == ["a1", "b1"]


def test_what_follows_a_deferred_message_is_given_back_unseen() -> None:
    bench = Bench(lambda message: message.id != "a2")
    bench.run(*(message("a", sequence) for sequence in (1, 2, 3, 4)))
    assert bench.seen == ["a1", "a2"]
    assert bench.done == ["a1"]
    assert bench.source.hidden == [("a3", 0), ("a4", 0)]


def test_a_message_whose_handler_raises_is_not_deleted(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Message) -> bool:
        raise RuntimeError("broken")

    bench = Bench(fail)
    bench.run(message("a", 1), message("b", 1))
    assert sorted(bench.seen) == ["a1", "b1"]
    assert bench.done == []
    assert "message a1 of a failed and will be redelivered" in caplog.text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exit_out_of_a_handler_blocks_neither_lane_nor_thread(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def leave(message: Message) -> bool:
        if message.id == "a1":
            raise kind
        return True

    bench = Bench(leave)
    bench.lanes.add([message("a", 1)])
    wait_until(lambda: "message a1 of a failed" in caplog.text and bench.lanes.is_quiet())
    bench.run(message("a", 2))
    assert bench.done == ["a2"]
    assert kind.__name__ in caplog.text


def test_an_unexpected_error_of_the_queue_does_not_block_the_lane(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(lambda message: message.id != "a1")
    bench.source.fault = KeyError("an answer of another form")
    bench.lanes.add([message("a", 1), message("a", 2)])
    wait_until(lambda: "could not be made visible" in caplog.text)
    bench.run(message("a", 3))
    assert bench.done == ["a3"]


def test_an_unexpected_error_does_not_end_the_deletions(caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource()
    source.fault = KeyError("an answer of another form")
    deletions = Deletions(cast("Source", source))
    deletions.start(lambda: True)
    deletions.add(message("a", 1), True)
    wait_until(lambda: "not deleted" in caplog.text)
    source.fault = None
    deletions.add(message("a", 2), True)
    deletions.close()
    assert source.deleted == ["a2"]


def test_an_unexpected_error_does_not_end_the_poll_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Answers:
        def __init__(self) -> None:
            self.answers: list[list[Message]] = [[message("a", 1)]]

        def receive(self, _count: int, _wait_seconds: int) -> list[Message]:
            if "receiving failed" not in caplog.text:
                raise KeyError("an answer of another form")
            return self.answers.pop() if self.answers else []

    bench = Bench(lambda _: True)
    poller = Poller(cast("Source", Answers()), bench.lanes, tmp_path / "beat", 10, pause_seconds=0.01)
    poller.start()
    wait_until(lambda: bench.done == ["a1"])
    poller.stop()
    poller.join()
    bench.lanes.join()


def test_receives_run_beside_each_other_only_while_more_messages_wait(tmp_path: Path) -> None:
    class Rush:
        """Gives a lane's messages to the first receive, and to each of the next ones once all of them run."""

        def __init__(self) -> None:
            self.waits: list[int] = []
            self.lock, self.all_run = threading.Lock(), threading.Barrier(RECEIVERS, timeout=WAIT_SECONDS)

        def receive(self, count: int, wait_seconds: int) -> list[Message]:
            with self.lock:
                number = len(self.waits)
                self.waits.append(wait_seconds)
            if number > RECEIVERS:
                time.sleep(0.001)
                return []
            if number > 0:
                self.all_run.wait()
            return [message(f"lane-{number}-", sequence) for sequence in range(count)]

    source, bench = Rush(), Bench(lambda _: True)
    poller = Poller(cast("Source", source), bench.lanes, tmp_path / "beat", 10)
    poller.start()
    wait_until(lambda: len(bench.done) == (1 + RECEIVERS) * 10)
    wait_until(lambda: source.waits[-20:] == [1] * 20)
    poller.stop()
    poller.join()
    bench.lanes.join()


def test_a_worker_that_lost_a_thread_has_no_heartbeat(tmp_path: Path) -> None:
    class Counting:
        receives = 0

        def receive(self, _count: int, _wait_seconds: int) -> list[Message]:
            self.receives += 1
            time.sleep(0.001)
            return []

    lost = threading.Thread(target=int)
    lost.start()
    lost.join()
    source, bench, heartbeat = Counting(), Bench(lambda _: True), tmp_path / "beat"
    poller = Poller(cast("Source", source), bench.lanes, heartbeat, 10, helpers=[lost])
    poller.start()
    wait_until(lambda: source.receives > 1)
    poller.stop()
    poller.join()
    bench.lanes.join()
    assert not heartbeat.exists()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_held_messages_stay_hidden_until_the_handler_is_through() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait(_: Message) -> bool:
        entered.set()
        return leave.wait(WAIT_SECONDS)

    bench = Bench(wait)
    bench.lanes.add([message("a", 1), message("a", 2)])
    assert entered.wait(WAIT_SECONDS)
    bench.lanes.extend(0, 10)
    assert bench.source.hidden == [("a1", 10), ("a2", 10)]
    leave.set()
    bench.lanes.join()
    bench.lanes.extend(0, 10)
    assert len(bench.source.hidden) == 2


def test_a_lane_holds_no_more_than_leaves_room_for_the_others() -> None:
    leave = threading.Event()
    bench = Bench(lambda _: leave.wait(WAIT_SECONDS))
    bench.lanes.add([message(f"other-{n}-", 1) for n in range(249)])
    bench.lanes.add([message("a", sequence) for sequence in range(1, 11)])
    share = HELD // 250
    assert bench.source.hidden == [(f"a{sequence}", 0) for sequence in range(share + 1, 11)]
    leave.set()
    bench.lanes.join()
    assert [name for name in bench.done if name.startswith("a")] == [f"a{n}" for n in range(1, share + 1)]
    assert f"a{share}" in bench.lanes_that_wait


def test_a_stop_gives_back_what_has_not_begun_and_lets_the_rest_finish() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait(_: Message) -> bool:
        entered.set()
        return leave.wait(WAIT_SECONDS)

    bench = Bench(wait)
    bench.lanes.add([message("a", 1), message("a", 2)])
    assert entered.wait(WAIT_SECONDS)
    bench.lanes.stop()
    bench.lanes.add([message("b", 1)])
    assert bench.source.hidden == [("a2", 0), ("b1", 0)]
    leave.set()
    bench.lanes.join()
    assert bench.seen == bench.done == ["a1"]


def test_a_queue_that_is_down_does_not_end_a_lane() -> None:
    bench = Bench(lambda message: message.lane == "b")
    bench.source.is_down = True
    bench.run(message("a", 1), message("a", 2), message("b", 1))
    assert bench.done == ["b1"]


def test_a_worker_with_too_many_received_messages_has_no_room() -> None:
    leave = threading.Event()
    bench = Bench(lambda _: leave.wait(WAIT_SECONDS))
    empty = bench.lanes.room
    bench.lanes.add([message("a", sequence) for sequence in range(empty)])
    assert bench.lanes.room == 0
    leave.set()
    bench.lanes.stop()
    bench.lanes.join()


@pytest.mark.parametrize(
    ("answer", "is_done"),
    [
        (None, True),
        ({}, True),
        ({"batchItemFailures": []}, True),
        ({"batchItemFailures": [{"itemIdentifier": "a1"}]}, False),
        ({"batchItemFailures": [{"itemIdentifier": "other"}]}, True),
    ],
)
def test_a_message_is_done_unless_it_is_reported_as_failed(answer: object, is_done: bool) -> None:
    handle = handler(lambda _event, _context: answer, "paceline-dev-worker", QUEUE_ARN, 60)
    assert handle(message("a", 1)) is is_done


def test_the_event_has_the_form_that_lambda_gives_it() -> None:
    (record,) = sqs_event(message("a", 1), QUEUE_ARN)["Records"]
    assert record == {
        "messageId": "a1",
        "receiptHandle": "receipt-a1",
        "body": "{}",
        "attributes": {"MessageGroupId": "a", "SequenceNumber": "1"},
        "messageAttributes": {
            "trace": {"dataType": "String", "stringValue": "t", "stringListValues": [], "binaryListValues": []}
        },
        "md5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
        "eventSource": "aws:sqs",
        "eventSourceARN": QUEUE_ARN,
        "awsRegion": "eu-central-1",
    }


def test_the_context_counts_down_from_the_time_out() -> None:
    assert 59_000 < Context("paceline-dev-worker", "worker-1", 60).get_remaining_time_in_millis() <= 60_000
    assert Context("paceline-dev-worker", "worker-1", 0).get_remaining_time_in_millis() == 0
