import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.limits import Limit, earliest_start, parse_limits
from completions.audit import audit
from completions.reader import LogLine, completions_folder, read_completions
from completions.report import AtOnce, Breach, Lateness, Report
from completions.windows import Start, Used, busiest_windows, trailing_units, trailing_windows
from tests.unit.command_line import call
from tests.unit.completion_lines import NOW, STREAM, completion_text, write_stream

LIMITS = parse_limits("1/second; 20/minute")
times = st.lists(st.integers(0, 60), max_size=25).map(sorted)


def audited(*texts: str, limits: str = "1/second; 20/minute") -> Report:
    return audit(read_completions(LogLine(STREAM, text) for text in texts), parse_limits(limits))


def kinds(report: Report) -> list[str]:
    return [breach.kind for breach in report.breaches]


def most_by_brute_force(starts: Sequence[int], window_ms: int) -> int:
    begins = range(min(starts, default=0) - window_ms, max(starts, default=0) + 1)
    return max(sum(begin <= start < begin + window_ms for start in starts) for begin in begins)


@given(times, st.integers(1, 30))
def test_fullest_window_is_that_of_brute_force(starts: list[int], window_ms: int) -> None:
    found = max((count for _, count in trailing_windows(starts, window_ms)), default=0)

    assert found == most_by_brute_force(starts, window_ms)


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["1/second", "2/second; 3/minute"])), max_size=20))
def test_each_start_is_held_against_its_own_limits(chosen: list[tuple[int, str]]) -> None:
    chosen.sort(key=lambda start: start[0])
    starts = [Start(at * 500, seq, parse_limits(limits)) for seq, (at, limits) in enumerate(chosen)]

    found = busiest_windows(starts)

    for limit in {limit for start in starts for limit in start.limits}:
        counts = [
            sum(start.at - limit.window_ms < earlier.at for earlier in starts[: place + 1])
            for place, start in enumerate(starts)
            if limit in start.limits
        ]
        assert found[limit].most == max(counts)
        assert found[limit].examined == len(counts)
        assert found[limit].too_early == sum(count > limit.quota for count in counts)


reports = st.none() | st.builds(Used, st.integers(0, 9), st.integers(0, 80))
unit_starts = st.builds(Start, st.integers(0, 60), st.integers(1, 9), st.just(()), st.integers(1, 9), reports)


def units_by_brute_force(starts: Sequence[Start], last: int, window_ms: int) -> int:
    """What the window that ends with a start holds, by the reports that were known then."""
    end, total = starts[last], 0
    for place, start in enumerate(starts):
        used, known_at, units = start.used, max(start.at, start.used.at) if start.used else None, start.units
        if used and used.at <= start.at and [one.at for one in starts].count(start.at) > 1:
            units = min(start.units, used.units)
        is_known = known_at is not None and (known_at, start.seq, place) < (end.at, end.seq, last)
        is_known = is_known or bool(used and known_at == end.at > start.at and used.units < units)
        counts = min(units, used.units) if used and is_known else units
        total += counts if place <= last and start.at > end.at - window_ms else 0
        if used and known_at is not None and is_known and known_at > end.at - window_ms:
            total += max(0, used.units - units)
    return total


@given(st.lists(unit_starts, max_size=20), st.integers(1, 30))
def test_units_in_a_window_are_those_of_brute_force(starts: list[Start], window_ms: int) -> None:
    starts.sort(key=lambda start: (start.at, start.seq))
    found = [total for _, total in trailing_units(starts, window_ms)]

    assert found == [units_by_brute_force(starts, last, window_ms) for last in range(len(starts))]


def test_report_counts_from_when_it_was_known() -> None:
    starts = [Start(0, 1, (), 5, Used(2, 300)), Start(400, 2, (), 4, Used(9, 600)), Start(1_100, 3, (), 1)]

    assert list(trailing_units(starts, 1_000)) == [(0, 5), (0, 6), (400, 10)]


