"""The queue of the tests and the simulator, beyond the behaviours that tests/facts plays over it."""

from tests.factories import VirtualClock, make_task
from tests.memory.task_queue import MemoryTaskQueue, Message


class Bench:
    """A queue whose messages are called by their bodies."""

    def __init__(self, *bodies: str, visibility_ms: int = 30_000, max_receives: int = 1_000) -> None:
        self.clock = VirtualClock()
        self.queue = MemoryTaskQueue(self.clock.now_ms, visibility_ms=visibility_ms, max_receives=max_receives)
        self.held: dict[str, Message] = {}
        for body in bodies:
            self.send(body)

    def send(self, body: str) -> None:
        """`a1` is sent to group a."""
        self.queue.send_body(body[0], body, body)

    def receive(self, most: int = 10) -> list[str]:
        received = self.queue.receive(most)
        self.held |= {message.body: message for message in received}
        return [message.body for message in received]

    def delete(self, *bodies: str) -> list[bool]:
        return [self.queue.delete(self.held[body].receipt) for body in bodies]

    def hide(self, body: str, seconds: int) -> None:
        self.queue.defer(self.held[body].receipt, seconds)

    def wait(self, seconds: float) -> None:
        self.clock.advance(round(seconds * 1_000))


def test_message_in_flight_holds_what_is_sent_to_its_group_later() -> None:
    bench = Bench("a1")
    bench.receive()
    bench.send("a2")
    bench.send("b1")
    assert bench.receive() == ["b1"]
    bench.delete("a1")
    assert bench.receive() == ["a2"]


def test_deferral_of_one_group_delays_no_other() -> None:
    bench = Bench("a1", "b1")
    bench.receive()
    bench.hide("a1", 6)
    bench.hide("b1", 1)
    bench.wait(1)
    assert bench.receive() == ["b1"]


def test_message_that_nobody_deleted_comes_back_after_the_visibility_time_and_counts() -> None:
    bench = Bench("a1")
    assert bench.receive() == ["a1"]
    bench.wait(29.999)
    assert bench.receive() == []
    bench.wait(0.001)
    assert bench.receive() == ["a1"]
    assert bench.held["a1"].receives == 2


def test_receipt_is_good_while_its_own_receive_hides_the_message() -> None:
    bench = Bench("a1")
    bench.receive()
    old = bench.held["a1"].receipt
    bench.wait(30)
    assert bench.queue.delete(old) is False
    bench.receive()
    assert bench.queue.delete(old) is False
    bench.queue.defer(old, 600)
    assert bench.delete("a1") == [True]
    assert bench.delete("a1") == [False]
    assert len(bench.queue) == 0


def test_longer_visibility_keeps_the_receipt_good() -> None:
    bench = Bench("a1")
    bench.receive()
    bench.hide("a1", 600)
    bench.wait(599)
    assert bench.delete("a1") == [True]


def test_message_is_hidden_for_12_hours_after_its_receive_at_most() -> None:
    bench = Bench("a1")
    bench.receive()
    bench.wait(10)
    bench.hide("a1", 43_200)
    bench.wait(20)
    assert bench.receive() == ["a1"]
    bench.hide("a1", 43_200)
    bench.wait(43_199)
    assert bench.receive() == []


def test_repeated_send_changes_nothing_for_5_minutes_whether_deleted_or_not() -> None:
    bench = Bench("a1")
    bench.receive()
    bench.delete("a1")
    bench.wait(299.999)
    bench.send("a1")
    assert bench.receive() == []
    bench.wait(0.001)
    bench.send("a1")
    assert bench.receive() == ["a1"]


def test_duplicates_are_looked_for_within_the_group() -> None:
    bench = Bench()
    for user in ("ann", "bob"):
        bench.queue.send(make_task(1, user))
        bench.queue.send(make_task(1, user))
    assert len(bench.receive()) == 2


def test_message_that_was_received_too_often_becomes_a_dead_letter_and_its_group_goes_on() -> None:
    bench = Bench("a1", "a2", max_receives=3)
    for _ in range(3):
        assert bench.receive(1) == ["a1"]
        bench.hide("a1", 0)
    assert bench.receive(1) == ["a2"]
    assert [letter.body for letter in bench.queue.dead_letters] == ["a1"]


def test_message_older_than_the_retention_is_gone() -> None:
    bench = Bench("a1")
    bench.wait(14 * 86_400)
    assert bench.receive() == []
    assert bench.queue.next_available_at() is None


def test_queue_says_when_it_next_has_something_to_give() -> None:
    bench = Bench("a1", "b1", "a2")
    assert bench.queue.next_available_at() == bench.clock.now_ms()
    bench.receive()
    bench.hide("b1", 7)
    assert bench.queue.next_available_at() == bench.clock.now_ms() + 7_000
