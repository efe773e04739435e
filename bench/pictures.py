"""Draws a picture for each benchmark that has results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Picture

from bench.figures import Results

mpl.use("Agg")


def draw(results: dict[str, Results], folder: Path) -> None:
    """Writes PNG files into the folder."""
    for name, picture in PICTURES.items():
        if name in results:
            drawn = picture(results[name])
            drawn.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")


def _bars(found: Results, wanted: Callable[[str], bool], title: str, unit: str, goal: float | None = None) -> Picture:
    """Medians as bars, with a whisker from the lowest to the highest run."""
    figures = [figure for figure in found.figures if wanted(figure.name)]
    if not figures:
        raise ValueError(f"no figure for the picture {title!r}")
    picture = Picture(figsize=(8, 0.4 * len(figures) + 1.2))
    axes = picture.subplots()
    for row, figure in enumerate(reversed(figures)):
        spread = [[figure.median - min(figure.runs)], [max(figure.runs) - figure.median]]
        axes.barh(row, figure.median, xerr=spread, color="#4477aa", capsize=3)
        axes.text(0, row, f" {figure.median:,.2f}", va="center", color="white", size=8)
    axes.set_yticks(range(len(figures)), [figure.name for figure in reversed(figures)], size=8)
    if goal is not None:
        axes.axvline(goal, color="#cc3311", linestyle="--", linewidth=1)
        axes.text(goal, len(figures) - 0.4, f" goal {goal:g}", color="#cc3311", size=8)
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left", size=10)
    return picture


def _handler(found: Results) -> Picture:
    return _bars(
        found, lambda name: " over its" in name, "CPU of a function over that of just its boto3 calls", "times", 1.25
    )


def _calls(found: Results) -> Picture:
    """Dollars for a million tasks, by service, beside published prices of other systems."""
    picture = Picture(figsize=(8, 3.6))
    axes = picture.subplots()
    cost, others = found.series["cost"], found.series["others"]
    names = [f"Paceline, {name}" for name in cost] + [name for name, *_ in others]
    for service in next(iter(cost.values())):
        values = [parts[service] for parts in cost.values()] + [0.0] * len(others)
        before = [sum(list(parts.values())[: list(parts).index(service)]) for parts in cost.values()]
        axes.barh(range(len(names)), values, left=before + [0.0] * len(others), label=service)
    axes.barh(range(len(cost), len(names)), [dollars for _, dollars, _ in others], color="#bbbbbb")
    axes.set_yticks(range(len(names)), names, size=8)
    axes.invert_yaxis()
    axes.set_xlabel("dollars for a million tasks")
    axes.legend(fontsize=7)
    return picture


def _flat(found: Results) -> Picture:
    return _bars(found, lambda name: name.startswith("own CPU"), "Submit behind more, over behind little", "times", 1.1)


def _prompt(found: Results) -> Picture:
    """Cumulative share of starts by lateness."""
    picture = Picture(figsize=(8, 4))
    axes = picture.subplots()
    for name, late in found.series.items():
        if name.startswith("late "):
            shares = [(n + 1) / len(late) for n in range(len(late))]
            axes.plot([max(ms, 1) for ms in late], shares, label=name.removeprefix("late "))
    axes.set_xscale("log")
    axes.axvspan(110, 240, color="#eeeeee", label="Redis peer, 100 users")
    axes.set_xlabel("late against the schedule planned at submit, ms")
    axes.set_ylabel("share of all starts")
    axes.legend(fontsize=8)
    return picture


def _whole(found: Results) -> Picture:
    return _bars(found, lambda name: name.endswith(": accepted"), "Accepted while the workers run", "tasks/s")


def _cold(found: Results) -> Picture:
    return _bars(found, lambda name: name.startswith("memory of"), "Memory of each process (RSS)", "MB")


def _scale(found: Results) -> Picture:
    picture = Picture(figsize=(8, 4))
    axes = picture.subplots()
    for name, levels in found.series["day"].items():
        axes.plot([minute / 60 for minute, _ in levels], [level for _, level in levels], label=name, linewidth=0.8)
    axes.set_yscale("log")
    axes.axhline(1000, color="#cc3311", linestyle="--", linewidth=1, label="Lambda's default concurrency")
    axes.set_xlabel("hour of the day, a million users")
    axes.legend(fontsize=8)
    return picture


PICTURES: dict[str, Callable[[Results], Picture]] = {
    "handler": _handler,
    "calls": _calls,
    "flat": _flat,
    "prompt": _prompt,
    "whole": _whole,
    "cold": _cold,
    "scale": _scale,
}