def test_fewer_units_may_have_been_known_to_a_start_of_the_same_millisecond() -> None:
    """Whichever task has the lower seq: they ran beside each other."""
    for seq in (1, 3):
        starts = [Start(0, 2, (), 6, Used(2, 5)), Start(5, seq, (), 6)]
        assert list(trailing_units(starts, 1_000)) == [(0, 6), (0, 8)]
    one_ms = [Start(5, 1, (), 6), Start(5, 2, (), 6, Used(2, 5))]
    assert list(trailing_units(one_ms, 1_000)) == [(5, 6), (5, 8)]


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=40))
def test_starts_at_their_earliest_are_clean_and_one_ms_sooner_is_not(gaps: list[int]) -> None:
    starts: list[int] = []
    now = NOW
    for gap in gaps:
        now = earliest_start(starts, LIMITS, now + gap)
        starts.insert(0, now)
    too_early = earliest_start(starts, LIMITS, starts[0]) - 1
    texts = [completion_text(seq, at) for seq, at in enumerate(reversed(starts), 1)]

    assert audited(*texts).clean
    assert set(kinds(audited(*texts, completion_text(99, too_early)))) == {"pace"}


def test_window_is_half_open() -> None:
    assert audited(completion_text(1, NOW), completion_text(2, NOW + 1000)).clean
    assert kinds(audited(completion_text(1, NOW), completion_text(2, NOW + 999))) == ["pace"]


def test_broken_pace_names_user_time_and_limit() -> None:
    report = audited(
        *(completion_text(seq, NOW + seq * 1000, user_id="calm") for seq in range(5)),
        *(completion_text(seq, NOW + 10_000 + seq * 400, user_id="hasty") for seq in range(3)),
    )

    row = report.limits[0]
    assert (row.starts, row.most, row.user_id) == (8, 3, "hasty")
    assert (row.first_at, row.last_at) == (NOW + 10_000, NOW + 10_800)
    assert report.breaches == [
        Breach("pace", "hasty", NOW + 10_000, "1/second: 3 starts within 800 ms; 2 of 3 starts too early")
    ]


def test_longer_window_is_checked_too() -> None:
    texts = [completion_text(seq, NOW + seq * 1000) for seq in range(21)]

    assert audited(*texts[:20]).clean
    assert [breach.what[:9] for breach in audited(*texts).breaches] == ["20/minute"]


def test_starts_of_earlier_attempts_count() -> None:
    assert kinds(audited(completion_text(1, NOW, starts=[NOW - 999], planned_at=NOW - 999))) == ["pace"]
    assert audited(completion_text(1, NOW, starts=[NOW - 1000], planned_at=NOW - 1000)).clean


def test_users_do_not_share_a_window() -> None:
    assert audited(*(completion_text(1, NOW, user_id=user) for user in "abc")).clean


def test_own_limits_replace_the_default_ones() -> None:
    texts = [completion_text(seq, NOW + seq * 200, limits="5/second") for seq in range(10)]

    report = audited(*texts)

    assert report.clean
    assert [(str(row.limit), row.starts, row.most) for row in report.limits] == [
        ("1/second", 0, 0),
        ("20/minute", 0, 0),
        ("5/second", 10, 5),
    ]
    assert kinds(audited(*texts, completion_text(10, NOW + 1_900, limits="5/second"))) == ["pace"]


def test_lower_limit_looks_back_on_what_a_higher_one_allowed() -> None:
    fast = [completion_text(seq, NOW + seq * 200, limits="5/second") for seq in range(5)]

    assert kinds(audited(*fast, completion_text(5, NOW + 1_799))) == ["pace"]
    assert audited(*fast, completion_text(5, NOW + 1_800)).clean


UNITS = "100 units/minute"


def test_limit_of_units_counts_what_each_start_counts_for() -> None:
    texts = [completion_text(seq, NOW + seq * 1000, units=40) for seq in range(3)]

    report = audited(*texts, limits=UNITS)

    assert audited(*texts[:2], limits=UNITS).clean
    assert [(str(row.limit), row.starts, row.most) for row in report.limits] == [("100 units/minute", 3, 120)]
    assert report.breaches == [
        Breach("pace", "user123", NOW, "100 units/minute: 120 units within 2000 ms; 1 of 3 starts too early")
    ]


