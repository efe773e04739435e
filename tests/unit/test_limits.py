import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import LimitsError
from chalicelib.core.limits import (
    Limit,
    Limits,
    at_once,
    earliest_start,
    fingerprint,
    format_limits,
    memory_needed,
    parse_limits,
    used,
)
from tests.strategies import Step, any_limits, steps
from tests.windows import assert_pace_kept, breaks_a_limit

DEFAULT = parse_limits("1/second; 20/minute")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/second", [(1, 1_000)]),
        ("1/second; 20/minute", [(1, 1_000), (20, 60_000)]),
        ("20/minute; 1/second", [(1, 1_000), (20, 60_000)]),
        ("1/second, 20/minute\n100/hour", [(1, 1_000), (20, 60_000), (100, 3_600_000)]),
        (" 5 / 10 seconds ;", [(5, 10_000)]),
        ("5/10seconds", [(5, 10_000)]),
        ("20 per 5 minutes", [(20, 300_000)]),
        ("3 PER Day", [(3, 86_400_000)]),
        ("1/s", [(1, 1_000)]),
        ("1/sec", [(1, 1_000)]),
        ("1/30 secs", [(1, 30_000)]),
        ("1/m", [(1, 60_000)]),
        ("1/5 mins", [(1, 300_000)]),
        ("1/h", [(1, 3_600_000)]),
        ("1/7 d", [(1, 604_800_000)]),
        ("100/second", [(100, 1_000)]),
    ],
)
def test_text_names_limits_shortest_window_first(text: str, expected: list[tuple[int, int]]) -> None:
    assert [(limit.quota, limit.window_ms) for limit in parse_limits(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90000 units/minute", [Limit(90_000, 60_000, counts_units=True)]),
        ("90000 units per 2 minutes", [Limit(90_000, 120_000, counts_units=True)]),
        ("90000units/m", [Limit(90_000, 60_000, counts_units=True)]),
        ("1 unit/second", [Limit(1, 1_000, counts_units=True)]),
        ("90000 units/minute; 500/minute", [Limit(500, 60_000), Limit(90_000, 60_000, counts_units=True)]),
        ("1000000/31 days", [Limit(1_000_000, 2_678_400_000)]),
    ],
)
def test_limits_count_starts_or_units(text: str, expected: list[Limit]) -> None:
    assert parse_limits(text) == tuple(expected)
    assert parse_limits(format_limits(parse_limits(text))) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "count", "formatted"),
    [
        ("1/second; 20/minute; 5 at once", 5, "1/second; 20/minute; 5 at once"),
        ("100 AT  once, 1/s", 100, "1/second; 100 at once"),
        ("1/second; 1 at once", 1, "1/second; 1 at once"),
        ("1/s; 1/m; 1/h; 1/d; 1/2s; 2 at once", 2, "1/second; 1/2 seconds; 1/minute; 1/hour; 1/day; 2 at once"),
        ("1/second", 1, "1/second"),
    ],
)
def test_limits_say_how_many_tasks_run_at_once(text: str, count: int, formatted: str) -> None:
    limits = parse_limits(text)
    assert (at_once(limits), format_limits(limits)) == (count, formatted)
    assert parse_limits(formatted) == limits


def test_limits_with_another_number_at_once_are_other_limits() -> None:
    texts = ["1/second", "1/second; 1 at once", "1/second; 2 at once", "1/second; 3 at once"]
    limits = [parse_limits(text) for text in texts]
    assert len(set(limits)) == len(set(map(fingerprint, limits))) == 4
    assert all((one == other) == (one is other) for one in limits for other in limits)
    assert pickle.loads(pickle.dumps(limits)) == limits


@pytest.mark.parametrize("text", ["5 at once", "1/second; 0 at once", "1/second; 101 at once"])
def test_a_number_at_once_is_from_1_to_100_and_beside_a_limit(text: str) -> None:
    with pytest.raises(LimitsError, match="allowed: up to 5 limits"):
        parse_limits(text)


@pytest.mark.parametrize("text", ["1/second; 2 at once; 3 at once", "1/second; 2 at once; 2 at once"])
def test_a_number_at_once_is_said_once(text: str) -> None:
    with pytest.raises(LimitsError, match="may say once"):
        parse_limits(text)


