"""`make simulate N=…`: that many worlds from a seed on, their failures shrunk. `make mutants`: the test of the test."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from tests.simulation.mutants import FOUND_BY, MUTANTS
from tests.simulation.schedule import (
    Plan,
    draw,
    draw_cancels,
    draw_due,
    draw_emptyings,
    draw_forgettings,
    draw_groups,
    draw_several,
    draw_shards,
    draw_shared,
    draw_shared_units,
    draw_units,
    shrink,
)
from tests.simulation.several import DRAWS, draw_beside
from tests.simulation.world import Parts, Result, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=5_000, help="how many; for mutants the most for each")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--mutants", action="store_true", help="turn off one guard after the other")
    parser.add_argument("--tell", action="store_true", help="tell the story of the first seed")
    parser.add_argument("--any", action="store_true", help="schedules of any actions: the default")
    parser.add_argument("--due", action="store_true", help="schedules of tasks that are due at one time")
    parser.add_argument("--units", action="store_true", help="schedules of tasks with units")
    parser.add_argument("--cancels", action="store_true", help="schedules of running tasks that are cancelled")
    parser.add_argument(
        "--several", action="store_true", help="schedules of lanes with several tasks at once; also with another kind"
    )
    parser.add_argument("--shared", action="store_true", help="schedules of tasks with a shared limit")
    parser.add_argument("--shards", action="store_true", help="the same, of one that is spread over shards")
    parser.add_argument("--shared-units", action="store_true", help="the same, of tasks with units")
    parser.add_argument("--groups", action="store_true", help="the same, with users in groups")
    parser.add_argument("--emptyings", action="store_true", help="schedules of lanes that are emptied")
    parser.add_argument("--forgettings", action="store_true", help="schedules of users who are forgotten")
    options = parser.parse_args()
    plan_of = draw_due if options.due else draw_units if options.units else draw
    plan_of = draw_cancels if options.cancels else plan_of
    plan_of = draw_shared if options.shared else plan_of
    plan_of = draw_shards if options.shards else plan_of
    plan_of = draw_groups if options.groups else draw_shared_units if options.shared_units else plan_of
    plan_of = draw_emptyings if options.emptyings else plan_of
    plan_of = draw_forgettings if options.forgettings else plan_of
    if options.several:
        kind = next((kind for kind in DRAWS if getattr(options, kind)), "")
        plan_of = partial(draw_beside, kind) if kind else draw_several
    seeds = range(options.seed, options.seed + options.schedules)
    if options.mutants:
        found = [show_mutant(name, seeds) for name in MUTANTS]
        print(f"{sum(found)} of {len(found)} found")
        return 0
    if options.tell:
        return tell(run(plan_of(options.seed)))
    return simulate(seeds, plan_of)


def simulate(seeds: range, plan_of: Callable[[int], Plan]) -> int:
    began, figures, calls, bad = time.monotonic(), Counter[str](), 0, 0
    for seed in seeds:
        result = run(plan_of(seed))
        figures.update(result.figures)
        calls += result.calls
        if result.broken:
            bad += 1
            report(result)
        if sys.stderr.isatty() and seed % 100 == 0:
            print(f"\r{seed - seeds.start:7} of {len(seeds)}", end="", file=sys.stderr)
    seconds = time.monotonic() - began
    print(f"\nseeds {seeds.start} to {seeds.stop - 1}: {bad} of {len(seeds)} schedules broke a promise")
    print(f"{60 * len(seeds) / seconds:,.0f} schedules a minute, {calls:,} calls to AWS")
    for what, number in sorted(figures.items()):
        print(f"{number:10,}  {what}")
    return 1 if bad else 0


def report(result: Result) -> None:
    promise = result.broken[0].promise
    print(f"\nseed {result.plan.seed} breaks a promise: {result.broken[0]}\nIt is being shrunk.")

    def breaks_too(plan: Plan) -> bool:
        return any(broken.promise == promise for broken in run(plan).broken)

    tell(run(shrink(result.plan, breaks_too)))


def tell(result: Result) -> int:
    print(result.plan)
    print(*result.story, sep="\n")
    print(*result.broken, sep="\n")
    return 1 if result.broken else 0


def show_mutant(name: str, seeds: range) -> bool:
    plan_of = draw_due if name.startswith("scheduled task") else draw_units if name.startswith("units:") else draw
    plan_of = draw_cancels if name.startswith("cancel:") else plan_of
    plan_of = draw_several if name.startswith("slots:") else plan_of
    plan_of = draw_shared if name.startswith("shared:") else plan_of
    plan_of = draw_groups if name.endswith("to a group") else plan_of
    kind, _, rest = name.partition(" ")
    plan_of = partial(draw_beside, kind) if rest.startswith("beside:") else plan_of
    plan_of = draw_shared_units if name.startswith("shared:") and "units" in name else plan_of
    plan_of = draw_emptyings if name.startswith("emptying:") else plan_of
    plan_of = draw_forgettings if name.startswith("forgetting:") else plan_of
    tries, result = find(MUTANTS[name], chain(map(plan_of, seeds), [FOUND_BY[name]]))
    found = f"{tries:7,}  {result.broken[0].promise}" if result else f"not in {len(seeds):,}"
    print(f"{name:45} {found}", flush=True)
    return result is not None


def find(parts: Parts, seeds: Iterator[int | Plan]) -> tuple[int, Result | None]:
    """How many schedules it took until a promise was broken, and that one; None when none was."""
    tries = 0
    for seed in seeds:
        tries += 1
        result = run(seed if isinstance(seed, Plan) else draw(seed), parts)
        if result.broken:
            return tries, result
    return tries, None


if __name__ == "__main__":
    sys.exit(main())
