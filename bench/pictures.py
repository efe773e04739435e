"""The pictures: one function for each, drawn where its benchmark has run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.figures import Results


def draw(results: dict[str, Results], folder: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    for name, picture in PICTURES.items():
        if name in results:
            picture(results[name], folder)


PICTURES: dict[str, Callable[[Results, Path], None]] = {}
