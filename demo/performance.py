"""One run of the demo: submits on time, polls the lanes, and passes each new state to the display."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chalicelib.core.limits import Limits, parse_limits
from completions.reader import Completion, folder_lines, read_completions
from demo.board import Board, Member
from demo.script import FAST_LIMITS, MAX_WINDOW_MS, Burst, bursts, longest, planned_starts
from demo.system import DemoError, System
from paceline_client import Paceline, TaskOrder

LOOK_SECONDS = 0.4
#: How long after the last planned start a demo gives up, and how long the log may take to be written.
GRACE_SECONDS = 60
LOG_SECONDS = 20

#: Called with every new state, and the time, epoch ms.
Show = Callable[[Board, int], None]


@dataclass(frozen=True)
class Submitted:
    """Tasks that one user submitted at once, at that epoch ms."""

    user_id: str
    at: int
    count: int


class Performance:
    def __init__(self, paceline: Paceline, system: System, is_fast: bool) -> None:
        self._paceline = paceline
        self._system = system
        names = sorted({burst.name for burst in bursts(parse_limits(FAST_LIMITS))})
        self.members = [Member(name, name + system.suffix) for name in names]
        self.limits = self._set_limits() if is_fast else self._limits_there()
        self.submitted: list[Submitted] = []

    def _set_limits(self) -> Limits:
        for member in self.members:
            self._paceline.set_limits(member.user_id, FAST_LIMITS)
        return parse_limits(FAST_LIMITS)

    def _limits_there(self) -> Limits:
        limits = parse_limits(self._paceline.lane(self.members[0].user_id).limits)
        if longest(limits).window_ms > MAX_WINDOW_MS:
            raise DemoError(f"With {longest(limits)} the demo would take too long: use --fast")
        return limits

    def run(self, show: Show) -> Board:
        """Returns once every task is finished. DemoError after a timeout."""
        script = bursts(self.limits)
        last = max(starts[-1] for starts in planned_starts(script, self.limits).values())
        begin = _now()
        board = Board(
            "; ".join(map(str, self.limits)), self.members, sum(b.count for b in script), begin, begin + last + 1000
        )
        todo = list(script)
        while todo or not all(member.is_idle for member in self.members):
            while todo and begin + todo[0].at <= _now():
                self._submit(todo.pop(0), board)
            self._look()
            show(board, _now())
            if _now() > board.end + GRACE_SECONDS * 1000:
                raise DemoError(f"{board.summary}: it does not come to an end")
            due = (begin + todo[0].at - _now()) / 1000 if todo else LOOK_SECONDS
            time.sleep(max(0.0, min(LOOK_SECONDS, due)))
        return board

    def _submit(self, burst: Burst, board: Board) -> None:
        member = next(member for member in self.members if member.name == burst.name)
        at = _now()
        submitted = self._paceline.submit_many(member.user_id, [TaskOrder({"n": n}) for n in range(burst.count)])
        member.submitted += burst.count
        self.submitted.append(Submitted(member.user_id, at, burst.count))
        waiting = sum(task.queued for task in submitted)
        what = f"{waiting} of them wait" if waiting else "may start now"
        board.tell(f"{(at - board.begin) / 1000:5.1f} s  {burst.name} submits {burst.count}: {what}")

    def _look(self) -> None:
        for member in self.members:
            if not member.is_idle:
                member.see(self._paceline.lane(member.user_id))

    def completions(self) -> Sequence[Completion]:
        """The demo's completions, once all are logged. DemoError if some are missing."""
        users = {member.user_id for member in self.members}
        total = sum(member.submitted for member in self.members)
        deadline = time.monotonic() + LOG_SECONDS
        while True:
            entries = read_completions(folder_lines(self._system.folder))
            found = [entry for entry in entries if isinstance(entry, Completion) and entry.user_id in users]
            if len({entry.task_id for entry in found}) == total:
                return found
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{self._system.folder} tells of {len(found)} of {total} tasks: is it the log of the Paceline at "
                    f"{self._system.url}? LOG_DIR says where that is"
                )
            time.sleep(0.2)


def _now() -> int:
    return int(time.time() * 1000)