def test_limits_over_100_and_those_of_units_are_large() -> None:
    limits = parse_limits("100/second; 101/minute; 5 units/hour")
    assert [limit.is_large for limit in limits] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "part_named"),
    [
        ("", "0 limits"),
        (" ; ", "0 limits"),
        ("1/s;1/m;1/h;1/d;1/2s;1/3s", "6 limits"),
        ("often", "'often' is not a valid limit"),
        ("1", "'1' is not a valid limit"),
        ("1/", "'1/' is not a valid limit"),
        ("/second", "'/second' is not a valid limit"),
        ("-1/second", "'-1/second' is not a valid limit"),
        ("1.5/second", "'1.5/second' is not a valid limit"),
        ("1e1/second", "'1e1/second' is not a valid limit"),
        ("1/fortnight", "'1/fortnight' is not a valid limit"),
        ("1/hs", "'1/hs' is not a valid limit"),
        ("1/ss", "'1/ss' is not a valid limit"),
        ("1/secondss", "'1/secondss' is not a valid limit"),
        ("1 second", "'1 second' is not a valid limit"),
        ("1/second/minute", "is not a valid limit"),
        ("9999999999/second", "is not a valid limit"),
        ("1/second; twice", "'twice' is not a valid limit"),
        ("0/second", "the quota of '0/second' is 0"),
        ("1000001/second", "the quota of '1000001/second' is 1000001"),
        ("0 units/second", "the quota of '0 units/second' is 0"),
        ("5 unitss/second", "is not a valid limit"),
        ("5 units", "is not a valid limit"),
        ("units/second", "is not a valid limit"),
        ("1/0 seconds", "the window of '1/0 seconds' is 0 seconds"),
        ("1/32 days", "is 2764800 seconds"),
        ("1/999999999 days", "the window of"),
        ("1/second; 2/second", "the same window"),
        ("1/60 seconds; 20/minute", "the same window"),
        ("1 unit/60 seconds; 20 units/minute", "the same window"),
    ],
)
def test_anything_else_is_refused_and_says_what_is_allowed(text: str, part_named: str) -> None:
    with pytest.raises(LimitsError) as refusal:
        parse_limits(text)
    assert part_named in str(refusal.value)
    assert "allowed: up to 5 limits such as '1/second; 20/minute'" in str(refusal.value)


def test_refusal_of_a_very_long_text_stays_short() -> None:
    with pytest.raises(LimitsError) as refusal:
        parse_limits("x" * 100_000)
    assert len(str(refusal.value)) < 1_000


@given(any_limits())
def test_formatted_limits_read_back_the_same(limits: Limits) -> None:
    assert parse_limits(format_limits(limits)) == limits


@pytest.mark.parametrize(
    ("limit", "name", "text"),
    [
        (Limit(1, 1_000), "second", "1/second"),
        (Limit(5, 10_000), "10-seconds", "5/10 seconds"),
        (Limit(5, 90_000), "90-seconds", "5/90 seconds"),
        (Limit(20, 60_000), "minute", "20/minute"),
        (Limit(2, 7_200_000), "2-hours", "2/2 hours"),
        (Limit(2, 604_800_000), "7-days", "2/7 days"),
        (Limit(90_000, 60_000, counts_units=True), "minute-units", "90000 units/minute"),
        (Limit(5, 10_000, counts_units=True), "10-seconds-units", "5 units/10 seconds"),
    ],
)
def test_limit_is_named_by_its_largest_whole_unit(limit: Limit, name: str, text: str) -> None:
    assert (limit.name, str(limit)) == (name, text)


def every_second(first_ms: int, how_many: int) -> list[int]:
    """Starts a second apart, newest first."""
    return [first_ms + 1_000 * i for i in reversed(range(how_many))]


@pytest.mark.parametrize(
    ("situation", "starts", "now_ms", "expected"),
    [
        ("nothing started yet", [], 5_000, 5_000),
        ("a second ago to the millisecond", [4_000], 5_000, 5_000),
        ("a millisecond less than a second ago", [4_001], 5_000, 5_001),
        ("right now", [5_000], 5_000, 6_000),
        ("planned for later", [9_000], 5_000, 10_000),
        ("the clock stepped back behind the newest start", [9_000], 1_000, 10_000),
        ("19 in the last minute", every_second(0, 19), 19_000, 19_000),
        ("20 in the last minute", every_second(0, 20), 20_000, 60_000),
        ("20, the oldest leaves its minute now", every_second(0, 20), 60_000, 60_000),
        ("21, of which the oldest is out of its minute", every_second(0, 21), 60_000, 61_000),
        ("20, long ago", every_second(0, 20), 1_000_000, 1_000_000),
    ],
)
def test_earliest_start_under_1_a_second_and_20_a_minute(
    situation: str, starts: list[int], now_ms: int, expected: int
) -> None:
    assert earliest_start(starts, DEFAULT, now_ms) == expected