def test_line_without_units_counts_one() -> None:
    texts = [completion_text(seq, NOW + seq) for seq in range(101)]

    assert audited(*texts[:100], limits=UNITS).clean
    assert kinds(audited(*texts, limits=UNITS)) == ["pace"]


def test_units_that_a_task_did_not_use_count_until_it_ended() -> None:
    saving = completion_text(1, NOW, units=90, used_units=20, completed_at=NOW + 5_000)

    assert audited(saving, completion_text(2, NOW + 5_000, units=80), limits=UNITS).clean
    assert kinds(audited(saving, completion_text(2, NOW + 5_000, units=81), limits=UNITS)) == ["pace"]
    assert kinds(audited(saving, completion_text(2, NOW + 4_999, units=80), limits=UNITS)) == ["pace"]


def test_units_that_a_task_used_beyond_its_own_count_from_its_end_on() -> None:
    spending = completion_text(1, NOW, units=20, used_units=90, completed_at=NOW + 5_000)
    last = NOW + 5_000 + 60_000

    assert audited(spending, limits=UNITS).clean
    assert audited(spending, completion_text(2, NOW + 5_000, units=10), limits=UNITS).clean
    assert kinds(audited(spending, completion_text(2, NOW + 5_000, units=11), limits=UNITS)) == ["pace"]
    assert audited(spending, completion_text(2, NOW + 60_000, units=30), limits=UNITS).clean
    assert kinds(audited(spending, completion_text(2, last - 1, units=31), limits=UNITS)) == ["pace"]
    assert audited(spending, completion_text(2, last, units=31), limits=UNITS).clean


def test_each_attempt_has_a_report_of_its_own() -> None:
    retried = {"starts": [NOW], "planned_at": NOW, "units": 60}
    second = NOW + 9_000
    silent = completion_text(1, second, **retried)
    thrifty = completion_text(1, second, **retried, starts_used=[{"units": 40, "at": second}])

    assert kinds(audited(silent, limits=UNITS)) == ["pace"]
    assert audited(thrifty, limits=UNITS).clean
    assert kinds(audited(thrifty.replace(f'"at": {second}', f'"at": {second + 1}'), limits=UNITS)) == ["pace"]


def test_lines_of_one_start_share_the_report_that_one_of_them_has() -> None:
    logged = completion_text(1, NOW, units=60, used_units=10)
    given_up = completion_text(1, NOW, units=60, event="task_failed", completed_at=NOW + 10_000)
    next_one = completion_text(2, NOW + 20_000, units=90)

    for lines in ((logged, given_up), (given_up, logged)):
        assert audited(*lines, next_one, limits=UNITS).clean


def test_units_count_also_where_the_limits_of_then_counted_starts() -> None:
    before = completion_text(1, NOW, units=70, limits="500/minute")
    after = completion_text(2, NOW + 1_000, units=31, limits=UNITS)

    assert audited(before, after.replace("31", "30")).clean
    assert kinds(audited(before, after)) == ["pace"]


def test_large_limits_are_counted_to_the_millisecond() -> None:
    texts = [completion_text(seq, NOW + seq, limits="1000/minute; 2000/hour") for seq in range(1000)]
    sooner, legal = (completion_text(1001, NOW + at, limits="1000/minute") for at in (59_999, 60_000))

    assert audited(*texts, legal).clean
    assert kinds(audited(*texts, sooner)) == ["pace"]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"units": 0}, {"units": 1.5}, {"units": None}, {"used_units": -1}, {"used_units": "many"}),
        *({"starts_used": [1]}, {"starts_used": []}, {"starts_used": [{"units": 1}]}, {"starts_used": {"units": 1}}),
    ],
)
def test_line_with_wrong_units_is_skipped(wrong: dict[str, object]) -> None:
    text = completion_text(1, NOW, starts=[NOW - 3_000], planned_at=NOW - 3_000)

    assert audited(json.dumps({**json.loads(text), **wrong})).skipped


