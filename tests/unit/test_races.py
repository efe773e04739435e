import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from chalicelib.core.admission import Admission
from chalicelib.core.contention import PerUserLock, RetryWithJitter
from chalicelib.submit.submitter import Submitter
from tests.factories import NOW
from tests.unit.workshop import Workshop


@contextmanager
def counted(inside: list[int], most: list[int]) -> Iterator[None]:
    inside[0] += 1
    most[0] = max(most[0], inside[0])
    try:
        yield
    finally:
        inside[0] -= 1


def test_submits_of_one_user_take_turns() -> None:
    turns, inside, most = PerUserLock(), [0], [0]

    def submit(_: int) -> None:
        with turns.lock("ann"), counted(inside, most):
            threading.Event().wait(0.001)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(submit, range(64)))
    assert most == [1]
    assert turns._waiting == {}


def test_parked_task_that_is_due_gets_its_place_in_its_users_turn() -> None:
    shop, admitted = Workshop(), list[tuple[str, int]]()

    @contextmanager
    def turn(user_id: str) -> Iterator[None]:
        admitted.append((user_id, shop.lanes.get(user_id).admitted))
        yield
        admitted.append((user_id, shop.lanes.get(user_id).admitted))

    races = RetryWithJitter(shop.clock, lambda: 0.5)
    submitter = Submitter(shop.lanes, shop.tasks, shop.queue, races, shop.settings, turn)
    reserved = submitter.reserve("ann", "t1", NOW)
    assert isinstance(reserved, Admission)
    assert (reserved.first_seq, reserved.planned) == (1, (NOW,))
    assert admitted == [("ann", 0), ("ann", 1)]


def test_turn_of_one_user_holds_up_no_other() -> None:
    turns = PerUserLock()
    with turns.lock("ann"):
        other = threading.Thread(target=lambda: turns.lock("bob").__enter__())
        other.start()
        other.join(5)
        assert not other.is_alive()


def test_turn_that_ends_in_an_error_is_given_on() -> None:
    turns = PerUserLock()
    for _ in range(2):
        try:
            with turns.lock("ann"):
                raise RuntimeError
        except RuntimeError:
            pass
    assert turns._waiting == {}
