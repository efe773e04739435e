"""The demo on a terminal: one line a user, with past and future starts on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from paceline_cli.rendering import duration
from paceline_client import Lane

#: Cells of the time axis, where the terminal is wide enough.
MAX_CELLS = 64
#: Width of the other columns.
OTHER_CELLS = 36
#: Newest events that are shown.
EVENTS_SHOWN = 3
START, PLANNED, PAST, NOW = "█", "░", "·", "│"


@dataclass
class Member:
    """One user of the demo."""

    name: str
    user_id: str
    submitted: int = 0
    #: All starts seen so far, epoch ms; a lane's answer holds only the newest.
    starts: set[int] = field(default_factory=set)
    lane: Lane | None = None

    def see(self, lane: Lane) -> None:
        self.lane = lane
        self.starts.update(lane.starts)

    @property
    def waiting(self) -> int:
        return self.lane.backlog if self.lane else 0

    @property
    def is_idle(self) -> bool:
        """True if all its submitted tasks have started."""
        return len(self.starts) >= self.submitted and (
            self.lane is None or (self.waiting == 0 and self.lane.running is None)
        )


@dataclass
class Board:
    limits: str
    members: Sequence[Member]
    #: Tasks that the whole demo will submit.
    total: int
    #: The time axis, epoch ms; it begins with the demo.
    begin: int
    end: int
    events: list[str] = field(default_factory=list)

    def tell(self, event: str) -> None:
        self.events.append(event)

    @property
    def summary(self) -> str:
        submitted, started = (sum(m.submitted for m in self.members), sum(len(m.starts) for m in self.members))
        waiting = sum(member.waiting for member in self.members)
        return f"{submitted} of {self.total} tasks submitted, {started} started, {waiting} waiting"

    def picture(self, now: int, width: int) -> RenderableType:
        """Renders the current state for a terminal of that width."""
        cells = max(10, min(MAX_CELLS, width - OTHER_CELLS))
        table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
        table.add_column("user")
        table.add_column(self._axis(cells), no_wrap=True)
        for title in ("starts", "waiting", "next start"):
            table.add_column(title, justify="right", no_wrap=True)
        for member in self.members:
            table.add_row(Text(member.name, "bold"), self._strip(member, now, cells), *map(str, _numbers(member, now)))
        passed = min(now, self.end) - self.begin
        head = Text.assemble(
            (f"{self.limits} for each user", "bold"),
            f"   {duration(passed)} of {duration(self.end - self.begin)}   {self.summary}",
        )
        legend = Text.assemble(
            (START, "green"), (" started  ", "dim"), (PLANNED, "yellow"), (" waits until then", "dim")
        )
        told = [Text(event, "dim") for event in self.events[-EVENTS_SHOWN:]]
        return Group(head, "", table, "", legend, *told)

    def _axis(self, cells: int) -> str:
        """Labels at the beginning, in the middle and at the end."""
        half, last = (duration((self.end - self.begin) * part) for part in (0.5, 1.0))
        left = "0 s".ljust(cells // 2) + half
        return left.ljust(cells - len(last))[: cells - len(last)] + last

    def _strip(self, member: Member, now: int, cells: int) -> Text:
        started = {self._cell(at, cells) for at in member.starts}
        planned = {self._cell(at, cells) for at in (member.lane.next_starts if member.lane else ())}
        today = self._cell(now, cells)
        strip = Text()
        for cell in range(cells):
            if cell in started:
                strip.append(START, "green")
            elif cell in planned and cell >= today:
                strip.append(PLANNED, "yellow")
            elif cell == today:
                strip.append(NOW, "dim")
            else:
                strip.append(PAST if cell < today else " ", "dim")
        return strip

    def _cell(self, at: int, cells: int) -> int:
        return (at - self.begin) * cells // (self.end - self.begin)


def _numbers(member: Member, now: int) -> tuple[int, int, str]:
    next_at = member.lane.next_start_at if member.lane else None
    return len(member.starts), member.waiting, "" if next_at is None else f"in {duration(next_at - now)}"
