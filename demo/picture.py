"""The picture of a demo: each user's starts against the limits, on one time axis. One figure, as SVG and as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator

from chalicelib.core.limits import Limit, Limits
from completions.windows import trailing_windows
from demo.script import longest

INK, QUIET, PAPER, GRID = "#1c2733", "#64748b", "#fdfcf9", "#e5e7eb"
STARTED, WAITING, LIMIT, SUBMITTED = "#1d6fd1", "#e8930c", "#c8312b", "#9a5b00"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Row:
    """One user. Times in ms after the beginning of the demo."""

    name: str
    #: time and number of each submit
    submits: Sequence[tuple[int, int]]
    #: oldest first
    starts: Sequence[int]
    #: finished tasks
    outcome: int


def draw(rows: Sequence[Row], limits: Limits, is_clean: bool, folder: Path) -> tuple[Path, Path]:
    """Writes pace.svg and pace.png to the folder. is_clean: the audit's verdict, shown in the title."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "pace.svg", folder / "pace.png"
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "svg.hashsalt": "paceline"}):
        figure = _figure(rows, limits, is_clean)
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=160)
    return paths


def _figure(rows: Sequence[Row], limits: Limits, is_clean: bool) -> Figure:
    # All tasks have the same height, above the line and below it.
    depths = [_depth(row, longest(limits)) for row in rows]
    parts = [1.3 * longest(limits).quota + depth for depth in depths]
    height = 2.1 + 0.82 * sum(parts) / (1.3 * longest(limits).quota)
    figure = Figure(figsize=(11, height), facecolor=PAPER)
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=parts)[:, 0]
    figure.subplots_adjust(left=0.1, right=0.835, top=1 - 1.32 / height, bottom=0.68 / height, hspace=0.1)
    end = max(row.starts[-1] for row in rows) / 1000 + 1
    for axis, row, depth in zip(axes, rows, depths, strict=True):
        _frame(axis, row, depth, longest(limits), end)
        _curves(axis, row, longest(limits), end)
        _most(axis, row, limits)
    marked = next((place for place, row in enumerate(rows) if len(row.starts) > longest(limits).quota), None)
    if marked is not None:
        _window_mark(axes[marked], rows[marked], longest(limits))
    axes[-1].tick_params(axis="x", length=3, labelbottom=True)
    axes[-1].set_xlabel("seconds since the first submit", color=QUIET)
    _words(figure, rows, limits, is_clean, height)
    return figure


def _depth(row: Row, limit: Limit) -> float:
    """The row's depth below the line: the longest backlog, and its label."""
    return max(1.1 * max(count for _, count in _waiting(row)), 0.5 * limit.quota)


