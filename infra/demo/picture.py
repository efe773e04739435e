"""The picture of a demo: each user's starts against the limits, on one time axis. One figure, as SVG and as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from chalicelib.limits import Limit, Limits
from infra.demo.script import longest
from infra.windows import trailing_windows

INK, QUIET, PAPER, GRID = "#1c2733", "#64748b", "#fdfcf9", "#e5e7eb"
STARTED, WAITING, LIMIT = "#1d6fd1", "#e8930c", "#c8312b"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Row:
    """One user. Times in ms after the beginning of the demo."""

    name: str
    #: when, and how many at once
    submits: Sequence[tuple[int, int]]
    #: oldest first
    starts: Sequence[int]


def draw(rows: Sequence[Row], limits: Limits, verdict: str, folder: Path) -> tuple[Path, Path]:
    """Writes pace.svg and pace.png to the folder. verdict: what the audit said."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "pace.svg", folder / "pace.png"
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "svg.hashsalt": "paceline"}):
        figure = _figure(rows, limits, verdict)
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=160)
    return paths


def _figure(rows: Sequence[Row], limits: Limits, verdict: str) -> Figure:
    height = 2.15 + 1.22 * len(rows)
    figure = Figure(figsize=(11, height), facecolor=PAPER)
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.075, right=0.83, top=1 - 1.35 / height, bottom=0.72 / height, hspace=0.14)
    end = max(row.starts[-1] for row in rows) / 1000 + 1
    for axis, row in zip(axes, rows, strict=True):
        _frame(axis, row, rows, longest(limits), end)
        _curves(axis, row, longest(limits), end)
        _most(axis, row, limits)
    axes[-1].tick_params(axis="x", length=3, labelbottom=True)
    axes[-1].set_xlabel("seconds since the first submit", color=QUIET)
    _words(figure, rows, limits, verdict, height)
    return figure


def _frame(axis: Axes, row: Row, rows: Sequence[Row], limit: Limit, end: float) -> None:
    deepest = max(count for one in rows for _, count in _waiting(one))
    axis.set(xlim=(-0.6, end), ylim=(-1.18 * deepest, 1.32 * limit.quota), facecolor=PAPER)
    axis.spines[:].set_visible(False)
    axis.axhline(0, color=INK, linewidth=0.8, zorder=3)
    axis.axhline(limit.quota, color=LIMIT, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
    axis.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.tick_params(axis="x", length=0, colors=QUIET)
    axis.set_yticks([0, limit.quota], ["0", str(limit.quota)])
    axis.tick_params(axis="y", length=0, colors=QUIET, labelsize=8.5)
    axis.get_yticklabels()[1].set_color(LIMIT)
    axis.text(-0.058, 0.5, row.name, transform=axis.transAxes, ha="right", va="center", fontsize=13, weight="bold")


def _curves(axis: Axes, row: Row, limit: Limit, end: float) -> None:
    used = list(_used(row.starts, limit))
    _area(axis, used, end, STARTED, 0.16)
    _area(axis, [(at, -count) for at, count in _waiting(row)], end, WAITING, 0.28)
    ordered = sorted(row.starts)
    heights = [count for _, count in trailing_windows(ordered, limit.window_ms)]
    axis.scatter([at / 1000 for at in ordered], heights, s=17, color=STARTED, linewidths=0, zorder=5, clip_on=False)
    for at, count in row.submits:
        axis.annotate(
            f"+{count}", (at / 1000, 0), (0, -3), textcoords="offset points", fontsize=8, weight="bold",
            color="#9a5b00", ha="center", va="top", zorder=6,
        )  # fmt: skip


def _area(axis: Axes, steps: Sequence[tuple[int, int]], end: float, color: str, alpha: float) -> None:
    times, heights = [at / 1000 for at, _ in steps] + [end], [height for _, height in steps] + [steps[-1][1]]
    axis.fill_between(times, heights, step="post", color=color, alpha=alpha, linewidth=0, zorder=1)
    axis.step(times, heights, where="post", color=color, linewidth=0.9, alpha=0.75, zorder=2)


def _used(starts: Sequence[int], limit: Limit) -> Iterator[tuple[int, int]]:
    """From when on, and how many starts lie in the window that ends then."""
    changes = sorted([(at, 1) for at in starts] + [(at + limit.window_ms, -1) for at in starts])
    return _summed(changes)


def _waiting(row: Row) -> Iterator[tuple[int, int]]:
    """From when on, and how many tasks are submitted and have not started."""
    # The answer to a submit may come after its first start; what starts at once never waits below nothing.
    changes = sorted([*row.submits, *((at, -1) for at in row.starts)], key=lambda change: (change[0], -change[1]))
    return ((at, max(0, count)) for at, count in _summed(changes))


def _summed(changes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    total = 0
    yield 0, 0
    for at, change in changes:
        total += change
        yield at, total


def _most(axis: Axes, row: Row, limits: Limits) -> None:
    """Beside the row: the fullest window of each limit."""
    for place, limit in enumerate(limits):
        most = max(count for _, count in trailing_windows(sorted(row.starts), limit.window_ms))
        height = 0.62 + 0.2 * (len(limits) / 2 - 0.5 - place)
        text = f"{most} of {limit.quota} in any {_window(limit)}"
        axis.text(1.012, height, text, transform=axis.transAxes, va="center", fontsize=9, color=INK)
    total = f"{len(row.starts)} started, {sum(count for _, count in row.submits) - len(row.starts)} lost"
    axis.text(1.012, 0.2, total, transform=axis.transAxes, va="center", fontsize=9, color=QUIET)


def _window(limit: Limit) -> str:
    return limit.name.replace("-", " ")


def _words(figure: Figure, rows: Sequence[Row], limits: Limits, verdict: str, height: float) -> None:
    allowed = " or ".join(
        f"{limit.quota}{_noun(place, limit)} in any {_window(limit)}" for place, limit in enumerate(limits)
    )
    tasks = sum(len(row.starts) for row in rows)
    users = _NUMBERS[len(rows)] if len(rows) < len(_NUMBERS) else str(len(rows))
    last = longest(limits)
    figure.text(0.02, 1 - 0.36 / height, f"No user starts more than {allowed}", fontsize=16.5, weight="bold", color=INK)
    figure.text(
        0.02, 1 - 0.66 / height, color=QUIET, fontsize=10.5,
        s=f"{tasks} tasks of {users} users, submitted in bursts. What comes too fast waits and is not lost; "
        f"nobody waits for anybody else. {verdict}",
    )  # fmt: skip
    _legend(figure, 1 - 1.04 / height, last)


def _legend(figure: Figure, y: float, limit: Limit) -> None:
    window = _window(limit)
    entries = [
        (0.075, "●", STARTED, f"a start; its height: this user's starts in the {window} up to it"),
        (0.485, "╌", LIMIT, f"the limit, {limit.quota}"),
        (0.595, "■", WAITING, "waiting"),
        (0.685, "+7", "#9a5b00", "submitted at once"),
    ]
    for x, mark, color, text in entries:
        figure.text(x, y, mark, color=color, fontsize=10, weight="bold")
        figure.text(x + (0.027 if len(mark) > 1 else 0.016), y, text, color=INK, fontsize=9.5)


def _noun(place: int, limit: Limit) -> str:
    return "" if place else " task" if limit.quota == 1 else " tasks"