def test_task_that_failed_before_it_could_start_is_no_fault() -> None:
    too_large = completion_text(
        2, None, event="task_failed", attempt=0, units=500, planned_at=NOW, late_ms=None, result=None, error="too large"
    )

    report = audited(completion_text(1, NOW, units=50), too_large, limits=UNITS)

    assert (report.clean, report.starts, report.events) == (True, 1, {"completed": 1, "failed": 1})


def test_task_with_too_many_units_may_fail_again_if_its_worker_died_before_it_stored_that() -> None:
    too_large = {"event": "task_failed", "attempt": 0, "units": 500, "planned_at": NOW, "late_ms": None}
    failed = [
        completion_text(2, None, **too_large, completed_at=at, result=None, error="too large")
        for at in (NOW, NOW + 900)
    ]

    report = audited(*failed, limits="1/second")

    assert (report.clean, report.repeated_ends) == (True, 1)


def test_start_out_of_order_is_found() -> None:
    report = audited(completion_text(1, NOW + 2000), completion_text(2, NOW), completion_text(3, NOW + 4000))

    assert report.breaches == [Breach("order", "user123", NOW, "task task-2 with seq 2 started 2000 ms before seq 1")]


def test_order_is_that_of_first_starts() -> None:
    retried = completion_text(1, NOW + 5000, starts=[NOW], planned_at=NOW)

    assert kinds(audited(retried, completion_text(2, NOW + 2000))) == []


def test_two_tasks_in_one_place_are_found() -> None:
    report = audited(completion_text(1, NOW), completion_text(1, NOW + 2000, task_id="other"))

    assert kinds(report) == ["order"]
    assert "task task-1" in report.breaches[0].what


def test_task_that_ended_twice_is_found_and_its_start_counted_once() -> None:
    report = audited(completion_text(1, NOW), completion_text(1, NOW, event="task_failed", completed_at=NOW + 9))

    assert report.breaches == [
        Breach("ended", "user123", NOW + 9, "task task-1 failed, but had completed before"),
    ]
    assert report.starts == 1


def test_cancellation_of_a_scheduled_task_may_be_logged_twice() -> None:
    cancelled = completion_text(0, None, event="task_cancelled", attempt=0, late_ms=None, result=None)

    assert audited(cancelled, cancelled).clean


def test_same_task_id_of_two_users_is_two_tasks() -> None:
    assert audited(completion_text(1, user_id="a"), completion_text(1, user_id="b")).clean


def test_start_before_its_planned_start_is_found() -> None:
    report = audited(completion_text(1, NOW, planned_at=NOW + 1))

    assert report.breaches == [Breach("early", "user123", NOW, "task task-1 started 1 ms before its planned start")]
    assert kinds(audited(completion_text(1, NOW, starts=[NOW - 3000], planned_at=NOW - 1000))) == ["early"]


@pytest.mark.parametrize(
    "text",
    [
        completion_text(started_at=None),
        completion_text(started_at=NOW, attempt=0),
        completion_text(started_at=NOW, starts=[NOW + 2000]),
        completion_text(started_at=NOW, starts=[NOW - 2000, NOW - 4000], planned_at=NOW - 4000),
    ],
    ids=["no start", "no attempt", "retry first", "attempts swapped"],
)
def test_impossible_attempts_are_found(text: str) -> None:
    assert kinds(audited(text)) == ["attempts"]


def test_starts_of_dead_workers_and_missing_ends_are_told_but_break_nothing() -> None:
    report = audited(completion_text(1, NOW, attempt=3), completion_text(4, NOW + 1000))

    assert (report.clean, report.unknown_starts, report.missing_ends) == (True, 2, 2)


