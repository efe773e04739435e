"""When schedules tick: changes of the clock, and what holds for each expression. Wall times are with their offset."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chalicelib.core.ticks import Timing, TimingError, check_timing, last_tick, next_tick, zone_of
from tests.extent import extent
from tests.factories import NOW

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ZURICH, NEW_YORK, LORD_HOWE = "Europe/Zurich", "America/New_York", "Australia/Lord_Howe"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def wall(at: int, zone: str) -> str:
    moment = datetime.fromtimestamp(at / 1000, zone_of(zone))
    return f"{moment:%Y-%m-%d %H:%M%z}"


def ticks(timing: Timing, after: int, until: int) -> list[int]:
    found, at = list[int](), next_tick(timing, after)
    while at is not None and at <= until:
        found.append(at)
        at = next_tick(timing, at)
    return found


@pytest.mark.parametrize(
    ("zone", "cron", "day", "expected"),
    [
        # Zurich: on 29 March 2026 02:00 becomes 03:00, on 25 October 03:00 becomes 02:00.
        (ZURICH, "30 2 * * *", "2026-03-29", ["03-29 03:00+0200"]),
        (ZURICH, "0 2 * * *", "2026-03-29", ["03-29 03:00+0200"]),
        (ZURICH, "0 3 * * *", "2026-03-29", ["03-29 03:00+0200"]),
        (ZURICH, "0,30 2 * * *", "2026-03-29", ["03-29 03:00+0200"]),
        (ZURICH, "*/30 2 * * *", "2026-03-29", ["03-29 03:00+0200"]),
        (ZURICH, "0 2,3 * * *", "2026-03-29", ["03-29 03:00+0200"]),
        (ZURICH, "0 2-4 * * *", "2026-03-29", ["03-29 03:00+0200", "03-29 04:00+0200"]),
        (ZURICH, "30 2 29 3 *", "2026-03-29", ["03-29 03:00+0200"]),
        (ZURICH, "30 2 * * *", "2026-10-25", ["10-25 02:30+0200"]),
        (ZURICH, "*/30 2 * * *", "2026-10-25", ["10-25 02:00+0200", "10-25 02:30+0200"]),
        (ZURICH, "0 2-3 * * *", "2026-10-25", ["10-25 02:00+0200", "10-25 03:00+0100"]),
        (ZURICH, "30 3 * * *", "2026-10-25", ["10-25 03:30+0100"]),
        # New York: on 8 March 2026 02:00 becomes 03:00, on 1 November 02:00 becomes 01:00.
        (NEW_YORK, "15 2 * * *", "2026-03-08", ["03-08 03:00-0400"]),
        (NEW_YORK, "15 2 * * SUN", "2026-03-08", ["03-08 03:00-0400"]),
        (NEW_YORK, "30 1 * * *", "2026-11-01", ["11-01 01:30-0400"]),
        (NEW_YORK, "0 */9 * * *", "2026-11-01", ["11-01 00:00-0400", "11-01 09:00-0500", "11-01 18:00-0500"]),
        # Lord Howe: on 5 April 2026 02:00 becomes 01:30, on 4 October 02:00 becomes 02:30.
        (LORD_HOWE, "45 1 * * *", "2026-04-05", ["04-05 01:45+1100"]),
        (LORD_HOWE, "15,45 1 * * *", "2026-04-05", ["04-05 01:15+1100", "04-05 01:45+1100"]),
        (LORD_HOWE, "15 2 * * *", "2026-10-04", ["10-04 02:30+1100"]),
        (LORD_HOWE, "15,45 2 * * *", "2026-10-04", ["10-04 02:30+1100", "10-04 02:45+1100"]),
        # A zone that skips midnight.
        ("America/Santiago", "30 0 * * *", "2026-09-06", ["09-06 01:00-0300"]),
    ],
)  # fmt: skip
def test_a_skipped_time_runs_once_after_the_gap_and_a_repeated_one_the_first_time(
    zone: str, cron: str, day: str, expected: list[str]
) -> None:
    start = int(datetime.fromisoformat(day).replace(tzinfo=zone_of(zone)).timestamp() * 1000)
    timing = Timing(cron, zone)
    found = ticks(timing, start - 1, start + 26 * HOUR_MS)
    assert [text[5:] for text in (wall(at, zone) for at in found) if text.startswith(day)] == expected


@pytest.mark.parametrize(
    ("zone", "cron", "day", "count"),
    [
        (ZURICH, "0 * * * *", "2026-03-29", 23),
        (ZURICH, "0 * * * *", "2026-10-25", 25),
        (ZURICH, "*/15 * * * *", "2026-10-25", 100),
        (NEW_YORK, "30 */1 * * *", "2026-03-08", 23),
        (NEW_YORK, "30 0-23 * * *", "2026-11-01", 25),
        (LORD_HOWE, "*/30 * * * *", "2026-04-05", 49),
        (LORD_HOWE, "*/30 * * * *", "2026-10-04", 47),
    ],
)
def test_with_all_hours_each_elapsed_hour_has_its_tick(zone: str, cron: str, day: str, count: int) -> None:
    moment = datetime.fromisoformat(day).replace(tzinfo=zone_of(zone))
    start, end = (int(one.timestamp() * 1000) for one in (moment, moment + timedelta(days=1)))
    found = ticks(Timing(cron, zone), start - 1, end - 1)
    assert len(found) == count
    assert len({later - earlier for earlier, later in pairwise(found)}) == 1


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 8 * * *", "2026-11-28T07:59:59+00:00", "2026-11-28T08:00:00+00:00"),
        ("0 8 * * *", "2026-11-28T08:00:00+00:00", "2026-11-29T08:00:00+00:00"),
        ("30 7 * * MON-FRI", "2026-11-27T08:00:00+00:00", "2026-11-30T07:30:00+00:00"),
        ("0 0 L * *", "2026-11-28T00:00:00+00:00", "2026-11-30T00:00:00+00:00"),
        ("0 0 29 2 *", "2026-11-28T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("0 9 1 JAN *", "2026-11-28T00:00:00+00:00", "2027-01-01T09:00:00+00:00"),
        ("0 9 * * 5#1", "2026-11-28T00:00:00+00:00", "2026-12-04T09:00:00+00:00"),
    ],
)
def test_the_next_tick_is_later_than_the_given_time(cron: str, after: str, expected: str) -> None:
    assert next_tick(Timing(cron), ms(after)) == ms(expected)


@pytest.mark.parametrize("first", ["2026-01-01T08:00:00+00:00", "2021-01-01T08:00:00+00:00"])
@pytest.mark.parametrize(
    ("cron", "now", "expected"),
    [
        ("0 8 * * *", "2026-11-28T07:59:59+00:00", "2026-11-27T08:00:00+00:00"),
        ("0 8 * * *", "2026-11-28T08:00:00+00:00", "2026-11-28T08:00:00+00:00"),
        ("* * * * *", "2026-11-28T07:59:59+00:00", "2026-11-28T07:59:00+00:00"),
        ("0 8 1 1 *", "2026-11-28T07:59:59+00:00", "2026-01-01T08:00:00+00:00"),
    ],
)
def test_of_missed_ticks_the_last_is_found(first: str, cron: str, now: str, expected: str) -> None:
    assert last_tick(Timing(cron), ms(first), ms(now)) == ms(expected)


CRONS = st.builds(
    lambda *fields: " ".join(fields),
    st.sampled_from(["*", "*/7", "0", "30", "15,45", "0-10", "*/30"]),
    st.sampled_from(["*", "*/2", "2", "1-3", "0,2,12", "23", "0-23"]),
    st.sampled_from(["*", "*", "1", "15,29", "L", "*/5"]),
    st.sampled_from(["*", "*", "*/2", "3,10", "APR"]),
    st.sampled_from(["*", "*", "SUN", "MON-FRI", "7#1"]),
)
ZONES = st.sampled_from([ZURICH, NEW_YORK, LORD_HOWE, "America/Santiago", "Africa/Casablanca", "Asia/Kathmandu", "UTC"])
#: Days around the changes of the clock in these zones, and any other time.
CHANGES = ["2026-03-08", "2026-03-29", "2026-04-05", "2026-09-06", "2026-10-04", "2026-10-25", "2026-11-01"]
TIMES = st.one_of(
    st.builds(
        lambda day, more: ms(f"{day}T00:00:00+00:00") + more, st.sampled_from(CHANGES), st.integers(-DAY_MS, DAY_MS)
    ),
    st.integers(NOW, NOW + 400 * DAY_MS),
)


@settings(max_examples=extent(30, 150), deadline=None)
@given(CRONS, ZONES, TIMES)
def test_ticks_increase_and_each_has_a_wall_time_of_its_own(cron: str, zone: str, after: int) -> None:
    timing, found, at = Timing(cron, zone), list[int](), after
    for _ in range(40):
        following = next_tick(timing, at)
        assert following is not None
        assert following > at
        at = following
        found.append(at)
    if cron.split()[1] not in ("*", "0-23"):  # with all hours a wall time comes again an hour later
        assert len({wall(one, zone)[:-5] for one in found}) == len(found)


@settings(max_examples=extent(30, 150), deadline=None)
@given(CRONS, ZONES, TIMES, st.integers(0, 3 * DAY_MS))
def test_ticks_do_not_depend_on_where_one_begins(cron: str, zone: str, after: int, later: int) -> None:
    timing = Timing(cron, zone)
    from_start = ticks(timing, after, after + 5 * DAY_MS)
    from_later = ticks(timing, after + later, after + 5 * DAY_MS)
    assert from_later == [at for at in from_start if at > after + later]


@settings(max_examples=extent(30, 150), deadline=None)
@given(CRONS, ZONES, TIMES, st.integers(0, 9 * DAY_MS))
def test_the_last_tick_is_the_one_before_the_next(cron: str, zone: str, after: int, passed: int) -> None:
    timing = Timing(cron, zone)
    first = next_tick(timing, after)
    assert first is not None
    assume(first < after + 40 * DAY_MS)
    now_ms = first + passed
    assert last_tick(timing, first, now_ms) == [first, *ticks(timing, first, now_ms)][-1]


@given(st.integers(1, 366 * 86_400), st.integers(0, NOW), st.integers(0, 10 * DAY_MS))
def test_intervals_keep_their_grid(every_seconds: int, anchor: int, passed: int) -> None:
    timing = Timing(every_seconds=every_seconds, anchor=anchor)
    first = next_tick(timing, anchor)
    assert first == anchor + every_seconds * 1000
    last = last_tick(timing, first, first + passed)
    assert (last - anchor) % (every_seconds * 1000) == 0
    assert first + passed - every_seconds * 1000 < last <= first + passed
    assert next_tick(timing, first + passed) == last + every_seconds * 1000


@pytest.mark.parametrize(
    ("timing", "field", "words"),
    [
        (Timing(), "cron", "neither"),
        (Timing("0 8 * * *", None, 60), "cron", "both"),
        (Timing("0 8 * *"), "cron", "5 fields"),
        (Timing("0 8 * * * *"), "cron", "5 fields"),
        (Timing("0 24 * * *"), "cron", "Bad hour"),
        (Timing("0 8 30 FEB *"), "cron", "Bad day-of-month"),
        (Timing("0 8 * * *", "Mars/Olympus"), "timezone", "not a known time zone"),
        (Timing(every_seconds=0), "every_seconds", "allowed: 1 to"),
        (Timing(every_seconds=60, timezone="UTC"), "timezone", "for `cron`"),
    ],
)
def test_an_error_names_the_field_and_the_fault(timing: Timing, field: str, words: str) -> None:
    with pytest.raises(TimingError, match=words) as error:
        check_timing(timing, NOW)
    assert error.value.field == field


def test_a_date_that_does_not_come_is_refused() -> None:
    with pytest.raises(TimingError, match="no time within"):
        check_timing(Timing("0 0 */31 * MON#5"), NOW)


def test_zones_come_from_the_package_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([])
    zoneinfo.ZoneInfo.clear_cache()
    zone_of.cache_clear()
    try:
        assert str(zone_of(LORD_HOWE)) == LORD_HOWE
    finally:
        zoneinfo.reset_tzpath(before)
        zone_of.cache_clear()
