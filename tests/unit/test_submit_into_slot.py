"""A task that may start beside others is sent to a group of its own, so that its message is handled once."""

import pytest

from chalicelib.core.task import Task
from chalicelib.submit.submission import Submission, TaskRequest
from tests.factories import task_id_of
from tests.unit.workshop import Workshop


def groups(shop: Workshop, *tasks: Task) -> list[str]:
    """Where each task's message is: in the user's lane or in its own group."""
    names = {task.own_group: "own" for task in tasks} | {task.user_id: "lane" for task in tasks}
    found = list[str]()
    while messages := shop.queue.receive():
        found += [names[message.user_id] for message in messages]
    return found


@pytest.mark.parametrize(("limits", "group"), [("5/second; 2 at once", "own"), ("5/second", "lane")])
def test_a_task_that_may_start_now_needs_no_forwarding_where_several_run_at_once(limits: str, group: str) -> None:
    shop = Workshop(LIMITS=limits)
    assert groups(shop, shop.submit()) == [group]


def test_each_task_takes_one_message_while_slots_are_free() -> None:
    shop, handled = Workshop(LIMITS="5/second; 2 at once"), []
    for _ in range(3):
        shop.submit()
        shop.run()
        handled.append(len(shop.handled))
    assert handled == [1, 2, 3]
    assert len(shop.events) == 3


def test_a_task_over_the_limit_waits_in_its_lane() -> None:
    shop = Workshop(LIMITS="1/second; 2 at once")
    shop.submit()
    shop.run()
    assert groups(shop, shop.submit()) == ["lane"]


def test_a_task_behind_one_that_waits_keeps_its_place_in_the_lane() -> None:
    shop = Workshop(LIMITS="5/second; 2 at once")
    tasks = [shop.submit(), shop.submit()]
    assert sorted(groups(shop, *tasks)) == ["lane", "own"]


def test_a_task_waits_in_its_lane_while_all_slots_are_taken() -> None:
    shop, found = Workshop(LIMITS="5/second; 2 at once"), list[str]()

    def call(payload: object) -> None:
        if payload == "first":
            shop.submit(payload="second", name="call")
            shop.handle_next()
        else:
            found.extend(groups(shop, shop.submit()))

    shop.register("call", call)
    shop.submit(payload="first", name="call")
    shop.run()
    assert found == ["lane"]


def test_a_task_of_a_paused_lane_waits_in_it() -> None:
    shop = Workshop(LIMITS="5/second; 2 at once")
    shop.control.pause("ann", None)
    assert groups(shop, shop.submit()) == ["lane"]


def test_a_repeat_of_a_submit_whose_first_try_may_have_sent_the_message_is_sent_to_the_lane() -> None:
    shop = Workshop(LIMITS="5/second; 2 at once")
    submission = Submission("ann", (TaskRequest("log", None),), shop.clock.now_ms())
    shop.queue.fail("forward", after=True)
    with pytest.raises(Exception, match="AWS is away"):
        shop.submitter.submit(submission, [task_id_of(1)])
    shop.submitter.submit(submission, [task_id_of(1)], is_repeat=True)
    shop.run()
    assert len(shop.events) == 1