def test_start_that_an_api_throttled_uses_no_attempt() -> None:
    report = audited(completion_text(1, NOW, starts=[NOW - 3000, NOW - 1000], attempt=1, planned_at=NOW - 3000))

    assert (report.clean, report.starts, report.throttled_starts, report.unknown_starts) == (True, 3, 2, 0)


def test_throttled_starts_are_held_against_the_limits() -> None:
    early = completion_text(1, NOW, starts=[NOW - 999], attempt=1, planned_at=NOW - 999)

    assert kinds(audited(early)) == ["pace"]


def test_cancellation_between_two_attempts_keeps_the_starts() -> None:
    between = {"event": "task_cancelled", "result": None, "late_ms": None, "planned_at": NOW - 1000}
    throttled = completion_text(1, None, starts=[NOW - 1000], attempt=0, **between)
    failed_once = completion_text(2, None, starts=[NOW], attempt=1, **between)

    report = audited(throttled, failed_once)

    assert (report.clean, report.starts) == (True, 2)


@pytest.mark.parametrize(("ran_ms", "is_clean"), [(8_999, False), (9_000, True)])
def test_task_is_cancelled_after_its_end_was_logged_only_if_its_worker_can_have_died(
    ran_ms: int, is_clean: bool
) -> None:
    """It was cancelled while it ran, and its worker died before it had stored the outcome: its lease then ran out."""
    ended = completion_text(1, NOW)
    dropped = completion_text(1, NOW, event="task_cancelled", result=None, completed_at=NOW + ran_ms)
    assert audited(ended, dropped).clean is is_clean
    other_start = completion_text(1, NOW + 1, event="task_cancelled", result=None, completed_at=NOW + 20_000)
    assert "ended" in kinds(audited(ended, other_start))


def test_two_starts_in_one_millisecond_are_two() -> None:
    at_once = completion_text(1, NOW, starts=[NOW], planned_at=NOW, limits="2/second")

    assert audited(at_once).clean
    assert audited(at_once).starts == 2
    assert kinds(audited(at_once, completion_text(2, NOW + 1, limits="2/second"))) == ["pace"]


def test_each_start_of_a_task_is_held_against_its_own_limits() -> None:
    starts = [NOW - 4200, NOW - 4000]
    lowered = completion_text(1, NOW, starts=starts, planned_at=starts[0], limits="1/4 seconds")
    named = json.dumps({**json.loads(lowered), "starts_limits": ["5/second", "5/second"]})

    assert kinds(audited(lowered)) == ["pace"]
    assert audited(named).clean
    assert kinds(audited(named.replace("5/second", "1/second"))) == ["pace"]
    raised = json.dumps({**json.loads(lowered), "limits": "9/second", "starts_limits": [None, "9/second"]})
    assert audited(raised).clean


@pytest.mark.parametrize("named", [["5/second"], "5/second", ["5/second", 1], [None, "often"]])
def test_line_with_wrong_limits_of_its_starts_is_skipped(named: object) -> None:
    text = completion_text(1, NOW, starts=[NOW - 4200, NOW - 4000], planned_at=NOW - 4200)

    assert audited(json.dumps({**json.loads(text), "starts_limits": named})).skipped


def test_outcome_logged_by_a_worker_that_died_before_it_stored_it_is_one_end() -> None:
    logged = completion_text(1, NOW, completed_at=NOW + 5)
    again = completion_text(1, NOW + 10_000, starts=[NOW], planned_at=NOW, event="task_failed")
    given_up = completion_text(1, NOW, event="task_failed", completed_at=NOW + 10_000)

    for second in (logged, again, given_up):
        report = audited(logged, second)
        assert (report.clean, report.repeated_ends) == (True, 1)
    assert kinds(audited(logged, completion_text(1, NOW, event="task_failed", completed_at=NOW + 4_000))) == ["ended"]
    assert kinds(audited(logged, completion_text(1, NOW, completed_at=NOW + 20_000))) == ["ended"]
    assert kinds(audited(again, completion_text(1, NOW, completed_at=NOW + 20_000))) == ["ended"]


