"""Virtual time: processes are threads of which one runs at a time; time jumps to the next event."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count


class ProcessEndedError(BaseException):
    """Ends a process as a kill would; the code that it runs must not catch it."""


class _Process:
    """One thread; it runs until it waits or ends, and then hands back to the timeline."""

    def __init__(self, timeline: Timeline, body: Callable[[], None]) -> None:
        self._timeline = timeline
        self._body = body
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def go_on(self) -> None:
        """Runs it until it waits or ends, and raises what it raised; only the timeline calls this."""
        before, self._timeline.current = self._timeline.current, self
        if not self._thread.ident:
            self._thread.start()
        self._turn.release()
        self._done.acquire()
        self._timeline.current = before
        if self._error is not None:
            raise self._error

    def wait_until(self, at: int) -> None:
        self._timeline.at(at, self.go_on)
        self._done.release()
        self._turn.acquire()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._body()
        except ProcessEndedError:
            pass
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self._error = error
        finally:
            self._done.release()


class Timeline:
    """The events to come. Implements Clock: who sleeps in a process lets the others go on meanwhile."""

    def __init__(self, now: int) -> None:
        #: epoch ms
        self.now = now
        self.current: _Process | None = None
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    @property
    def next_at(self) -> int | None:
        """When the next event is, epoch ms; None without one."""
        return self._events[0][0] if self._events else None

    def at(self, when: int, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), happens))

    def spawn(self, body: Callable[[], None]) -> None:
        """Runs the body in a process of its own, from now on."""
        self.at(self.now, _Process(self, body).go_on)

    def run_due(self) -> None:
        """Does everything that is due by now."""
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    def now_ms(self) -> int:
        return self.now

    def sleep(self, milliseconds: int) -> bool:
        self.sleep_until(self.now + milliseconds)
        return False

    def sleep_until(self, at: int) -> None:
        if self.current is None:
            raise RuntimeError("only a running task can sleep; a test calls `advance`")
        self.current.wait_until(at)