@pytest.mark.parametrize(
    ("situation", "starts", "forgotten", "expected"),
    [
        ("all of the quota is known", [9_000, 8_000, 7_000], True, 17_000),
        ("one is forgotten: as new as the oldest known one", [9_000, 8_000], True, 18_000),
        ("nothing is forgotten", [9_000, 8_000], False, 10_000),
        ("all is forgotten: nothing can be said", [], True, 10_000),
    ],
)
def test_forgotten_starts_are_taken_to_be_as_new_as_can_be(
    situation: str, starts: list[int], forgotten: bool, expected: int
) -> None:
    assert earliest_start(starts, parse_limits("3/10 seconds"), 10_000, forgotten) == expected


@pytest.mark.parametrize(
    ("starts", "now_ms", "taken"),
    [([], 5_000, 0), ([4_000], 5_000, 0), ([4_001], 5_000, 1), ([6_000, 5_500], 5_000, 2), ([9, 8, 7], 5, 2)],
)
def test_used_counts_starts_in_the_window_and_planned_ones_up_to_the_quota(
    starts: list[int], now_ms: int, taken: int
) -> None:
    assert used(starts, Limit(2, 1_000), now_ms) == taken


def play(steps_taken: list[Step], limits: Limits, starts: list[int] | None = None) -> list[int]:
    """Starts, newest first, each as early as allowed, of someone who asks after each step of the clock."""
    now_ms, starts = 100_000, list(starts or [])
    for step in steps_taken:
        now_ms += step.milliseconds
        starts.insert(0, earliest_start(starts, limits, now_ms))
    return starts


@given(any_limits(), st.lists(steps(), max_size=60))
def test_no_window_anywhere_holds_more_than_its_quota(limits: Limits, taken: list[Step]) -> None:
    assert_pace_kept(play(taken, limits), limits)


@given(any_limits(), st.lists(steps(back_ms=5_000), max_size=60))
def test_clock_that_steps_back_breaks_neither_pace_nor_order(limits: Limits, taken: list[Step]) -> None:
    starts = play(taken, limits)
    assert_pace_kept(starts, limits)
    assert starts == sorted(starts, reverse=True)


@given(any_limits(), st.lists(steps(), max_size=40), steps())
def test_start_is_never_later_than_needed(limits: Limits, taken: list[Step], last: Step) -> None:
    starts = play(taken, limits)
    now_ms = max([100_000, *starts]) - 3_000 + last.milliseconds
    at = earliest_start(starts, limits, now_ms)
    if at > max([now_ms, *starts[:1]]):
        assert breaks_a_limit(starts, at - 1, limits)
    else:
        assert at == max([now_ms, *starts[:1]])


@given(st.lists(st.tuples(any_limits(), steps(back_ms=2_000)), max_size=60))
def test_changed_limits_hold_for_every_window_that_a_later_start_is_in(changes: list[tuple[Limits, Step]]) -> None:
    now_ms, starts = 100_000, list[int]()
    for limits, step in changes:
        now_ms += step.milliseconds
        at = earliest_start(starts, limits, now_ms)
        assert not breaks_a_limit(starts, at, limits)
        starts.insert(0, at)


@given(st.lists(st.tuples(any_limits(), steps(back_ms=2_000)), max_size=60))
def test_what_a_trimmed_list_forgot_never_makes_a_start_too_early(changes: list[tuple[Limits, Step]]) -> None:
    now_ms, history, kept = 100_000, list[int](), list[int]()
    for limits, step in changes:
        now_ms += step.milliseconds
        at = earliest_start(kept, limits, now_ms, forgotten=len(history) > len(kept))
        assert at >= earliest_start(history, limits, now_ms)
        history, kept = [at, *history], [at, *kept][: memory_needed(limits)]


@given(any_limits(), st.lists(steps(), max_size=60))
def test_trimming_costs_nothing_while_limits_stay(limits: Limits, taken: list[Step]) -> None:
    now_ms, kept = 100_000, list[int]()
    for total, step in enumerate(taken):
        now_ms += step.milliseconds
        kept = [earliest_start(kept, limits, now_ms, forgotten=total > len(kept)), *kept][: memory_needed(limits)]
    assert kept == play(taken, limits)[: memory_needed(limits)]


def test_worst_case_of_a_fixed_window_is_not_allowed() -> None:
    """20 at the end of a minute and 20 at the beginning of the next: a counter by the clock's minute lets them all."""
    limits: Any = parse_limits("20/minute")
    burst = [Step(0)] * 40
    starts = sorted(play(burst, limits))
    assert starts[19] == 100_000
    assert starts[20] == 160_000
