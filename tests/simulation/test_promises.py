from dataclasses import replace

import pytest

from tests.extent import extent
from tests.simulation.mutants import LATE_REPEAT
from tests.simulation.schedule import (
    Behaviour,
    Cancel,
    Fault,
    ForgetLane,
    ForgetUser,
    Kill,
    LoseMessages,
    Outage,
    Pause,
    Plan,
    SetLimits,
    Submit,
    Wrong,
    draw,
    draw_cancels,
    draw_due,
    draw_emptyings,
    draw_forgettings,
    draw_units,
)
from tests.simulation.world import run

#: Seeds of a run; `make simulate N=…` goes on.
BATCHES = [range(start, start + 25) for start in range(0, extent(50, 250), 25)]
#: Of each special kind of schedule.
FEW = [range(start, start + 10) for start in range(0, extent(10, 80), 10)]


def assert_all_keep_promises(plan_of, seeds, option=""):
    for seed in seeds:
        result = run(plan_of(seed))
        story = f"python -m tests.simulation {option}--seed {seed} --tell"
        assert not result.broken, f"seed {seed}: {result.broken[0]}; {story}"


@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_no_schedule_breaks_a_promise(seeds):
    assert_all_keep_promises(draw, seeds)


@pytest.mark.parametrize("seeds", FEW, ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_no_schedule_of_tasks_due_at_one_time_breaks_a_promise(seeds):
    assert_all_keep_promises(draw_due, seeds, "--due ")


@pytest.mark.parametrize("seeds", FEW, ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_no_schedule_of_tasks_with_units_breaks_a_promise(seeds):
    assert_all_keep_promises(draw_units, seeds, "--units ")


@pytest.mark.parametrize("seeds", FEW, ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_no_schedule_of_running_tasks_that_are_cancelled_breaks_a_promise(seeds):
    assert_all_keep_promises(draw_cancels, seeds, "--cancels ")


@pytest.mark.parametrize("seeds", FEW, ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_no_schedule_of_lanes_that_are_emptied_breaks_a_promise(seeds):
    assert_all_keep_promises(draw_emptyings, seeds, "--emptyings ")


@pytest.mark.parametrize("seeds", FEW, ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_no_schedule_of_users_who_are_forgotten_breaks_a_promise(seeds):
    assert_all_keep_promises(draw_forgettings, seeds, "--forgettings ")


@pytest.mark.parametrize(("runs_ms", "forgotten_at"), [(5, 3_000), (3_000, 14_000), (3_000, 5_000)])
def test_task_whose_slow_submit_stores_it_after_its_user_was_forgotten_runs_once(runs_ms, forgotten_at):
    """Its worker dies in the longer ones. A resume at the end sends messages of unfinished tasks again."""
    first = submit(0, "first", Behaviour(runs_ms))
    slow = Fault("tasks.create_if_absent", 1, Wrong.SLOW_BEFORE, 20_000)
    assert_promises_kept(plan(first, Kill(1_000, 0), ForgetUser(forgotten_at, "ann"), faults=(slow,), workers=1))


@pytest.mark.parametrize("seed", range(4))
def test_quotas_over_100_keep_their_promises(seed):
    """Three bulks, which fill the large limit and wait for it, beside single tasks; one call fails."""
    bulk = tuple(Behaviour(0) for _ in range(60))
    submits = [Submit(at, "ann", f"b{at}", bulk) for at in (0, 50, 900)]
    submits += [submit(700 * number, f"s{number}", Behaviour(0)) for number in range(1, 9)]
    limits = SetLimits(9_000, "ann", "110/5 seconds; 30/second")
    fault = Fault("lanes.claim", 2 + seed, (Wrong.LOST, Wrong.REPEATED, Wrong.DIED_AFTER, Wrong.REFUSED)[seed], 50)
    assert_promises_kept(plan(*submits, limits, faults=(fault,), limits="101/10 seconds; 150/20 seconds", seed=seed))


def test_a_seed_gives_the_same_story_each_time():
    assert run(draw(7)).story == run(draw(7)).story


# Each of these broke a promise once.


def assert_promises_kept(plan: Plan) -> None:
    result = run(plan)
    assert not result.broken, "\n".join([*result.story, *map(str, result.broken)])


def plan(*actions, faults=(), outages=(), limits="5/second", is_lambda=True, workers=2, max_attempts=3, seed=0):
    offsets = (0,) * (2 + workers)
    return Plan(seed, limits, is_lambda, workers, offsets, actions, faults, outages, max_attempts)


def submit(at: int, tag: str, *behaviours: Behaviour, key: str | None = None) -> Submit:
    return Submit(at, "ann", tag, behaviours or (Behaviour(),), key)


@pytest.mark.parametrize("seed", range(extent(4, 20)))
def test_a_late_predecessor_is_looked_for_however_old_the_task(seed):
    """seeds 2 and 1088: after two seconds the worker took the later task without looking."""
    first = submit(770, "first", Behaviour(runs_ms=8000, fails=4), Behaviour())
    slow = Fault("queue.send_many", 1, Wrong.SLOW_BEFORE, 1500)
    assert_promises_kept(plan(first, submit(770, "later"), faults=(slow,), seed=seed, max_attempts=2))


@pytest.mark.parametrize("seed", range(extent(4, 20)))
def test_a_retry_of_a_task_that_ran_in_place_of_a_later_one_counts(seed):
    """seed 27: the later task took the lease, and the count began anew."""
    slow = Fault("queue.send", 1, Wrong.SLOW_BEFORE, 30)
    first, later = submit(150, "first", Behaviour(fails=4)), submit(150, "later")
    assert_promises_kept(plan(first, later, faults=(slow,), limits="2/3 seconds", seed=seed, max_attempts=2))


@pytest.mark.parametrize("seed", range(extent(4, 20)))
def test_a_repeat_of_a_failed_bulk_submit_is_not_cancelled(seed):
    """seed 218: the first try cancelled what it had sent, and the repeat was answered with those tasks."""
    first = submit(1100, "bulk", Behaviour(), Behaviour(), key="k")
    again = submit(4203, "bulk", Behaviour(), Behaviour(), key="k")
    assert_promises_kept(plan(first, again, faults=(Fault("queue.send_many", 1, Wrong.LOST),), seed=seed))


@pytest.mark.parametrize("seed", range(extent(4, 20)))
def test_a_cancelled_task_that_comes_late_is_logged(seed):
    """seed 259: a later one had started, so its end was taken for logged."""
    actions = (
        submit(0, "one"),
        submit(1100, "two"),
        submit(1100, "late"),
        submit(1250, "next"),
        Cancel(2350, "ann", 0),
    )
    slow = Fault("queue.send", 3, Wrong.SLOW_BEFORE, 300)
    assert_promises_kept(plan(*actions, faults=(slow,), limits="2/3 seconds", is_lambda=False, workers=1, seed=seed))


@pytest.mark.parametrize("wrong", [Wrong.DIED_AFTER, Wrong.LOST, Wrong.REPEATED])
def test_the_end_of_a_cancelled_task_is_logged_whatever_happens_to_its_passing_over(wrong):
    actions = (submit(0, "one"), submit(0, "two"), Cancel(100, "ann", 0))
    for nth in (1, 2, 3):
        assert_promises_kept(plan(*actions, faults=(Fault("lanes.change", nth, wrong, 30),), limits="1/3 seconds"))


def test_a_cancellation_that_could_not_be_logged_is_logged_later():
    actions = (submit(0, "one"), submit(0, "two"), Cancel(100, "ann", 0))
    assert_promises_kept(plan(*actions, outages=(Outage(2_000, 8_000, "log."),), limits="1/3 seconds"))


def test_a_worker_that_remembers_a_lane_from_before_it_was_deleted_claims_nothing_twice():
    """seed 1183: its idea of what came last made the quick claim fit."""
    before = tuple(submit(100 * n, f"before{n}") for n in range(4))
    after = (submit(100_000, "a"), submit(100_300, "b"), submit(100_600, "c", Behaviour(runs_ms=0, kills=1)))
    for seed in range(extent(4, 20)):
        assert_promises_kept(plan(*before, ForgetLane(90_000, "ann"), *after, workers=3, is_lambda=False, seed=seed))


@pytest.mark.parametrize("lost_after_ms", [30, 300, 1_500])
@pytest.mark.parametrize("key", [None, "k"])
def test_what_began_of_a_failed_bulk_submit_is_not_cancelled(lost_after_ms, key):
    """seeds 218 and 1459: the answer to the send was lost while the first task ran; it ended twice, or ran twice."""
    first = submit(0, "bulk", Behaviour(), Behaviour(), key=key)
    again = (submit(8_000, "bulk", Behaviour(), Behaviour(), key=key),) if key else ()
    lost = Fault("queue.send_many", 1, Wrong.LOST, lost_after_ms)
    assert_promises_kept(plan(first, *again, faults=(lost,)))


@pytest.mark.parametrize("seed", range(extent(4, 20)))
def test_a_worker_cut_off_for_longer_than_its_lease_keeps_its_task(seed):
    """Another one on the same machine sees that it lives."""
    long = submit(0, "long", Behaviour(runs_ms=25_000))
    for worker in (0, 1):
        cut_off = Outage(1_000, 20_000, "", worker)
        assert_promises_kept(plan(long, outages=(cut_off,), is_lambda=False, seed=seed))


def test_a_repeat_is_not_told_that_nothing_is_queued_when_its_first_try_was():
    """The answer to the send was lost, and the lane has no room when the request comes again."""
    first, again = submit(0, "one", key="k"), submit(8_000, "one", key="k")
    again = replace(again, is_strict=True)
    lost = Fault("queue.send", 1, Wrong.LOST, 30)
    others = tuple(submit(7_900, f"other{n}") for n in range(2))
    assert_promises_kept(plan(first, *others, again, faults=(lost,), limits="1/10 seconds"))


@pytest.mark.parametrize("seed", range(extent(3, 10)))
def test_an_outcome_that_is_stored_twice_at_once_is_harmless(seed):
    """seed 3310: the message that logs a scheduled task's cancellation was there twice."""
    scheduled = replace(submit(0, "scheduled"), delay_ms=20_000)
    twice = Fault("scheduled_queue.send", 2, Wrong.REPEATED, 0)
    assert_promises_kept(plan(scheduled, Cancel(1_000, "ann", 0), faults=(twice,), workers=1, seed=seed))


@pytest.mark.parametrize("seed", range(extent(3, 10)))
def test_a_scheduled_task_that_is_cancelled_twice_at_once_keeps_the_promises(seed):
    """Both found it waiting, and each sent a message."""
    scheduled, cancel = replace(submit(0, "scheduled"), delay_ms=20_000), Cancel(1_000, "ann", 0)
    assert_promises_kept(plan(scheduled, cancel, cancel, seed=seed))


@pytest.mark.parametrize("seed", range(5))
def test_a_parked_task_that_is_cancelled_between_note_and_send_is_logged(seed):
    """seeds 7697 and 8508: it was admitted and had no message, so no worker skipped it."""
    scheduled = replace(submit(1_000, "scheduled"), delay_ms=200)
    assert_promises_kept(plan(scheduled, Cancel(8_000, "ann", 0), outages=(Outage(0, 3_000, "queue."),), seed=seed))


@pytest.mark.parametrize("seed", range(extent(4, 20)))
@pytest.mark.parametrize(
    "call", ["lanes.change", "lanes.save_head_receipt", "queue.defer", "tasks.finish", "log.write"]
)
def test_a_task_that_is_cancelled_between_two_attempts_is_logged_once(seed, call):
    first, later = submit(0, "first", Behaviour(fails=2)), submit(300, "later")
    wrong = (Wrong.REFUSED, Wrong.LOST, Wrong.REPEATED, Wrong.DIED_AFTER, Wrong.SLOW_BEFORE)[seed % 5]
    actions = (first, later, Cancel(600, "ann", 1), Cancel(900, "ann", 1))
    for nth in (1, 2):
        faults = (Fault(call, nth, wrong, 300),)
        for limits in ("5/second", "1/second; 3/10 seconds"):
            assert_promises_kept(plan(*actions, faults=faults, limits=limits, seed=seed))


def test_a_repeat_that_comes_when_the_queue_has_forgotten_the_first_try_runs_nothing_twice():
    """Only the mark of a repeat in the message makes the worker look at the record."""
    assert_promises_kept(LATE_REPEAT)


LOSSES = (30, 700, 1_900, 2_600, 4_500, 9_000)


@pytest.mark.parametrize("lost_at", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_a_submit_brings_on_a_lane_whose_messages_were_lost(lost_at, seed):
    """Also a task between two attempts, of which only its lease tells."""
    ends = Behaviour(fails=1), Behaviour(holds=1), Behaviour()
    first = [submit(100 * n, f"first{n}", one) for n, one in enumerate(ends)]
    later = submit(30_000, "later"), submit(60_000, "last", Behaviour(kills=1))
    assert_promises_kept(plan(*first, LoseMessages(lost_at, "ann"), *later, limits="2/3 seconds", seed=seed))


@pytest.mark.parametrize("cancelled", [(), (Cancel(300_000, "ann", 0),)], ids=["newest waits", "newest is cancelled"])
@pytest.mark.parametrize("paused_at", [150, 700, 1_500])
def test_a_resume_brings_on_a_lane_whose_messages_were_lost(paused_at, cancelled):
    ends = Behaviour(fails=1), Behaviour(holds=1), Behaviour(), Behaviour()
    tasks = [submit(30 * n, f"task{n}", one) for n, one in enumerate(ends)]
    lost = LoseMessages(400_000, "ann")
    for seed in range(4):
        actions = (*tasks, Pause(paused_at, "ann", None), *cancelled, lost)
        assert_promises_kept(plan(*actions, limits="2/3 seconds", seed=seed))
