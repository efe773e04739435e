"""Simulates AWS calls: they take time and can fail before or after their effect."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from chalicelib.core.errors import UnavailableError
from tests.simulation.schedule import Fault, Outage, Plan, Wrong
from tests.simulation.virtual import Process, Timeline

#: Sees a call's effect: its name and arguments, what `before` gave, and the answer.
Observe = Callable[[str, tuple[Any, ...], Callable[[], Any]], Any]


class Faults:
    """Decides which call fails and how, until healed."""

    def __init__(self, plan: Plan, timeline: Timeline) -> None:
        self._planned = {(fault.call, fault.nth): fault for fault in plan.faults}
        self._outages: tuple[Outage, ...] = plan.outages
        self._began = timeline.now
        self._timeline = timeline
        self._calls: Counter[str] = Counter()
        self.is_healed = False
        self.met: Counter[str] = Counter()
        #: when each machine last failed to renew a lease, true time
        self.renewal_failed_at: dict[str, int] = {}

    @property
    def calls(self) -> int:
        return sum(self._calls.values())

    def silent_until(self) -> int:
        """True time until which SQS delivers nothing; 0 while it does."""
        since = self._timeline.now - self._began
        ends = [one.ends_at for one in self._outages if one.is_total and one.at <= since < one.ends_at]
        return 0 if self.is_healed or not ends else self._began + max(ends)

    def next(self, call: str, machine: str) -> Fault | None:
        self._calls[call] += 1
        fault = None if self.is_healed else self._planned.get((call, self._calls[call]))
        if fault is None and self._is_out(call, machine):
            fault = Fault(call, 0, Wrong.REFUSED)
        if fault:
            self.met[fault.wrong.value] += 1
        return fault

    def _is_out(self, call: str, machine: str) -> bool:
        since = self._timeline.now - self._began
        return not self.is_healed and any(outage.strikes(call, machine, since) for outage in self._outages)


class Remote:
    """Wraps a port for one machine. Other processes can act before and after a call's effect."""

    def __init__(
        self,
        name: str,
        port: Any,
        timeline: Timeline,
        faults: Faults,
        die: Callable[[Process], None],
        observe: Observe,
        error: type[Exception] = UnavailableError,
    ) -> None:
        self._name = name
        self._port = port
        self._timeline = timeline
        self._faults = faults
        self._die = die
        self._observe = observe
        self._error = error

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._port, name)

        def call(*arguments: Any) -> Any:
            return self._call(f"{self._name}.{name}", real, arguments)

        return call

    def _call(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        process = self._timeline.current
        assert process is not None
        fault = self._faults.next(name, process.machine)
        wrong = fault.wrong if fault else None
        if name == "log.write" and wrong in (Wrong.LOST, Wrong.REPEATED):
            wrong = Wrong.REFUSED  # a file has no answer to lose
        extra_ms = fault.milliseconds if fault else 0
        process.wait(process.random.randint(0, 6) + (extra_ms if wrong is Wrong.SLOW_BEFORE else 0))
        if wrong is Wrong.DIED_BEFORE:
            self._die(process)
        if wrong is Wrong.REFUSED and name == "lanes.renew_lease":
            self._faults.renewal_failed_at[process.machine] = self._timeline.now
        if wrong is Wrong.REFUSED:
            raise self._error(f"{name} is refused")
        answer = self._observe(name, arguments, lambda: real(*arguments))
        if wrong is Wrong.REPEATED:
            process.wait(extra_ms)
            answer = self._observe(name, arguments, lambda: real(*arguments))
        process.wait(process.random.randint(0, 6) + (extra_ms if wrong in (Wrong.SLOW_AFTER, Wrong.LOST) else 0))
        if wrong is Wrong.DIED_AFTER:
            self._die(process)
        if wrong is Wrong.LOST:
            raise self._error(f"the answer to {name} is lost")
        return answer
