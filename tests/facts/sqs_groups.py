"""Which messages a FIFO queue's groups give while some of theirs are hidden or deleted."""

from tests.facts.fact import PORTS, Facts
from tests.facts.queues import Queues

fact = Facts("Message groups of an SQS FIFO queue", "sqs/test_sqs.py", PORTS)


@fact(["a1", "a2", "a3", "b1"], "test_fifo_receive_message_group_id_ordering")
def a_receive_takes_all_of_one_group_before_the_next(queues: Queues) -> list[str]:
    queue = queues.fifo()
    queue.send_all("a1", "b1", "a2", "a3")
    return queue.receive()


@fact([["a1", "a2"], ["b1"]], "test_fifo_receive_message_visibility_timeout_shared_in_group")
def messages_in_flight_hide_the_rest_of_their_group(queues: Queues) -> list[list[str]]:
    queue = queues.fifo()
    queue.send_all("a1", "a2", "a3", "b1")
    return [queue.receive(2), queue.receive()]


@fact(["c1", "a1", "a2", "a3", "a4", "b1"], "test_fifo_receive_message_visibility_timeout_shared_in_group")
def groups_whose_visibility_timeout_passed_come_back_in_order_behind_those_that_waited(queues: Queues) -> list[str]:
    queue = queues.fifo(visibility=2)
    queue.send_all("a1", "a2", "a3", "a4", "b1", "c1")
    queue.receive(2)
    queue.receive(1)
    queue.wait(3)
    return queue.receive(hidden_seconds=0)


@fact([["a1", "a2", "b1"], ["c1", "a1", "a2", "b1", "b2"]], "test_fifo_receive_message_with_zero_visibility_timeout")
def a_receive_that_hides_for_no_time_sends_its_groups_behind_those_that_waited(queues: Queues) -> list[list[str]]:
    queue = queues.fifo()
    queue.send_all("a1", "b1", "b2", "c1", "a2")
    return [queue.receive(3, hidden_seconds=0), queue.receive(hidden_seconds=0)]


@fact([["a1"], [], ["a2"]], "test_fifo_message_group_visibility")
def a_message_sent_behind_one_in_flight_comes_after_its_delete(queues: Queues) -> list[list[str]]:
    queue = queues.fifo()
    queue.send_all("a1")
    first = queue.receive()
    queue.send_all("a2")
    second = queue.receive()
    queue.delete("a1")
    return [first, second, queue.receive()]


@fact([["a1", "a2", "a3"], ["a1", "a2", "a3"]], "test_fifo_messages_in_order_after_timeout")
def a_group_comes_in_the_same_order_after_its_visibility_timeout(queues: Queues) -> list[list[str]]:
    queue = queues.fifo(visibility=2)
    queue.send_all("a1", "a2", "a3")
    first = queue.receive()
    queue.wait(3)
    return [first, queue.receive()]


@fact(["b1", "a1"], "test_fifo_message_group_visibility_after_terminate_visibility_timeout")
def a_head_that_is_shown_again_comes_without_the_hidden_rest_of_its_group(queues: Queues) -> list[str]:
    queue = queues.fifo()
    queue.send_all("a1", "a2", "b1")
    queue.receive(2)
    queue.hide("a1", 0)
    return queue.receive(3)


@fact(["b1", "a1"], "test_fifo_message_group_visibility_after_change_message_visibility")
def a_head_hidden_for_a_second_comes_then_without_the_hidden_rest_of_its_group(queues: Queues) -> list[str]:
    queue = queues.fifo()
    queue.send_all("a1", "a2", "b1")
    queue.receive(2)
    queue.hide("a1", 1)
    queue.wait(2)
    return queue.receive(3)


@fact([], "test_fifo_group_visibility_extends_with_change_message_visibility[0-visible]")
def while_its_head_stays_hidden_a_group_gives_nothing(queues: Queues) -> list[str]:
    return _after_hiding_longer("a1", queues)


@fact(["a1"], "test_fifo_group_visibility_extends_with_change_message_visibility[1-visible]")
def while_its_second_message_stays_hidden_a_group_gives_its_head(queues: Queues) -> list[str]:
    return _after_hiding_longer("a2", queues)


@fact(["a1", "a2"], "test_fifo_group_visibility_extends_with_change_message_visibility[2-visible]")
def while_its_last_message_stays_hidden_a_group_gives_those_before(queues: Queues) -> list[str]:
    return _after_hiding_longer("a3", queues)


def _after_hiding_longer(body: str, queues: Queues) -> list[str]:
    queue = queues.fifo(visibility=2)
    queue.send_all("a1", "a2", "a3")
    queue.receive()
    queue.hide(body, 20)
    queue.wait(3)
    return queue.receive()


@fact(["b1", "b2", "a3", "a4", "c1"], "test_fifo_message_group_visibility_after_delete")
def a_group_whose_messages_in_flight_are_deleted_comes_by_the_age_of_its_next(queues: Queues) -> list[str]:
    queue = queues.fifo()
    queue.send_all("a1", "b1", "a2", "b2", "a2", "a3", "a4", "c1")
    for body in queue.receive(2):
        queue.delete(body)
    return queue.receive()


@fact(["b1", "b2", "c1"], "test_fifo_message_group_visibility_after_partial_delete")
def a_group_stays_hidden_until_all_of_it_in_flight_is_deleted(queues: Queues) -> list[str]:
    queue = queues.fifo()
    queue.send_all("a1", "b1", "a2", "b2", "a2", "a3", "a4", "c1")
    queue.receive(2)
    queue.delete("a1")
    return queue.receive()


@fact([["a1"], ["a2"]], "test_dead_letter_queue_with_fifo_and_content_based_deduplication")
def a_message_received_too_often_is_a_dead_letter_at_the_next_receive_and_its_group_goes_on(
    queues: Queues,
) -> list[list[str]]:
    queue = queues.fifo(visibility=60, max_receives=2)
    queue.send_all("a1")
    queue.receive(hidden_seconds=0)
    queue.receive(hidden_seconds=0)
    queue.wait(1.2)  # for the embedded MiniStack, which looks once a second
    queue.receive(hidden_seconds=0)
    dead = queue.dead_letters()
    queue.send_all("a2")
    return [dead, queue.receive()]
