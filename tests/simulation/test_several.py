"""Lanes whose limits let several tasks run at once: when they start, and what crashes and changed limits do to them."""

from dataclasses import replace
from random import Random

import pytest

from tests.extent import extent
from tests.factories import NOW
from tests.simulation.schedule import (
    Behaviour,
    Fault,
    Kill,
    LoseMessages,
    Outage,
    Pause,
    Plan,
    SetLimits,
    Submit,
    Wrong,
    draw_several,
)
from tests.simulation.several import DRAWS, draw_beside, with_several
from tests.simulation.world import World, run

# `make test` runs these; `python -m tests.simulation --several` goes on.
BATCHES = [range(start, start + 10) for start in range(0, extent(10, 100), 10)]


@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_no_schedule_of_several_tasks_at_once_breaks_a_promise(seeds: range) -> None:
    for seed in seeds:
        result = run(draw_several(seed))
        story = f"python -m tests.simulation --several --seed {seed} --tell"
        assert not result.broken, f"seed {seed}: {result.broken[0]}; {story}"


@pytest.mark.parametrize("kind", DRAWS)
def test_no_schedule_breaks_a_promise_with_several_tasks_at_once(kind: str) -> None:
    for seed in range(extent(3, 25)):
        result = run(draw_beside(kind, seed))
        story = f"python -m tests.simulation --several --{kind.replace('_', '-')} --seed {seed} --tell"
        assert not result.broken, f"{kind} {seed}: {result.broken[0]}; {story}"


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("units", 297),  # two reports of units in one millisecond, one of them unknown to the next claim
        ("units", 208),  # units that are given back while the next task waits for its start
        ("cancels", 452),  # a resume while forwarded tasks wait
        ("any", 39),  # two submits that arrive in the reverse order
        ("units", 1344),  # a submit that takes so long that later tasks start, and its own must not wait for ever
        ("units", 2048),  # a message before its predecessor's, whose task may not start for long
        ("units", 687),  # a task that starts late, because the one before it does, whose units were not free earlier
    ],
)
def test_schedules_that_broke_a_promise_before(kind: str, seed: int) -> None:
    number = Random(seed).choice((2, 3, 5))
    for plan in (with_several(DRAWS[kind](seed), number), with_several(DRAWS[kind](seed), 20)):
        assert not run(plan).broken


def plan(*actions, limits="1/second; 3 at once", is_lambda=True, workers=8, faults=(), seed=0) -> Plan:
    return Plan(seed, limits, is_lambda, workers, (0,) * (2 + workers), actions, faults)


def bulk(count: int, runs_ms: int, at: int = 0, **behaviour) -> Submit:
    return Submit(at, "ann", f"bulk{at}", tuple(Behaviour(runs_ms, **behaviour) for _ in range(count)))


def starts_of(plan: Plan) -> list[tuple[int, int]]:
    """The seq and the time, ms, of each start, in the order of the claims."""
    world = World(plan)
    result = world.run()
    assert not result.broken, "\n".join([*result.story, *map(str, result.broken)])
    return [(world.history.known[one.task_id].task.seq, one.at - NOW) for one in world.history.starts["ann"]]


def seconds_after_first(starts: list[tuple[int, int]]) -> list[float]:
    return [(at - starts[0][1]) / 1000 for _, at in starts]


@pytest.mark.parametrize("is_lambda", [True, False])
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("1/second; 3 at once", [0, 1, 2, 4, 5, 6]),
        ("1/second; 10 at once", [0, 1, 2, 3, 4, 5]),
        ("1/second; 1 at once", [0, 4, 8, 12, 16, 20]),
        ("1/second", [0, 4, 8, 12, 16, 20]),
    ],
)
def test_six_tasks_of_four_seconds_start_as_soon_as_a_slot_is_free(limits, expected, is_lambda) -> None:
    starts = starts_of(plan(bulk(6, 4_000), limits=limits, is_lambda=is_lambda))
    assert [seq for seq, _ in starts] == [1, 2, 3, 4, 5, 6]
    late = [at - wanted for at, wanted in zip(seconds_after_first(starts), expected, strict=True)]
    assert min(late) >= 0
    assert max(late) < 1.2


