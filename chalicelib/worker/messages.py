"""Messages as the worker gets them, and what it says of them to their queue."""

from msgspec import Struct

from chalicelib.core.errors import MessageError
from chalicelib.core.lane import Lane
from chalicelib.core.task import Task


class Delivery(Struct, frozen=True):
    """A message as the queue delivered it."""

    body: str
    receipt: str
    #: its message group: the user, or a forwarded task's own group
    user_id: str
    message_id: str
    #: epoch ms
    sent_at: int
    #: how often SQS delivered it, this time included
    receives: int = 1


class Done(Struct, frozen=True):
    """The message is to be deleted."""


class Deferred(Struct, frozen=True):
    """The message stays in the queue, hidden until shortly before `until`, epoch ms."""

    until: int
    #: lane version the wait was based on; None if no change of the lane can shorten it
    lane: Lane | None = None
    #: the wait is for a slot of the lane
    is_for_slot: bool = False
    #: the wait for a shared limit may be over at any time, since it is for a task to end, or for it to open
    is_for_shared: bool = False


Handled = Done | Deferred


def task_of(delivery: Delivery) -> Task:
    """The task in the message. MessageError if there is none, or its group is another's."""
    task = Task.from_message(delivery.body)
    if delivery.user_id not in (task.user_id, task.own_group):
        raise MessageError(f"the message names user {task.user_id!r} in the lane of {delivery.user_id!r}")
    return task
