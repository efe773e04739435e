"""How Lambda's event source mapping hands out a queue's messages, and how it takes the function's answers."""

import threading
from typing import Any

from tests.facts.event_sources import EventSources, Mapping, Record
from tests.facts.fact import Facts

fact = Facts(
    "Lambda's event source mapping of an SQS queue",
    "lambda_/event_source_mapping/test_lambda_integration_sqs.py",
    ("ministack", "localstack"),
)
EVERY = ("own", "ministack", "localstack")

#: Seconds; longer than a function's first call takes on a busy machine.
VISIBILITY = 8


class Calls:
    """The function's invocations: each message with its count of receives."""

    def __init__(self) -> None:
        self.all: list[list[str]] = []
        #: seconds since the message's first receive
        self.after: list[float] = []

    def add(self, records: list[Record], now: float) -> None:
        self.all.append([f"{record['body']}/{record['attributes']['ApproximateReceiveCount']}" for record in records])
        self.after.append(now - int(records[0]["attributes"]["ApproximateFirstReceiveTimestamp"]) / 1_000)


def _failures(records: list[Record], *bodies: str) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": one["messageId"]} for one in records if one["body"] in bodies]}


@fact(
    [["a1/1", "a2/1", "a3/1", "a4/1"], ["a2/2", "a3/2", "a4/2"], ["a4"]],
    "test_report_batch_item_failures",
)
def messages_reported_as_failed_come_again_until_they_are_dead_letters(sources: EventSources) -> list[list[str]]:
    calls = Calls()

    def answer(records: list[Record], mapping: Mapping) -> Any:
        calls.add(records, mapping.now())
        return _failures(records, "a2", "a3", "a4") if len(calls.all) == 1 else _failures(records, "a4")

    mapping = sources.mapping(answer, VISIBILITY, max_receives=2)
    mapping.send("a1", "a2", "a3", "a4")
    mapping.start(batch_size=10)
    return [*calls.all, mapping.wait_for_dead_letters(1)] if mapping.wait_until(lambda: len(calls.all) >= 2) else []


@fact(["a1", "b1"], "test_report_batch_item_failures_on_lambda_error")
def when_a_function_that_reports_failures_raises_its_whole_batch_has_failed(sources: EventSources) -> list[str]:
    def answer(records: list[Record], mapping: Mapping) -> Any:
        raise ValueError

    mapping = sources.mapping(answer, VISIBILITY, max_receives=2, is_fifo=False)
    mapping.send("a1", "b1")
    mapping.start(batch_size=10)
    return sorted(mapping.wait_for_dead_letters(2))


@fact(["a1"], "test_report_batch_item_failures_invalid_result_json_batch_fails")
def an_answer_with_a_malformed_failure_fails_the_whole_batch(sources: EventSources) -> list[str]:
    return _dead_letters(sources, {"batchItemFailures": [{"foo": "notvalid"}]}, max_receives=2)


@fact([], "test_report_batch_item_failures_empty_json_batch_succeeds")
def an_empty_answer_is_a_success_of_the_whole_batch(sources: EventSources) -> list[str]:
    return _dead_letters(sources, {}, max_receives=1)


def _dead_letters(sources: EventSources, result: Any, max_receives: int) -> list[str]:
    calls = Calls()

    def answer(records: list[Record], mapping: Mapping) -> Any:
        calls.add(records, mapping.now())
        return result

    mapping = sources.mapping(answer, VISIBILITY, max_receives, is_fifo=False)
    mapping.send("a1")
    mapping.start(batch_size=10)
    mapping.wait_until(lambda: bool(calls.all))
    mapping.sleep(max_receives * VISIBILITY + 1)
    return mapping.wait_for_dead_letters(1, seconds=5)


@fact(
    [["a1/1"], ["a1/2"], "not before the visibility timeout"],
    "test_failing_lambda_retries_after_visibility_timeout",
    EVERY,
)
def a_message_whose_function_failed_comes_again_after_the_visibility_timeout(sources: EventSources) -> list[Any]:
    calls = Calls()

    def answer(records: list[Record], mapping: Mapping) -> Any:
        calls.add(records, mapping.now())
        if len(calls.all) == 1:
            raise ValueError
        return {}

    mapping = sources.mapping(answer, VISIBILITY, is_fifo=False)
    mapping.send("a1")
    mapping.start(batch_size=1)
    mapping.wait_until(lambda: len(calls.all) >= 2)
    mapping.sleep(VISIBILITY + 1)  # and then it is deleted
    is_early = calls.after[1] < VISIBILITY - 0.1  # the simulator's worker takes a little to begin
    return [*calls.all, "before the visibility timeout" if is_early else "not before the visibility timeout"]


@fact(["5 calls", "1 at a time"], "test_fifo_message_group_parallelism", EVERY)
def with_one_message_a_batch_a_group_never_runs_side_by_side(sources: EventSources) -> list[Any]:
    calls, lock, running, most = Calls(), threading.Lock(), [0], [0]

    def answer(records: list[Record], mapping: Mapping) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            calls.add(records, mapping.now())
        mapping.run_for(1)
        with lock:
            running[0] -= 1
        return {}

    mapping = sources.mapping(answer, visibility=60)
    mapping.send("a1", "a2", "a3", "a4", "a5")
    mapping.start(batch_size=1)
    mapping.wait_until(lambda: len(calls.all) >= 5 and not running[0])
    mapping.sleep(1)
    return [f"{len(calls.all)} calls", f"{most[0]} at a time"]


@fact(
    "ApproximateFirstReceiveTimestamp ApproximateReceiveCount MessageDeduplicationId MessageGroupId SenderId"
    " SentTimestamp SequenceNumber",
    "test_report_batch_item_failures",
)
def a_record_of_a_fifo_queue_has_these_attributes(sources: EventSources) -> str:
    names: list[str] = []

    def answer(records: list[Record], mapping: Mapping) -> Any:
        names.extend(records[0]["attributes"])
        return {}

    mapping = sources.mapping(answer)
    mapping.send("a1")
    mapping.start(batch_size=1)
    mapping.wait_until(lambda: bool(names))
    return " ".join(sorted(names))
