"""`python -m bench.one NAME`: one benchmark, in this process, which it may leave in any state."""

from __future__ import annotations

import argparse
import importlib

from bench.figures import BUILD


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.one")
    parser.add_argument("name")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    module = importlib.import_module(f"bench.{arguments.name}")
    folder = BUILD / "quick" if arguments.quick else BUILD
    module.measure(quick=arguments.quick).save(folder / f"{arguments.name}.json")


if __name__ == "__main__":
    main()
