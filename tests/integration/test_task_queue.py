from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.task import Task
from tests.factories import NOW, make_task
from tests.integration.ports import Ports


def task_of(seq: int, user: str, **changed: Any) -> Task:
    """A task whose id no other test has: moto takes one that another user's message had for a duplicate."""
    return make_task(seq, user, task_id=f"0198-{user}-{seq}", **changed)


def bodies(received: list[tuple[str, str]]) -> list[str]:
    return [body for body, _ in received]


def test_messages_of_a_lane_come_in_order(ports: Ports, user: str) -> None:
    tasks = [task_of(seq, user, payload="Grüße\n😀") for seq in (1, 2, 3)]
    for task in tasks:
        ports.queue.send(task)
    assert bodies(ports.receive(user)) == [task.to_message() for task in tasks]


def test_deferred_message_comes_back_at_its_time(ports: Ports, user: str) -> None:
    ports.queue.send(task_of(1, user))
    [(body, receipt)] = ports.receive(user)
    assert ports.queue.defer(receipt, 1)
    assert ports.receive(user) == []
    ports.wait(1)
    assert bodies(ports.receive(user)) == [body]


def test_message_given_back_for_no_time_comes_back_at_once(ports: Ports, user: str) -> None:
    ports.queue.send(task_of(1, user))
    [(body, receipt)] = ports.receive(user)
    ports.queue.defer(receipt, 0)
    assert bodies(ports.receive(user)) == [body]


def test_deferred_message_holds_the_rest_of_its_lane_and_no_other(ports: Ports, user: str) -> None:
    ports.queue.send(task_of(1, user))
    [(first, receipt)] = ports.receive(user)
    ports.queue.send(task_of(2, user))
    other = f"{user}-2"
    ports.queue.send(task_of(1, other))
    ports.queue.defer(receipt, 2)
    assert len(ports.receive(other)) == 1
    assert ports.receive(user) == []
    ports.wait(2)
    assert bodies(ports.receive(user))[0] == first


def test_deferring_a_message_that_is_gone_does_nothing(ports: Ports, user: str) -> None:
    ports.queue.send(task_of(1, user))
    [(_, receipt)] = ports.receive(user)
    ports.delete(receipt)
    ports.queue.defer(receipt, 5)
    assert not ports.queue.defer("no receipt at all", 5)


def test_forwarded_message_comes_beside_its_lane_and_once(ports: Ports, user: str) -> None:
    task = task_of(1, user)
    ports.queue.send(task)
    [(body, _)] = ports.receive(user)
    ports.queue.forward(task, NOW)
    if not ports.forgets_duplicates:
        ports.queue.forward(task, NOW + 100_000)
    [(forwarded, receipt)] = ports.receive(task.own_group)
    assert forwarded == body
    ports.delete(receipt)
    ports.queue.forward(replace(task, is_repeat=True), NOW + 100_000)
    assert len(ports.receive(task.own_group)) == 1


def test_a_group_of_its_own_is_no_other_task_s_and_fits_in_sqs() -> None:
    tasks = [make_task(seq, user) for seq in (1, 11) for user in ("ann", "ann 1", "a" * 128)]
    assert len({task.own_group for task in tasks}) == len(tasks)
    assert all(task.own_group.isascii() and len(task.own_group) <= 128 for task in tasks)


def test_dead_letter_keeps_body_and_reason(ports: Ports, user: str) -> None:
    ports.queue.send_dead(user, f"{user}-1", "{not json", "ValueError: no\nreally")
    ports.queue.send_dead(user, f"{user}-2", "{}", "")
    letters = dict(ports.dead_letters(user))
    assert letters["{not json"] == "ValueError: no\nreally"
    assert "{}" in letters


def test_very_long_reason_does_no_harm(ports: Ports, user: str) -> None:
    ports.queue.send_dead(user, f"{user}-1", "{}", "x" * 300_000)
    [(_, reason)] = ports.dead_letters(user)
    assert 100 <= len(reason) <= 300_000


def test_many_tasks_are_sent_in_order_however_large(ports: Ports, user: str) -> None:
    tasks = [task_of(seq, user, payload="x" * 60_000) for seq in range(1, 26)]
    ports.queue.send_many(tasks)
    received: list[str] = []
    while found := ports.receive(user):
        for body, receipt in found:
            received.append(body)
            ports.delete(receipt)
    assert received == [task.to_message() for task in tasks]


def test_task_sent_again_is_one_message(ports: Ports, user: str) -> None:
    if ports.forgets_duplicates:
        pytest.skip("moto does not keep a duplicate out")
    ports.queue.send(task_of(1, user))
    ports.queue.send_many([task_of(1, user), task_of(2, user)])
    assert len(ports.receive(user)) == 2


def test_same_task_id_of_another_user_is_another_message(ports: Ports, user: str) -> None:
    if ports.forgets_duplicates:
        pytest.skip("moto looks for duplicates in the whole queue")
    ports.queue.send(make_task(1, user))
    ports.queue.send(make_task(1, f"{user}-2"))
    assert len(ports.receive(f"{user}-2")) == 1