def test_lane_that_was_forgotten_begins_its_seqs_anew() -> None:
    fortnight = 14 * 24 * 3_600_000

    assert audited(completion_text(3, NOW), completion_text(1, NOW + fortnight + 6, task_id="new")).clean
    assert kinds(audited(completion_text(3, NOW), completion_text(1, NOW + fortnight, task_id="new"))) == ["order"]


def test_task_cancelled_before_its_admission_has_no_seq_to_miss() -> None:
    scheduled = completion_text(0, None, event="task_cancelled", attempt=0, late_ms=None, result=None)

    assert audited(scheduled, completion_text(3, NOW), completion_text(5, NOW + 1000)).missing_ends == 1


def runs(*starts: int, seconds: int = 5, **changed: object) -> list[str]:
    """Tasks that start that many ms after NOW and run for some seconds."""
    begun = [NOW + at for at in starts]
    return [
        completion_text(seq, at, completed_at=at + 1_000 * seconds, **changed) for seq, at in enumerate(begun, start=1)
    ]


def test_starts_beside_as_many_as_may_run_at_once_are_found() -> None:
    three = runs(0, 1_000, 2_000)
    assert audited(*three, limits="1/second; 3 at once").clean
    report = audited(*three, limits="1/second; 2 at once")
    what = "task task-3 started beside 2 that ran; 2 at once"
    assert report.breaches == [Breach("at once", "user123", NOW + 2_000, what)]
    assert kinds(audited(*three, limits="1/second")) == ["at once", "at once"]
    assert report.at_once == AtOnce(3, "user123", NOW + 2_000)


def test_each_start_is_held_against_its_own_number_at_once() -> None:
    """Five ran when the number was lowered to 2: they go on, and the next start waits until one runs."""
    five = runs(0, 1, 2, 3, 4, limits="20/second; 5 at once")
    early, later = (
        completion_text(6, NOW + at, completed_at=NOW + at + 9, limits="20/second; 2 at once") for at in (3_000, 5_000)
    )
    assert audited(*five, later).clean
    assert kinds(audited(*five, early)) == ["at once"]


def test_only_runs_that_are_sure_count_against_a_number_at_once() -> None:
    limits = "1/second; 1 at once"
    assert audited(*runs(0, 4_001), limits=limits).clean, "the clocks of two workers may differ by a second"
    assert audited(*runs(0, 9_000, seconds=60), limits=limits).clean, "a worker that was cut off loses its lease"
    died = completion_text(1, NOW, event="task_failed", completed_at=NOW + 60_000)
    assert audited(died, completion_text(2, NOW + 11_000), limits=limits).clean, "given up long after its worker died"


def test_cancelled_task_takes_no_start() -> None:
    cancelled = completion_text(
        2, None, event="task_cancelled", attempt=0, planned_at=NOW + 1000, late_ms=None, completed_at=NOW + 100
    )

    report = audited(completion_text(1, NOW), cancelled, completion_text(3, NOW + 1000))

    assert (report.clean, report.starts, report.events) == (True, 2, {"completed": 2, "cancelled": 1})


def test_lateness_is_by_nearest_rank() -> None:
    texts = [completion_text(seq, NOW + seq * 60_000, late_ms=seq) for seq in range(1, 201)]

    assert audited(*texts).lateness == Lateness(100, 198, 200)
    assert audited(completion_text(1, late_ms=7)).lateness == Lateness(7, 7, 7)


def test_backoff_of_a_retry_is_no_lateness() -> None:
    retried = completion_text(2, NOW + 5000, starts=[NOW + 2000], planned_at=NOW + 2000, late_ms=3000)

    assert audited(completion_text(1, late_ms=7), retried).lateness == Lateness(7, 7, 7)
    assert audited(retried).lateness is None


@pytest.fixture
def log_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIMITS", raising=False)
    monkeypatch.delenv("STAGE", raising=False)
    monkeypatch.setenv("LOG_DIR", str(tmp_path / "logs"))
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def write_log(log_dir: Path, *texts: str) -> None:
    write_stream(completions_folder(log_dir, "dev"), *texts)


