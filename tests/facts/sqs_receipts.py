"""How long a receipt is good for, and for which time it hides the message."""

from typing import Any

from tests.facts.fact import EMULATORS, PORTS, Facts
from tests.facts.queues import Queues

fact = Facts("Receipts and visibility in SQS", "sqs/test_sqs.py", PORTS)


@fact("refused", "test_fifo_delete_after_visibility_timeout")
def a_fifo_queue_refuses_a_delete_after_the_visibility_timeout(queues: Queues) -> str:
    return "refused" if _late_delete(queues) else "accepted"


@fact(
    "InvalidParameterValue: Value <receipt> for parameter ReceiptHandle is invalid."
    " Reason: The receipt handle has expired.",
    "test_fifo_delete_message_with_expired_receipt_handle",
    EMULATORS,
)
def the_error_of_that_delete(queues: Queues) -> str:
    return _late_delete(queues)


def _late_delete(queues: Queues) -> str:
    queue = queues.fifo(visibility=1)
    queue.send_all("a1")
    queue.receive()
    queue.wait(1.5)
    return queue.delete("a1")


@fact(["", []], "test_fifo_delete_after_visibility_timeout_extended")
def hiding_a_message_longer_keeps_its_receipt_good(queues: Queues) -> list[Any]:
    queue = queues.fifo(visibility=2)
    queue.send_all("a1")
    queue.receive()
    queue.hide("a1", 20)
    queue.wait(3)
    return [queue.delete("a1"), queue.receive()]


@fact(["", []], "test_delete_after_visibility_timeout")
def a_standard_queue_deletes_by_a_receipt_whose_visibility_timeout_passed(queues: Queues) -> list[Any]:
    queue = queues.standard(visibility=1)
    queue.send_all("a1")
    queue.receive()
    queue.wait(1.5)
    return [queue.delete("a1"), queue.receive()]


@fact("", "test_change_message_visibility_after_visibility_timeout_expiration")
def a_standard_queue_accepts_hiding_by_a_receipt_whose_visibility_timeout_passed(queues: Queues) -> str:
    queue = queues.standard(visibility=1)
    queue.send_all("a1")
    queue.receive()
    queue.wait(2)
    return queue.hide("a1", 2)


@fact([["a1"], []], "test_change_message_visibility_not_permanent")
def the_receive_after_a_changed_visibility_hides_as_long_as_the_queue_says(queues: Queues) -> list[list[str]]:
    queue = queues.standard()
    queue.send_all("a1")
    queue.receive()
    queue.hide("a1", 0)
    return [queue.receive(), queue.receive()]


@fact(["a1"], "test_terminate_visibility_timeout_after_receive")
def the_receipt_of_an_earlier_receive_still_shows_the_message_of_a_standard_queue(queues: Queues) -> list[str]:
    queue = queues.standard()
    queue.send_all("a1")
    queue.receive()
    queue.hide("a1", 0)
    queue.receive()
    queue.hide("a1", 0, nth_receive=0)
    return queue.receive()


@fact(
    "InvalidParameterValue: Value <receipt> for parameter ReceiptHandle is invalid."
    " Reason: Message does not exist or is not available for visibility timeout change.",
    "test_change_visibility_on_deleted_message_raises_invalid_parameter_value",
    EMULATORS,
)
def the_error_of_hiding_a_deleted_message(queues: Queues) -> str:
    queue = queues.standard()
    queue.send_all("a1")
    queue.receive()
    queue.delete("a1")
    return queue.hide("a1", 42)


@fact("new", "test_fifo_message_attributes")
def the_receipt_of_a_further_receive(queues: Queues) -> str:
    queue = queues.fifo()
    queue.send_all("a1")
    queue.receive(hidden_seconds=0)
    queue.receive()
    first, second = queue.receipts["a1"]
    return "the same" if first == second else "new"


@fact(
    "InvalidParameterValue: Value 2 for parameter DelaySeconds is invalid."
    " Reason: The request include parameter that is not valid for this queue type.",
    "test_fifo_queue_send_message_with_delay_seconds_fails",
    EMULATORS,
)
def the_error_of_delaying_one_message_of_a_fifo_queue(queues: Queues) -> str:
    return queues.fifo().send("a1", DelaySeconds=2)
