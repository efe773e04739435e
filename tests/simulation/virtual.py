"""Virtual time: processes are greenlets that run one at a time; time jumps to the next due event."""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

from greenlet import getcurrent, greenlet


class DiedError(BaseException):
    """The process was killed; code under test must not catch it."""


class Process:
    """One thread of one machine. It is dead as soon as it is killed, whatever it was about to do."""

    def __init__(self, timeline: "Timeline", name: str, body: Callable[[], None], outcome: Callable[[], None]) -> None:
        self.name = name
        self.is_dead = False
        #: how many messages led to it, each sent by the handler of the one before; 0 for a call of the API
        self.depth = 0
        #: its own chance, so that leaving another process out of a plan changes nothing here
        self.random = Random(f"{timeline.seed}/{name}")
        self._timeline = timeline
        self._body = body
        self._ended = outcome
        self._greenlet = greenlet(self._run, parent=timeline.hub)

    @property
    def machine(self) -> str:
        return self.name.split(":")[0]

    @property
    def is_alive(self) -> bool:
        return not self.is_dead and not self._greenlet.dead

    def wake(self) -> None:
        """Runs it until it waits again; only the timeline calls this."""
        if not self.is_dead:
            self._switch()

    def kill(self) -> None:
        if not self.is_alive:
            return
        self.is_dead = True
        if self._greenlet is getcurrent():
            raise DiedError
        self._timeline.at(self._timeline.now, self._switch)

    def wait(self, milliseconds: int) -> None:
        self._timeline.at(self._timeline.now + max(0, milliseconds), self.wake)
        self._timeline.hub.switch()
        if self.is_dead:
            raise DiedError

    def _switch(self) -> None:
        if self._greenlet.dead:
            return
        before, self._timeline.current = self._timeline.current, self
        self._greenlet.switch()
        self._timeline.current = before

    def _run(self) -> None:
        try:
            if not self.is_dead:
                self._body()
        except DiedError:
            pass
        finally:
            self._ended()


class Timeline:
    def __init__(self, seed: int, now: int) -> None:
        self.seed = seed
        #: true time, epoch ms
        self.now = now
        self.current: Process | None = None
        self.hub = getcurrent()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._processes: list[Process] = []

    def at(self, when: int, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), happens))

    def spawn(self, name: str, body: Callable[[], None], outcome: Callable[[], None] = lambda: None) -> Process:
        process = Process(self, name, body, outcome)
        self._processes.append(process)
        self.at(self.now, process.wake)
        return process

    def run_next(self, until: int) -> bool:
        """Does the next thing that happens before that time; False when there is none."""
        if not self._events or self._events[0][0] >= until:
            return False
        self.now, _, happens = heapq.heappop(self._events)
        happens()
        return True

    def close(self) -> None:
        """Ends what still waits, so that nothing outlives the world."""
        for process in self._processes:
            process.kill()
        self._events = [event for event in self._events if event[0] <= self.now]
        while self.run_next(self.now + 1):
            pass


class MachineClock:
    """A machine's own clock: off by some, and it may step; sleeping takes true time."""

    def __init__(self, timeline: Timeline, offset_ms: int) -> None:
        self._timeline = timeline
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        return self._timeline.now + self.offset_ms

    def sleep(self, milliseconds: int) -> bool:
        self._process().wait(milliseconds)
        return False

    def sleep_until(self, at: int) -> None:
        """As the system's clock does it: also over once so much time went by as there was to wait at first."""
        patience = self._timeline.now + max(0, at - self.now_ms())
        while (left := min(at - self.now_ms(), patience - self._timeline.now)) > 0:
            self._process().wait(left)

    def _process(self) -> Process:
        assert self._timeline.current is not None
        return self._timeline.current
