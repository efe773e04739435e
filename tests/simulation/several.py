"""Plans that were drawn for one task at a time, with several at once."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.simulation.schedule import (
    Plan,
    SetLimits,
    draw,
    draw_cancels,
    draw_due,
    draw_groups,
    draw_shards,
    draw_shared,
    draw_shared_units,
    draw_units,
)

#: Workers that such a plan has at least: each runs one task on Lambda.
WORKERS = 8
#: How many tasks may run at once.
NUMBERS = (2, 3, 5, 20)

DRAWS: dict[str, Callable[[int], Plan]] = {
    "any": draw,
    "cancels": draw_cancels,
    "units": draw_units,
    "due": draw_due,
    "shared": draw_shared,
    "shared_units": draw_shared_units,
    "groups": draw_groups,
    "shards": draw_shards,
}


def draw_beside(kind: str, seed: int) -> Plan:
    """That seed's plan of the kind, one of DRAWS, with several tasks at once."""
    return with_several(DRAWS[kind](seed), Random(f"beside {seed}").choice(NUMBERS))


def with_several(plan: Plan, number: int) -> Plan:
    limits = f"{plan.limits}; {number} at once"
    actions = tuple(
        replace(action, limits=f"{action.limits}; {number} at once")
        if isinstance(action, SetLimits) and action.limits
        else action
        for action in plan.actions
    )
    workers = max(plan.workers, WORKERS)
    theirs = plan.offsets[2:]
    offsets = (*plan.offsets[:2], *(theirs[number % len(theirs)] for number in range(workers)))
    return replace(plan, limits=limits, actions=actions, workers=workers, offsets=offsets)
