"""Results of a benchmark: figures, each with all its runs, and series for the pictures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BUILD = Path(__file__).parents[1] / "build" / "bench"


@dataclass(frozen=True)
class Figure:
    """One measured quantity, shown as the median of its runs with the lowest and the highest."""

    name: str
    runs: tuple[float, ...]
    unit: str = ""
    #: the goal is a median of at most this; None without such a goal
    at_most: float | None = None
    #: the goal is a median of at least this; None without such a goal
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def is_met(self) -> bool | None:
        """None for a figure without a goal."""
        if self.at_most is not None:
            return self.median <= self.at_most
        return self.median >= self.at_least if self.at_least is not None else None


@dataclass
class Results:
    """All results of one benchmark."""

    figures: list[Figure] = field(default_factory=list)
    #: data for the pictures, by name
    series: dict[str, Any] = field(default_factory=dict)

    def add(
        self,
        name: str,
        runs: Sequence[float],
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        self.figures.append(Figure(name, tuple(runs), unit, at_most, at_least))

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = [{**asdict(figure), "median": figure.median, "is_met": figure.is_met} for figure in self.figures]
        path.write_text(json.dumps({"figures": figures, "series": self.series}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        content = json.loads(path.read_text())
        kept = ("name", "unit", "at_most", "at_least")
        figures = [
            Figure(runs=tuple(entry["runs"]), **{name: entry[name] for name in kept}) for entry in content["figures"]
        ]
        return cls(figures, content["series"])


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile by nearest rank; share 0.5 is the median."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
