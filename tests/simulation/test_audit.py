"""The audit of what simulated workers logged: clean whatever happened to them, and broken by any line that is false."""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from chalicelib.core.limits import parse_limits
from chalicelib.worker.steps import GAP_GRACE_MS
from completions.audit import LEASE_MS, audit
from completions.reader import LogLine, read_completions
from completions.report import Report
from tests.extent import extent
from tests.simulation.schedule import (
    Behaviour,
    ForgetLane,
    Plan,
    Submit,
    draw,
    draw_cancels,
    draw_several,
    draw_shards,
    draw_units,
)
from tests.simulation.several import draw_beside
from tests.simulation.world import World

#: The simulation forgets lanes within minutes, where the real one takes weeks; the unit tests have that case.
SEEDS = [
    seed for seed in range(extent(60, 150)) if not any(isinstance(action, ForgetLane) for action in draw(seed).actions)
]
BATCHES = [SEEDS[start : start + 40] for start in range(0, len(SEEDS), 40)]

Events = Sequence[dict[str, Any]]


def audited(events: Events, world: World) -> Report:
    lines = (LogLine("2026/11/22/[w]1", json.dumps(event)) for event in events)
    return audit(read_completions(lines), world.settings.limits, world.settings.shared_limits)


def logged(world: World) -> Events:
    """The lines of tasks that were answered within the time for which later ones wait for them."""
    world.run()
    known = world.history.known.values()
    in_time = {
        one.task.task_id
        for one in known
        if one.answered_at is not None and one.answered_at < one.task.submitted_at + GAP_GRACE_MS
    }
    return [event for event in world.log.events if event["task_id"] in in_time]


@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"seeds {seeds[0]} to {seeds[-1]}")
def test_log_of_workers_that_kept_the_promises_is_clean(seeds: Sequence[int]) -> None:
    for seed in seeds:
        world = World(draw(seed))
        report = audited(logged(world), world)
        assert report.clean, f"seed {seed}: {report.breaches[0]}"


@pytest.mark.parametrize("seeds", [range(extent(30, 120)), (373, 725)], ids=["first seeds", "an outcome logged twice"])
def test_log_of_running_tasks_that_were_cancelled_is_clean(seeds: Sequence[int]) -> None:
    for seed in seeds:
        world = World(draw_cancels(seed))
        report = audited(logged(world), world)
        assert report.clean, f"seed {seed}: {report.breaches[0]}"


@pytest.mark.parametrize("first", range(0, extent(5, 60), 5))
def test_log_of_several_tasks_at_once_is_clean(first: int) -> None:
    most = 0
    for seed in range(first, first + 5):
        for plan in (draw_several(seed), draw_beside("units", seed), draw_beside("cancels", seed)):
            world = World(plan)
            report = audited(logged(world), world)
            assert report.clean, f"{plan}: {report.breaches[0]}"
            most = max(most, report.at_once.most if report.at_once else 0)
    assert most >= 2


def test_log_of_a_shared_limit_over_shards_is_clean_whatever_it_was_changed_to() -> None:
    """A start is judged with all before it, those of other shards and under other limits too."""
    changed = 0
    for seed in range(extent(25, 150)):
        world = World(draw_shards(seed))
        events = logged(world)
        report = audited(events, world)
        assert report.clean, f"seed {seed}: {report.breaches[0]}"
        changed += any("shared_limits" in event for event in events)
    assert changed > 4


def test_log_of_a_task_too_many_at_once_is_found() -> None:
    world = World(Plan(0, "5/second; 3 at once", True, 8, (0,) * 10, (Submit(0, "ann", "t", (Behaviour(4_000),) * 6),)))
    events = logged(world)
    assert audited(events, world).clean
    world.settings = replace(world.settings, limits=parse_limits("5/second; 2 at once"))
    assert {breach.kind for breach in audited(events, world).breaches} == {"at once"}


def units_world(seed: int) -> World | None:
    """A world of tasks whose estimates are wrong; None if it forgets a lane."""
    plan = draw_units(seed)
    return None if any(isinstance(action, ForgetLane) for action in plan.actions) else World(plan)


@pytest.mark.parametrize("first", range(0, extent(10, 40), 10))
def test_log_of_tasks_with_units_is_clean_whatever_they_really_used(first: int) -> None:
    corrected = 0
    for seed in range(first, first + 10):
        if (world := units_world(seed)) is not None:
            events = logged(world)
            report = audited(events, world)
            assert report.clean, f"seed {seed}: {report.breaches[0]}"
            corrected += sum(event["used_units"] not in (None, event["units"]) for event in events)
    assert corrected > 5


def test_line_that_hides_units_is_found() -> None:
    """A task that says now that it counts for more than any limit allows, or that it used more."""
    found = {"used_units": 0, "units": 0}
    for seed in range(extent(6, 15)):
        if (world := units_world(seed)) is None:
            continue
        events = logged(world)
        for name in found:
            for event in events:
                if event["started_at"] is not None:
                    hidden = [{**one, name: 1_000_000} if one is event else one for one in events]
                    found[name] += not audited(hidden, world).clean
    assert min(found.values()) > 10, found


@pytest.mark.parametrize("kind", ["pace", "order", "ended", "early", "attempts"])
def test_line_that_is_false_is_found(kind: str) -> None:
    found = 0
    for seed in SEEDS[: extent(20, 60)]:
        world = World(draw(seed))
        events = falsified(logged(world), kind, Random(seed), world)
        if events is not None:
            report = audited(events, world)
            assert kind in {breach.kind for breach in report.breaches}, f"seed {seed}"
            found += 1
    assert found > extent(5, 10)


def falsified(events: Events, kind: str, random: Random, world: World) -> Events | None:
    """The lines with one false among them; None where there is nothing to falsify."""
    ran = [event for event in events if event["started_at"] is not None]
    if not ran:
        return None
    event = random.choice(ran)
    others = [one for one in events if one is not event]
    if kind == "pace":
        return [*events, *_copies(event, max(limit.quota for limit in world.settings.limits))]
    if kind == "order":
        return [*events, {**event, "task_id": "other"}]
    if kind == "ended":
        if event["completed_at"] - event["started_at"] > LEASE_MS - 2:
            return None  # its worker may have died, and another one ended it as cancelled
        return [*events, {**event, "event": "task_cancelled", "completed_at": event["completed_at"] + 1}]
    if kind == "early":
        first = event.get("starts", [event["started_at"]])[0]
        return [*others, {**event, "planned_at": first + 1}]
    return [*others, {**event, "attempt": 0, "event": "task_completed"}]


def _copies(event: dict[str, Any], count: int) -> Events:
    """As many tasks more, started in the same millisecond as this one."""
    return [{**event, "task_id": f"copy-{number}", "seq": event["seq"] + number} for number in range(1, 100 + count)]