@pytest.mark.parametrize("seed", range(extent(2, 5)))
@pytest.mark.parametrize("is_lambda", [True, False])
def test_ten_running_tasks_whose_workers_die_run_once_more_each_and_never_beside_an_eleventh(seed, is_lambda) -> None:
    workers = 12 if is_lambda else 3
    kills = tuple(Kill(6_000, worker) for worker in range(workers))
    tasks = bulk(15, 8_000)
    starts = starts_of(
        plan(tasks, *kills, limits="10/second; 10 at once", is_lambda=is_lambda, workers=workers, seed=seed)
    )
    assert sorted(seq for seq, _ in starts) == sorted([*range(1, 11), *range(1, 16)])
    first = [seq for number, (seq, _) in enumerate(starts) if seq not in [other for other, _ in starts[:number]]]
    assert first == list(range(1, 16))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1/second", "5/second; 5 at once"),
        ("5/second; 5 at once", "5/second; 2 at once"),
        ("5/second; 5 at once", "1/second"),
    ],
)
@pytest.mark.parametrize("is_lambda", [True, False])
def test_another_number_at_once_holds_for_a_backlog(before, after, is_lambda) -> None:
    """What runs goes on, and nothing is lost, out of order or beside too many: `starts_of` checks it."""
    starts = starts_of(plan(bulk(20, 1_500), SetLimits(4_000, "ann", after), limits=before, is_lambda=is_lambda))
    assert [seq for seq, _ in starts] == list(range(1, 21))


@pytest.mark.parametrize("is_lambda", [True, False])
def test_a_finished_task_that_ran_alone_takes_no_slot_once_two_may_run(is_lambda) -> None:
    limits = SetLimits(400, "ann", "5/second; 2 at once")
    starts = starts_of(plan(bulk(1, 5), limits, bulk(4, 20_000, at=1_000), limits="5/second", is_lambda=is_lambda))
    assert [seq for seq, _ in starts] == [1, 2, 3, 4, 5]
    assert starts[2][1] - starts[1][1] < 1_000


@pytest.mark.parametrize("seed", [0, 5])
def test_a_worker_without_dynamodb_keeps_the_slots_of_its_tasks_on_one_machine(seed) -> None:
    cut_off = Outage(5_000, 20_000, "lanes.", worker=0)
    tasks = bulk(6, 45_000)
    alone = plan(tasks, limits="5/second; 2 at once", is_lambda=False, workers=4, seed=seed)
    starts = [at for _, at in starts_of(replace(alone, outages=(cut_off,)))]
    assert len(starts) == 6
    assert all(later - at >= 45_000 for at, later in zip(starts, starts[2:], strict=False))


def test_a_task_that_waited_alone_goes_on_after_a_pause_during_which_several_may_run() -> None:
    """Its lease is in no slot, so no receipt of its forwarded message is stored."""
    task, pause = Submit(0, "ann", "first", (Behaviour(0, holds=1, holds_ms=20_000),)), Pause(1_000, "ann", None)
    starts = starts_of(plan(task, pause, SetLimits(6_000, "ann", "2/second; 5 at once"), limits="1/second"))
    assert [seq for seq, _ in starts] == [1, 1]


def test_a_backoff_delays_nobody() -> None:
    first, others = Submit(0, "ann", "first", (Behaviour(5, fails=2),)), bulk(6, 5, at=50)
    starts = starts_of(plan(first, others, limits="5/second; 2 at once"))
    second_attempt = [at for seq, at in starts if seq == 1][1]
    assert sum(at < second_attempt for seq, at in starts if seq > 1) >= 4


@pytest.mark.parametrize("call", ["lanes.release_slot", "queue.forward", "lanes.claim", "lanes.save_slot_receipt"])
@pytest.mark.parametrize("wrong", list(Wrong))
def test_a_call_that_fails_leaves_no_slot_taken_and_frees_none_twice(call, wrong) -> None:
    for nth in (1, 2, 3):
        fault = Fault(call, nth, wrong, 300)
        starts_of(plan(bulk(8, 700, fails=1), limits="10/second; 2 at once", faults=(fault,)))


@pytest.mark.parametrize("lost_at", [30, 700, 1_900, 4_500])
@pytest.mark.parametrize("seed", range(extent(2, 4)))
def test_a_resume_brings_on_tasks_whose_messages_were_lost(lost_at, seed) -> None:
    """The end of the simulation resumes the lane."""
    lost = LoseMessages(lost_at, "ann")
    starts_of(plan(bulk(8, 700, fails=1), lost, limits="2/second; 2 at once", seed=seed))


def test_the_log_says_how_many_ran_beside_each_start() -> None:
    world = World(plan(bulk(6, 4_000)))
    assert not world.run().broken
    running = {event["seq"]: event["running"] for event in world.log.events}
    assert [running[seq] for seq in range(1, 7)] == [0, 1, 2, 2, 2, 2]


def test_a_line_of_a_task_that_runs_alone_says_nothing_of_others() -> None:
    world = World(plan(bulk(2, 5), limits="5/second"))
    assert not world.run().broken
    assert not any("running" in event for event in world.log.events)
