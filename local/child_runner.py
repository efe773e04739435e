"""Runs own tasks in child processes: a task's crash, time-out or memory ends its own child and no other task.

Children are forked by `local/fork_server.py` on demand and reused. The worker runs built-in tasks itself, unless
DEADLINE is below 35 s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chalicelib.tasks.registry import TaskDefinition
from chalicelib.tasks.runner import InProcess, Room
from local.children import Child, ForkServerClient

#: Largest number of children of one worker: own tasks that it runs at once.
MAX_CHILDREN = 200
#: Children that wait for a next task; the others end with theirs.
MAX_IDLE = 20
#: Seconds that a task waits for a child before its message is deferred.
ROOM_SECONDS = 1.2
#: Shortest deadline in milliseconds with which a built-in task runs in the worker: from there on each call of `http`
#: ends 5 s before the deadline.
_BUILT_IN_DEADLINE_MS = 35_000


class ChildRunner:
    """Gives each own task a child process of its own while it runs. Implements TaskRunner."""

    def __init__(self, server: ForkServerClient, most: int = MAX_CHILDREN, room_seconds: float = ROOM_SECONDS) -> None:
        self._server = server
        self._most = most
        self._room_seconds = room_seconds
        self._here = InProcess()
        #: notified when a child becomes free, and when one ends
        self._freed = threading.Condition()
        self._idle: list[Child] = []
        #: children, those that are being started included
        self._count = 0

    @contextmanager
    def room(self, definition: TaskDefinition, deadline_ms: int) -> Iterator[Room | None]:
        if definition.is_built_in and deadline_ms >= _BUILT_IN_DEADLINE_MS:
            yield self._here
            return
        child = self._take()
        try:
            yield child
        finally:
            if child is not None:
                self._give_back(child)

    def end_idle(self) -> None:
        """Ends the children that wait for a task."""
        with self._freed:
            idle, self._idle = self._idle, []
        for child in idle:
            self._drop(child)

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that wait for a task."""
        with self._freed:
            return [child.pid for child in self._idle]

    @property
    def children(self) -> int:
        """Children that run or wait for a task."""
        return self._count

    def _take(self) -> Child | None:
        """Reserves an idle or a new child; None if there are too many."""
        while True:
            with self._freed:
                has_room = lambda: self._idle or self._count < self._most  # noqa: E731
                if not self._freed.wait_for(has_room, self._room_seconds):
                    return None
                child = self._idle.pop() if self._idle else None
                self._count += child is None
            if child is None:
                return self._start()
            if child.is_alive():
                return child
            self._drop(child)

    def _start(self) -> Child | None:
        child = None
        try:
            child = self._server.fork()
        finally:
            if child is None:
                self._forget_one()
        return child

    def _give_back(self, child: Child) -> None:
        with self._freed:
            if not child.is_spent and len(self._idle) < MAX_IDLE:
                self._idle.append(child)
                self._freed.notify()
                return
        self._drop(child)

    def _drop(self, child: Child) -> None:
        try:
            child.end()
        finally:
            self._forget_one()

    def _forget_one(self) -> None:
        with self._freed:
            self._count -= 1
            self._freed.notify()