def _frame(axis: Axes, row: Row, depth: float, limit: Limit, end: float) -> None:
    axis.set(xlim=(-0.01 * end, end), ylim=(-depth, 1.3 * limit.quota), facecolor=PAPER)
    axis.spines[:].set_visible(False)
    axis.axhline(0, color=INK, linewidth=0.8, zorder=3)
    axis.axhline(limit.quota, color=LIMIT, linewidth=1.1, linestyle=(0, (5, 3)), zorder=4)
    axis.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.tick_params(axis="x", length=0, colors=QUIET)
    axis.set_yticks([0, limit.quota], ["0", str(limit.quota)])
    axis.tick_params(axis="y", length=0, colors=QUIET, labelsize=8.5)
    axis.get_yticklabels()[1].set_color(LIMIT)
    axis.annotate(
        row.name, (0, 0.5 * limit.quota), (-64, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=13, weight="bold", color=INK,
    )  # fmt: skip


def _curves(axis: Axes, row: Row, limit: Limit, end: float) -> None:
    used = list(_used(row.starts, limit))
    _area(axis, used, end, STARTED, 0.16)
    _area(axis, [(at, -count) for at, count in _waiting(row)], end, WAITING, 0.28)
    ordered = sorted(row.starts)
    heights = [count for _, count in trailing_windows(ordered, limit.window_ms)]
    axis.scatter([at / 1000 for at in ordered], heights, s=17, color=STARTED, linewidths=0, zorder=5, clip_on=False)
    for at, count in row.submits:
        axis.annotate(
            f"+{count}", (at / 1000, 0), (2, -3), textcoords="offset points", fontsize=8, weight="bold",
            color=SUBMITTED, ha="left", va="top", zorder=6,
        )  # fmt: skip


def _window_mark(axis: Axes, row: Row, limit: Limit) -> None:
    """Explains the limit: the start after a full window waits until the window's first start has left it."""
    ordered, height = sorted(row.starts), 1.17 * limit.quota
    first, next_one = ordered[0] / 1000, ordered[limit.quota] / 1000
    axis.annotate("", (next_one, height), (first, height), arrowprops={"arrowstyle": "|-|,widthA=0.25,widthB=0.25",
                  "color": QUIET, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
    text = f"start {limit.quota + 1} came {next_one - first:.3f} s after start 1"
    axis.text((first + next_one) / 2, height, text, ha="center", va="center", fontsize=8.5, color=QUIET,
              bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 2})  # fmt: skip


def _area(axis: Axes, steps: Sequence[tuple[int, int]], end: float, color: str, alpha: float) -> None:
    times, heights = [at / 1000 for at, _ in steps] + [end], [height for _, height in steps] + [steps[-1][1]]
    axis.fill_between(times, heights, step="post", color=color, alpha=alpha, linewidth=0, zorder=1)
    axis.step(times, heights, where="post", color=color, linewidth=0.9, alpha=0.75, zorder=2)


def _used(starts: Sequence[int], limit: Limit) -> Iterator[tuple[int, int]]:
    """Pairs of time and number of starts in the window that ends then."""
    changes = sorted([(at, 1) for at in starts] + [(at + limit.window_ms, -1) for at in starts])
    return _summed(changes)


def _waiting(row: Row) -> Iterator[tuple[int, int]]:
    """Pairs of time and number of waiting tasks from then on."""
    # A task may start before its submit is answered; then the count of waiting tasks stays at 0.
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
    lines = [(_fullest(row, limit), INK) for limit in limits]
    lines.append((f"{len(row.starts)} started, {sum(n for _, n in row.submits) - row.outcome} lost", QUIET))
    for place, (text, color) in enumerate(lines):
        axis.annotate(
            text, (1, longest(limits).quota), (9, 4 - 15 * place), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=9, color=color,
        )  # fmt: skip


def _fullest(row: Row, limit: Limit) -> str:
    most = max(count for _, count in trailing_windows(sorted(row.starts), limit.window_ms))
    return f"{most} of {limit.quota} in any {_window(limit)}"


def _window(limit: Limit) -> str:
    return limit.name.replace("-", " ")


def _words(figure: Figure, rows: Sequence[Row], limits: Limits, is_clean: bool, height: float) -> None:
    allowed = " or ".join(
        f"{limit.quota}{_noun(place, limit)} in any {_window(limit)}" for place, limit in enumerate(limits)
    )
    tasks = sum(row.outcome for row in rows)
    users = _NUMBERS[len(rows)] if len(rows) < len(_NUMBERS) else str(len(rows))
    last = longest(limits)
    title = f"No user starts more than {allowed}" if is_clean else f"BROKEN: not more than {allowed} may start"
    verdict = "The audit of the log is clean." if is_clean else "The audit of the log is not clean."
    figure.text(0.02, 1 - 0.36 / height, title, fontsize=16.5, weight="bold", color=INK)
    figure.text(
        0.02, 1 - 0.66 / height, color=QUIET, fontsize=10.5,
        s=f"{tasks} tasks of {users} users, submitted in bursts. Tasks over the limit wait, and do not wait for "
        f"anybody else. {verdict}",
    )  # fmt: skip
    _legend(figure.axes[0], 1 - 1.04 / height, _window(last), last.quota)


def _legend(axis: Axes, y: float, window: str, quota: int) -> None:
    """Each entry begins where the one before it ends."""
    entries = [
        ("●", STARTED, f"a start; its height: this user's starts in the {window} up to it"),
        ("╌╌", LIMIT, f"the limit, {quota}"),
        ("■", WAITING, "submitted and waiting"),
        ("+7", SUBMITTED, "submitted at once"),
    ]
    before: Annotation | None = None
    for sign, color, text in entries:
        before = _after(axis, before, y, sign, 16, color, 10)
        before = _after(axis, before, y, text, 5, INK, 9.5)


def _after(
    axis: Axes, before: Annotation | None, y: float, text: str, gap: float, color: str, size: float
) -> Annotation:
    return axis.annotate(
        text, (0.02, y) if before is None else (1, y), (0 if before is None else gap, 0),
        xycoords=("figure fraction" if before is None else before, "figure fraction"), textcoords="offset points",
        color=color, fontsize=size, weight="normal" if color == INK else "bold", va="center", annotation_clip=False,
    )  # fmt: skip


def _noun(place: int, limit: Limit) -> str:
    return "" if place else " task" if limit.quota == 1 else " tasks"
