from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st

from chalicelib.core.errors import ConflictError, NotFoundError
from chalicelib.core.lane import FOREVER_MS
from chalicelib.core.limits import earliest_start, format_limits, parse_limits
from chalicelib.core.task import TaskState
from chalicelib.lanes.control import MAX_CANCELLED
from chalicelib.worker.hiding import MAX_DEFERRAL_SECONDS
from completions.windows import Start, busiest_windows
from tests.factories import NOW, task_id_of
from tests.unit.control_room import USER, ControlRoom

#: A wait shorter than this is not stored in the lane, so a change does not cut it short.
NOT_WOKEN_MS = 3_000
DEFAULT = "1/second; 3/10 seconds"


@st.composite
def limits(draw: st.DrawFn) -> str:
    """Of the same windows, so that what a lane has forgotten never matters."""
    second, ten = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return f"{second}/second; {ten}/10 seconds"


Script = list[tuple[int, str, Any]]


def scripts(*more: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[Script]:
    happening = st.one_of(
        st.tuples(st.just("submit_many"), st.integers(1, 6)),
        st.tuples(st.just("set_limits"), st.one_of(st.none(), limits())),
        st.tuples(st.just("pause"), st.one_of(st.none(), st.integers(1, 30_000))),
        st.tuples(st.just("resume"), st.just(())),
        *more,
    )
    gap = st.one_of(st.just(0), st.integers(0, 100), st.integers(900, 1_100), st.integers(0, 15_000))
    return st.lists(st.tuples(gap, happening), min_size=1, max_size=12).map(timed)


def timed(steps: Sequence[tuple[int, tuple[str, Any]]]) -> Script:
    at, script = 0, []
    for gap, (name, argument) in steps:
        at += gap
        script.append((at, name, argument))
    return script


cancellations = st.tuples(st.just("cancel"), st.integers(0, 60))


def prepared(script: Script) -> ControlRoom:
    """A lane in which the script's changes are planned, and a resume after them."""
    note(f"{script}")
    room = ControlRoom(DEFAULT)
    room.at(0, lambda: room.submit_many(4))
    for at, name, argument in script:
        arguments = () if argument == () else (argument,)
        room.at(at, lambda name=name, arguments=arguments: getattr(room, name)(*arguments))  # type: ignore[misc]
    room.at(script[-1][0] + 1, room.resume)
    return room


def played(script: Script) -> ControlRoom:
    room = prepared(script)
    room.play()
    return room


def assert_each_ended_once_in_order(room: ControlRoom) -> None:
    assert [event["seq"] for event in room.events] == [task.seq for task in room.submitted]
    for event in room.events:
        expected = "task_cancelled" if event["task_id"] in room.cancelled else "task_completed"
        assert (event["event"], event["attempt"]) == (expected, 0 if expected == "task_cancelled" else 1)
    assert room.starts == sorted(room.starts)


def assert_legal(room: ControlRoom) -> None:
    """Each start breaks none of the limits that it was made under, and those were in force."""
    events = [event for event in room.events if event["started_at"] is not None]
    starts = [
        Start(event["started_at"], event["seq"], parse_limits(event.get("limits") or DEFAULT)) for event in events
    ]
    assert not any(busiest.too_early for busiest in busiest_windows(starts).values())
    for event in events:
        assert room.in_force(event["started_at"], event.get("limits")), event
        assert event["planned_at"] <= event["started_at"]
        for change, following in zip(room.changes, [*room.changes[1:], None], strict=True):
            over = min(change.paused_until or 0, following.begun_at if following else FOREVER_MS)
            assert not change.answered_at < event["started_at"] < over, "a start in a pause"


def assert_prompt(room: ControlRoom) -> None:
    """Each start came as soon as it was legal: counted from its submit, the start before, and the last change."""
    before: list[int] = []
    submitted = {task.task_id: task.submitted_at for task in room.submitted}
    for event in room.events:
        if event["started_at"] is None:
            continue
        at, in_force = event["started_at"], parse_limits(event.get("limits") or DEFAULT)
        legal_at = earliest_start(before, in_force, submitted[event["task_id"]])
        opened_at = max((_opened_at(change, at) for change in room.changes), default=0)
        assert at <= max(legal_at, event["planned_at"], opened_at)
        assert event["planned_at"] <= max(legal_at, opened_at), "planned later than is legal"
        before.insert(0, at)


def _opened_at(change: Any, at: int) -> int:
    """From when on the start could come, as far as the change is concerned."""
    if change.begun_at > at:
        return 0
    end = change.paused_until or 0
    return max(change.answered_at + NOT_WOKEN_MS, end if end < at + 1 else 0)


@given(scripts())
def test_starts_are_legal_prompt_and_in_order_whatever_is_changed(script: Script) -> None:
    room = played(script)
    assert_each_ended_once_in_order(room)
    assert_legal(room)
    assert_prompt(room)


@given(scripts(cancellations))
def test_cancelled_tasks_end_once_and_take_no_start_whatever_is_changed(script: Script) -> None:
    room = played(script)
    assert_each_ended_once_in_order(room)
    assert_legal(room)
    lane = room.lanes.get(USER)
    assert (lane.waiting, dict(lane.cancelled), lane.started) == (0, {}, len(room.submitted) - len(room.cancelled))
    for task in room.submitted:
        assert (room.record(task).state is TaskState.CANCELLED) == (task.task_id in room.cancelled)


@example([(0, "set_limits", "2/second; 2/10 seconds")])  # two tasks start in one millisecond
@given(scripts(cancellations))
def test_estimates_come_true_when_nothing_changes_any_more(script: Script) -> None:
    room = prepared(script)
    # Waits that no change cuts short are over then.
    room.play(until_ms=script[-1][0] + 1 + NOT_WOKEN_MS)
    views = [room.control.task(USER, task.task_id) for task in room.submitted]
    waiting = [view for view in views if view.state is TaskState.QUEUED]
    next_start_at, now_ms = room.control.lane(USER).next_start_at, room.clock.now_ms()
    room.play()
    real = {event["task_id"]: event["started_at"] for event in room.events}
    assert [view.estimated_at for view in waiting] == [real[view.record.task.task_id] for view in waiting]
    does_first_wait = bool(waiting) and (waiting[0].estimated_at or 0) > now_ms
    positions = [max(1, ahead + does_first_wait) for ahead in range(len(waiting))]
    may_start = [(view.estimated_at or 0) <= now_ms for view in waiting]
    assert [view.position for view in waiting] == [0 if now else n for n, now in zip(positions, may_start, strict=True)]
    assert next_start_at == (waiting[0].estimated_at if waiting else None)


def backlog(count: int = 10, limits: str = "1/minute") -> ControlRoom:
    """A lane with tasks waiting, its head hidden for long."""
    room = ControlRoom(limits)
    room.at(0, lambda: room.submit_many(count))
    room.play(until_ms=5_000)
    assert room.starts[0] == NOW
    return room


def test_raised_limits_let_the_backlog_start_at_once() -> None:
    room = backlog()
    room.set_limits("5/minute; 1/second")
    room.play(until_ms=20_000)
    assert room.starts == [NOW + at for at in (0, 5_000, 6_000, 7_000, 8_000)]


def test_lowered_limits_hold_for_the_next_start_and_look_back() -> None:
    room = backlog(4, "2/10 seconds")
    room.set_limits("1/20 seconds")
    room.play()
    assert room.starts == [NOW + at for at in (0, 0, 20_000, 40_000)]


def test_limits_taken_back_are_the_deployment_s_again() -> None:
    room = backlog(3)
    room.set_limits("1/hour")
    room.set_limits(None)
    room.play()
    assert room.starts == [NOW, NOW + 60_000, NOW + 120_000]
    assert room.control.lane(USER).lane.limits is None


def test_paused_lane_takes_next_to_no_receives_and_resumes_at_once() -> None:
    room = backlog(2, "1/10 seconds")
    room.pause()
    handled = len(room.handled)
    room.play(until_ms=24 * 3_600_000)
    assert len(room.handled) - handled <= 25
    room.resume()
    room.play(until_ms=24 * 3_600_000 + 500)
    assert room.starts == [NOW, NOW + 24 * 3_600_000]


def test_pause_that_is_shortened_ends_when_it_now_ends() -> None:
    room = backlog(2)
    room.pause(3_600_000)
    room.play(until_ms=70_000)  # the head came, and went to sleep until the end of the pause
    room.pause(90_000)
    room.play()
    assert room.starts[1] == NOW + 160_000


def test_pause_that_is_lengthened_holds_until_its_new_end() -> None:
    room = backlog(2)
    room.pause(100_000)
    room.pause(200_000)
    room.play()
    assert room.starts[1] == NOW + 205_000


def test_head_whose_worker_died_before_it_left_word_comes_back_within_the_hour() -> None:
    room = ControlRoom("1/second")
    room.pause()
    room.submit_many(1)
    room.lanes.fail("save_head_receipt")
    with pytest.raises(Exception, match="AWS is away"):
        room.deliver(room.receive())
    room.replace_worker()
    room.resume()
    room.play()
    assert room.starts[0] <= NOW + MAX_DEFERRAL_SECONDS * 1000


@pytest.mark.parametrize("change", ["resume", "limits", "cancel"])
@pytest.mark.parametrize("moment", ["defer", "save_head_receipt"])
def test_head_is_woken_whatever_comes_between_hiding_it_and_leaving_word(change: str, moment: str) -> None:
    """The change comes just before the call, so the worker decided on an old lane."""
    room = backlog(3, "1/hour") if change != "resume" else ControlRoom("1/second")
    if change == "resume":
        room.pause()
        room.submit_many(2)
    happens = {
        "resume": room.resume,
        "limits": lambda: room.set_limits("1/second"),
        "cancel": lambda: room.cancel(1),
    }[change]
    if change != "resume":
        room.clock.sleep_until(room.queue.next_available_at())
    message = room.receive()
    done = room.before(moment, happens)
    room.deliver(message)
    begun_at = room.clock.now_ms()
    room.play(until_ms=begun_at - NOW + 5_000)
    assert done
    expected = 0 if change == "cancel" else 1
    assert len([at for at in room.starts if at >= begun_at - 1_500]) >= expected


def test_cancelled_head_lets_go_of_the_lane() -> None:
    room = backlog(2, "1/hour")
    room.cancel(1)
    room.play(until_ms=10_000)
    assert [event["event"] for event in room.events] == ["task_completed", "task_cancelled"]


def test_cancelled_tasks_take_no_place_in_the_line() -> None:
    room = ControlRoom("1/second; 20/minute")
    room.submit_many(6)
    room.pause()
    for number in (1, 2, 3):
        room.cancel(number)
    view = room.control.task(USER, task_id_of(6))
    assert view.position == 3
    room.resume()
    room.submit_many(1)
    assert room.submitted[-1].planned_at == NOW + 3_000
    room.play()
    assert room.starts == [NOW, NOW + 1_000, NOW + 2_000, NOW + 3_000]


def test_submit_after_cancellations_and_a_resume_is_not_late() -> None:
    """Cancelled tasks are not mistaken for starts that the lane has forgotten."""
    room = ControlRoom("1/second; 20/minute")
    room.submit_many(25)
    for number in range(1, 25):
        room.cancel(number)
    room.play(until_ms=10_000)
    assert len(room.events) == 25
    room.clock.sleep_until(NOW + 10_000)
    room.pause()
    room.resume()
    room.submit_many(1)
    assert room.submitted[-1].planned_at == NOW + 10_000


def test_so_many_cancelled_tasks_may_wait_and_more_are_cancelled_once_the_line_has_passed_them() -> None:
    room = ControlRoom("1/second; 20/minute")
    room.submit_many(2 + MAX_CANCELLED)
    for number in range(1, 1 + MAX_CANCELLED):
        room.cancel(number)
    last = room.submitted[-1].task_id
    with pytest.raises(ConflictError, match="100 wait to be passed over"):
        room.control.cancel(USER, last)
    room.play(until_ms=60_000)
    assert room.control.cancel(USER, last).state is TaskState.CANCELLED


def test_cancel_twice_changes_nothing() -> None:
    room = backlog(3)
    first = room.control.cancel(USER, task_id_of(3))
    again = room.control.cancel(USER, task_id_of(3))
    assert (first.state, again.state) == (TaskState.CANCELLED, TaskState.CANCELLED)
    room.play()
    assert [event["event"] for event in room.events].count("task_cancelled") == 1


def test_task_that_started_or_never_was_can_not_be_cancelled() -> None:
    room = backlog(2)
    with pytest.raises(ConflictError, match="succeeded"):
        room.control.cancel(USER, task_id_of(1))
    with pytest.raises(NotFoundError):
        room.control.cancel(USER, task_id_of(9))
    with pytest.raises(NotFoundError):
        room.control.cancel("bob", task_id_of(2))


def test_list_is_newest_first_by_state_and_paged() -> None:
    room = backlog(7)
    room.cancel(6)
    newest, further = room.control.tasks(USER, None, 3, None)
    assert [view.record.task.seq for view in newest] == [7, 6, 5]
    rest, further = room.control.tasks(USER, None, 50, further)
    assert ([view.record.task.seq for view in rest], further) == ([4, 3, 2, 1], None)
    waiting, _ = room.control.tasks(USER, TaskState.QUEUED, 50, None)
    assert [view.record.task.seq for view in waiting] == [6, 5, 4, 3, 2]
    done, _ = room.control.tasks(USER, TaskState.SUCCEEDED, 50, None)
    assert [view.record.task.seq for view in done] == [1]


def test_lane_shows_what_is_so() -> None:
    room = backlog(4)
    room.pause(3_600_000)
    view = room.control.lane(USER)
    assert (view.lane.waiting, view.lane.paused_until) == (3, NOW + 3_605_000)
    assert (format_limits(view.limits), view.next_start_at) == ("1/minute", NOW + 3_605_000)
