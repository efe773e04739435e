"""Which sends a FIFO queue takes for repeats of an earlier one."""

from tests.facts.fact import EMULATORS, PORTS, Facts
from tests.facts.queues import Queue, Queues

fact = Facts("Deduplication in an SQS FIFO queue", "sqs/test_sqs.py", PORTS)


@fact([["a1"], []], "test_fifo_deduplication_arrives_once_after_delete")
def a_send_is_a_repeat_also_after_the_first_message_was_deleted(queues: Queues) -> list[list[str]]:
    queue = queues.fifo()
    queue.send_all("a1")
    received = queue.receive()
    queue.delete("a1")
    queue.send_all("a1")
    return [received, queue.receive()]


@fact([["a1"], []], "test_deduplication_interval")
def a_repeat_with_another_body_leaves_the_first_body(queues: Queues) -> list[list[str]]:
    queue = queues.fifo()
    queue.send("a1", deduplication_id="same")
    queue.send("a2", deduplication_id="same")
    received = queue.receive()
    queue.delete("a1")
    return [received, queue.receive()]


@fact([["a1"], ["a2"]], "test_deduplication_interval", ("own",))
def after_six_minutes_a_send_with_the_same_id_is_new(queues: Queues) -> list[list[str]]:
    queue = queues.fifo()
    queue.send("a1", deduplication_id="same")
    queue.wait(2)
    queue.send("a3", deduplication_id="same")
    queue.wait(360)
    queue.send("a2", deduplication_id="same")
    first = queue.receive(1)
    queue.delete("a1")
    return [first, queue.receive(1)]


@fact([["a1"], ["b1"]], "test_fifo_high_throughput_ordering")
def with_scope_message_group_another_group_may_use_the_same_id(queues: Queues) -> list[list[str]]:
    return _same_id_in_two_groups(queues.fifo())


@fact([["a1"], []], "test_sqs_fifo_same_dedup_id_different_message_groups", EMULATORS)
def with_scope_queue_no_other_group_may_use_the_same_id(queues: Queues) -> list[list[str]]:
    return _same_id_in_two_groups(queues.fifo(is_high_throughput=False))


def _same_id_in_two_groups(queue: Queue) -> list[list[str]]:
    queue.send("a1", deduplication_id="same")
    first = queue.receive()
    queue.delete("a1")
    queue.send("b1", deduplication_id="same")
    return [first, queue.receive()]
