"""How a shared limit fares that a thousand lanes want at once, in virtual time: the real turns over stores in memory.

Each lane has a message in a queue and a worker that is free for it. A store's call takes 3 to 8 ms. A message comes
back by whole seconds, and one wake-up in twenty is late by up to a second. A stub of one item that refuses further
writes shows how many starts a shared limit carries.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from msgspec.structs import replace

from bench.figures import Results
from chalicelib.core.claim import SharedStart, Start
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lane
from chalicelib.core.ports import SharedStale
from chalicelib.core.task import Task
from chalicelib.core.visibility import MAX_SLEEP_MS, again_seconds
from chalicelib.settings import Settings
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.steps import LEAD_MS, Facts, ReadLane, WaitUntil
from paceline.testing.memory.shared_limits import MemorySharedLimitStore
from paceline.testing.memory.stores import MemoryLaneStore
from tests.simulation.virtual import MachineClock, Timeline

NOW = 1_795_000_000_000
NAME = "api"
#: Milliseconds that a call of a store takes, at least and at most.
CALL_MS = (3, 8)
#: Milliseconds from one task's end until the next one's message is handled.
NEXT_MS = (5, 40)
#: Share of the wake-ups that are late, and milliseconds of the latest.
LATE_SHARE, LATEST_MS = 0.05, 1_000
#: Write units that DynamoDB takes of one item a second, and bytes of a unit.
ITEM_UNITS, UNIT_BYTES = 1_000, 1_024
#: Bytes of an item without its starts, about, and of each start.
OTHER_BYTES, START_BYTES = 300, 9
#: Seconds at the beginning that are not measured: all lanes come at once.
FIRST_SECONDS = 10


def measure(*, quick: bool) -> Results:
    results = Results()
    kinds = ((30, 5, 30),) if quick else ((1_000, 100, 70), (1_000, 10, 330), (50, 5, 120))
    for lanes, rate, seconds in kinds:
        print(f"{lanes} lanes want {rate} a second", flush=True)
        _add(results, f"{lanes} lanes, {rate} a second", Model(f"{NAME}: {rate}/second", lanes, seconds).run(), rate)
    if not quick:
        busy = Model(f"{NAME}: 100/second", 300, 20, units_a_second=ITEM_UNITS).run()
        _add_busy(results, "300 lanes, 100 a second, as much as one item takes", busy, 100)
        sharded = Model(f"{NAME}: 1000/second", 1_000, 40, units_a_second=ITEM_UNITS).run()
        what = "1000 lanes, 1000 a second over shards"
        _add(results, what, sharded, 1_000)
        results.add(f"writes that the items refused, {what}", [sharded.throttled])
    free = Model(f"{NAME}: 100/second", 5, 60, pause_ms=500).run()
    results.add("calls for a shared limit a start, free", [free.calls_per_start(_WRITES)])
    return results


def _add(results: Results, what: str, model: Model, rate: int) -> None:
    results.add(f"share of the starts used, {what}", [model.share(rate)], at_least=0.99)
    late = model.late_ms()
    results.add(f"lateness of a start, median, {what}", [statistics.median(late)], "ms")
    results.add(f"lateness of a start, 99th percentile, {what}", [statistics.quantiles(late, n=100)[98]], "ms")
    results.add(f"largest difference of turns, {what}", [model.difference()])
    results.add(f"starts too many in a window, {what}", [model.over(rate)], at_most=0)
    results.add(f"writes of the shared limit a start, {what}", [model.calls_per_start(_WRITES)])
    results.add(f"of them refused, {what}", [model.refused / max(1, len(model.late_ms()))])
    results.add(f"reads of the shared limit a start, {what}", [model.calls_per_start(("get",))])
    results.add(f"further lane writes a start, {what}", [model.calls_per_start(("save_turn",))])


def _add_busy(results: Results, what: str, model: Model, rate: int) -> None:
    results.add(f"share of the starts used, {what}", [model.share(rate)])
    results.add(f"largest difference of turns, {what}", [model.difference()])
    results.add(f"starts too many in a window, {what}", [model.over(rate)], at_most=0)
    results.add(f"writes that the item refused a start, {what}", [model.throttled / max(1, len(model.late_ms()))])


_WRITES = ("try_claim", "claim", "ask", "add_waiter", "trim")


#: of one item, the shared limit's own
_ITEM_WRITES = ("try_claim", "claim", "ask", "trim")


class _Port:
    """A store whose calls take time and are counted."""

    def __init__(self, port: Any, model: Model) -> None:
        self._port = port
        self._model = model

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real = getattr(self._port, name)

        def call(*arguments: Any) -> Any:
            self._model.call()
            if name in _ITEM_WRITES:
                self._model.write_item(arguments[0] if isinstance(arguments[0], str) else arguments[0].name)
            answer = real(*arguments)
            self._model.called(name, answer)
            return answer

        return call


class Model:
    def __init__(
        self, shared: str, lanes: int, seconds: int, pause_ms: int = 0, units_a_second: int | None = None
    ) -> None:
        """pause_ms: between a lane's task and its next one, beside the usual time.

        units_a_second: write units of each item of the shared limit; DynamoDB refuses those beyond. None: any number.
        """
        self._units_a_second = units_a_second
        self._written = Counter[tuple[str, int]]()
        self.throttled = 0
        self._timeline = Timeline(7, NOW)
        self._random = Random(7)
        self._lanes_wanted, self._until, self._pause_ms = lanes, NOW + seconds * 1_000, pause_ms
        self._lanes = MemoryLaneStore()
        self.store = MemorySharedLimitStore()
        self.calls = Counter[str]()
        self.refused = 0
        #: time, lateness and user of each start, in the order of their claims
        self.starts: list[tuple[int, int, str]] = []
        clock, settings = MachineClock(self._timeline, 0), Settings.from_env({"SHARED_LIMITS": shared})
        ports: tuple[Any, Any, Any] = (_Port(self.store, self), _Port(self._lanes, self), _NoQueue())
        self._claims = [SharedClaims(*ports, clock, settings) for _ in range(20)]
        self._clock = clock

    def run(self) -> Model:
        for number in range(self._lanes_wanted):
            self._timeline.spawn(f"lane{number}", partial(self._lane, f"u{number}"))
        while self._timeline.run_next(self._until):
            pass
        self._timeline.close()
        return self

    def call(self) -> None:
        self._wait(self._random.randint(*CALL_MS))

    def write_item(self, item: str) -> None:
        now_ms = self._clock.now_ms()
        size = OTHER_BYTES + START_BYTES * len(self.store.get(item).starts)
        written = self._written[item, now_ms // 1_000] + -(-size // UNIT_BYTES)
        if self._units_a_second is not None and written > self._units_a_second:
            self.throttled += self._is_measured(now_ms)
            raise UnavailableError("the item is written too often")
        self._written[item, now_ms // 1_000] = written

    def called(self, name: str, answer: object) -> None:
        if not self._is_measured(self._clock.now_ms()):
            return
        self.calls[name] += 1
        self.refused += name in ("try_claim", "claim") and isinstance(answer, SharedStale)

    def _wait(self, milliseconds: int) -> None:
        if self._timeline.current is not None:
            self._timeline.current.wait(milliseconds)

    def _lane(self, user: str) -> None:
        self._wait(self._random.randint(0, 500))
        seq = 0
        while True:
            seq += 1
            self._task(Task(user, f"{user}-{seq}", seq, "call", None, 0, 0, shared=NAME))
            self._wait(self._random.randint(*NEXT_MS) + self._pause_ms)

    def _task(self, task: Task) -> None:
        receives, is_fresh = 1, False
        while True:
            now_ms, lane = self._clock.now_ms(), self._lanes.get(task.user_id)
            facts = Facts(lane, is_fresh, receives=receives)
            claims, token = self._random.choice(self._claims), f"{task.task_id}.{now_ms}"
            try:
                taken, _ = claims.take(task, Start(now_ms, 1, now_ms, lane), facts, token)
            except UnavailableError:  # as the worker does: the message is hidden
                self._wait(1_000 * again_seconds(receives) + self._random.randint(5, 30))
                receives, is_fresh = receives + 1, False
                continue
            if isinstance(taken, SharedStart):
                return self._started(task, taken)
            is_fresh = True
            if isinstance(taken, ReadLane):
                self.call()
            elif isinstance(taken, WaitUntil):
                receives += self._waited(taken)

    def _waited(self, step: WaitUntil) -> int:
        """Sleeps, or hides the message, which then may come late; 1 if it was hidden."""
        now_ms = self._clock.now_ms()
        if step.wake_at - now_ms <= MAX_SLEEP_MS:
            self._wait(step.wake_at - now_ms)
            return 0
        late_ms = self._random.randint(0, LATEST_MS) if self._random.random() < LATE_SHARE else 0
        self._wait((step.until - LEAD_MS - now_ms) // 1_000 * 1_000 + late_ms + self._random.randint(5, 30))
        return 1

    def _started(self, task: Task, taken: SharedStart) -> None:
        self._lanes.prepare(task.user_id, _without_turn)
        late_ms = max(0, taken.at - taken.allowed_at) if taken.allowed_at else 0
        self.starts.append((taken.at, late_ms, task.user_id))
        self._wait(max(0, taken.at - self._clock.now_ms()))

    # Figures, without the first seconds.

    def _measured(self) -> Sequence[tuple[int, int, str]]:
        return sorted(start for start in self.starts if self._is_measured(start[0]))

    def _is_measured(self, at: int) -> bool:
        return NOW + FIRST_SECONDS * 1_000 <= at < self._until - 1_000

    def share(self, rate: int) -> float:
        seconds = (self._until - 1_000 - NOW) / 1_000 - FIRST_SECONDS
        return len(self._measured()) / (rate * seconds)

    def late_ms(self) -> Sequence[int]:
        return [late for _, late, _ in self._measured()]

    def difference(self) -> int:
        """Between the lane with the most starts and that with the fewest."""
        counts = Counter({f"u{number}": 0 for number in range(self._lanes_wanted)})
        counts.update(user for _, _, user in self._measured())
        return max(counts.values()) - min(counts.values())

    def over(self, rate: int) -> int:
        times = sorted(at for at, _, _ in self.starts)
        return sum(later - earlier < 1_000 for earlier, later in zip(times, times[rate:], strict=False))

    def calls_per_start(self, names: Sequence[str]) -> float:
        return sum(self.calls[name] for name in names) / max(1, len(self._measured()))


class _NoQueue:
    """No lane is woken here."""

    def defer(self, _receipt: str, _seconds: int) -> bool:
        return False


def _without_turn(lane: Lane) -> Lane:
    return replace(lane, turn=None)
