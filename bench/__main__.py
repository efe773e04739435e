"""`python -m bench [name ...]`: runs benchmarks, each in its own process, and prints a table of all results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import BUILD, Figure, Results

NAMES = (
    *("whole", "handler", "calls", "at_once", "flat", "prompt", "crowded", "cold", "on_lambda"),
    *("children", "lanes", "shared", "scale", "grown"),
)


def main() -> int:
    """Returns 1 if a benchmark failed, 2 for an unknown name. The table shows a missed goal, which fails nothing."""
    arguments = _arguments()
    names = [name for text in arguments.names for name in text.split(",") if name] or list(NAMES)
    if unknown := set(names) - set(NAMES):
        print(f"Unknown benchmark {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = [name for name in names if not _run(name, quick=arguments.quick)]
    results = {name: Results.load(path) for name in NAMES if (path := BUILD / f"{name}.json").exists()}
    _save_all(results)
    _draw(results)
    print(_table(results))
    print(f"\nFigures: {BUILD / 'results.json'}; pictures beside it; how to read them: bench/README.md")
    for name in failed:
        print(f"The benchmark {name} failed", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"benchmarks to run; all by default: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that they work")
    return parser.parse_args()


def _run(name: str, *, quick: bool) -> bool:
    print(f"Running {name}", flush=True)
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "bench.one", name, *(["--quick"] if quick else [])], check=False)
    print(f"{name} took {time.monotonic() - begun:.0f} s", flush=True)
    return done.returncode == 0


def _save_all(results: dict[str, Results]) -> None:
    content = {
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "saved_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "benchmarks": {name: json.loads((BUILD / f"{name}.json").read_text()) for name in results},
    }
    (BUILD / "results.json").write_text(json.dumps(content, indent=1) + "\n")


def _draw(results: dict[str, Results]) -> None:
    from bench.pictures import draw  # noqa: PLC0415 - matplotlib takes a second to load

    draw(results, Path(BUILD))


def _table(results: dict[str, Results]) -> str:
    rows: list[tuple[str, ...]] = [("", "figure", "median", "least to most", "runs", "goal", "")]
    for name, result in results.items():
        rows += [(name, *_row(figure)) for figure in result.figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    goal = f"<= {_number(figure.at_most)}" if figure.at_most is not None else ""
    if figure.at_least is not None:
        goal = f">= {_number(figure.at_least)}"
    met = {True: "met", False: "MISSED", None: ""}[figure.is_met]
    median = f"{_number(figure.median)} {figure.unit}".strip()
    spread = f"{_number(min(figure.runs))} to {_number(max(figure.runs))}"
    return figure.name, median, spread, str(len(figure.runs)), goal, met


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