def test_clean_log_exits_0(log_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(log_dir, *(completion_text(seq, NOW + seq * 1000, late_ms=seq) for seq in range(20)), "no completion")

    assert call("audit") == 0

    assert capsys.readouterr().out.splitlines() == [
        "20 completed; 20 starts of 1 user",
        "",
        "limit      starts  most in a window  user     from                     to",
        "1/second   20      1 of 1            user123  2026-11-22 05:20:29.123  2026-11-22 05:20:29.123",
        "20/minute  20      20 of 20          user123  2026-11-22 05:20:29.123  2026-11-22 05:20:48.123",
        "",
        "late: p50 9 ms, p99 19 ms, most 19 ms",
        "skipped: 1 line, not JSON",
        "audit: clean",
    ]


def test_broken_log_exits_1_and_says_who_and_when(log_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(log_dir, completion_text(1, NOW), completion_text(2, NOW + 999))

    assert call("audit", "--log-dir", str(log_dir)) == 1

    out = capsys.readouterr().out
    assert "2 of 1  BROKEN" in out
    assert out.splitlines()[-2:] == [
        f"broken: pace: user user123 at 2026-11-22 05:20:29.123 ({NOW}): "
        "1/second: 2 starts within 999 ms; 1 of 2 starts too early",
        "audit: broken, 1 finding",
    ]


def test_empty_log_is_nothing_to_audit(log_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("audit") == 0
    assert capsys.readouterr().out.startswith("audit: nothing to audit in ")
    assert log_dir.is_dir()


@pytest.mark.parametrize("words", [["--limits", "often"], ["--log-dir", "nowhere"], ["--what"]])
def test_bad_usage_exits_2(log_dir: Path, words: list[str]) -> None:
    assert call("audit", *words) == 2
    assert log_dir.is_dir()


def test_limits_come_from_option_then_environment_then_env_file(log_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(log_dir, *(completion_text(seq, NOW + seq * 200) for seq in range(5)))
    assert call("audit") == 1
    Path(".env").write_text("LIMITS=5/second\n")
    assert call("audit") == 0
    monkeypatch.setenv("LIMITS", "4/second")
    assert call("audit") == 1
    assert call("audit", "--limits", "5/second") == 0


def test_stage_chooses_the_log(log_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = [completion_text(seq, NOW + seq) for seq in range(2)]
    write_stream(completions_folder(log_dir, "soak"), *hasty)

    assert (call("audit"), call("audit", "--stage", "soak")) == (0, 1)
    monkeypatch.setenv("STAGE", "soak")
    assert call("audit") == 1


def test_one_user_can_be_chosen(log_dir: Path) -> None:
    hasty = [completion_text(seq, NOW + seq, user_id="hasty") for seq in range(2)]
    write_log(log_dir, *hasty, completion_text(1, user_id="calm"))

    assert (call("audit", "--user", "calm"), call("audit", "--user", "hasty")) == (0, 1)


def test_json_holds_the_whole_report(log_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(log_dir, *(completion_text(seq, NOW + seq * 500) for seq in range(60)))

    assert call("audit", "--json") == 1

    report = json.loads(capsys.readouterr().out)
    assert (report["clean"], report["starts"], report["events"]) == (False, 60, {"completed": 60})
    assert [(row["limit"], row["most"], row["allowed"]) for row in report["limits"]] == [
        ("1/second", 2, 1),
        ("20/minute", 60, 20),
    ]
    assert {breach["kind"] for breach in report["breaches"]} == {"pace"}


def test_long_list_of_findings_is_cut_and_says_so(log_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(log_dir, *(completion_text(seq, NOW, planned_at=NOW + 1, user_id=f"u{seq}") for seq in range(25)))

    assert call("audit") == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["broken: 5 more (--json has them all)", "audit: broken, 25 findings"]


def test_limit_with_no_starts_is_shown_as_such() -> None:
    assert audited().limits[0].limit == Limit(1, 1000)
    assert audited().empty
