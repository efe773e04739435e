"""Formats values for a terminal (colour, bars) or a pipe (plain text)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.text import Text

from paceline_client import Attempt, Lane, Limit, Redriven, Schedule, SharedLimit, SubmittedTask, Task

#: Cells of the bar that shows a window.
BAR_WIDTH = 20
#: Number of scheduled tasks listed; the rest is counted.
MAX_SCHEDULED_LINES = 10
_STATE_STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "queued": "blue"}


def console() -> Console:
    """Returns a console on the current standard output that does not wrap lines."""
    return Console(highlight=False, soft_wrap=True)


def show_json(value: Any) -> None:
    """One value, on one line."""
    print(json.dumps(value if isinstance(value, dict) else asdict(value), ensure_ascii=False), flush=True)


def show(lines: Iterable[Text | str], out: Console | None = None) -> None:
    target = out or console()
    for line in lines:
        target.print(line, markup=False)


def duration(milliseconds: float) -> str:
    """`0.8 s`, `42 s`, `3 min 5 s`, `10 min`, `2 h 10 min`, `3 h`."""
    if milliseconds < 9_950:
        return f"{max(0.0, milliseconds) / 1000:.1f} s"
    seconds = round(milliseconds / 1000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def clock_time(at_ms: int) -> str:
    """The time of day on this machine's clock; with the day when that is another one."""
    moment = datetime.fromtimestamp(at_ms / 1000).astimezone()
    is_today = moment.date() == datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if is_today else f"{moment:%Y-%m-%d %H:%M:%S}"


def iso(at_ms: int) -> str:
    """`2026-11-22T05:20:29.123Z`: the time in UTC, to the millisecond."""
    return f"{datetime.fromtimestamp(at_ms // 1000, timezone.utc):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03}Z"


def moment(at_ms: int, now_ms: int) -> str:
    """`06:58:12 (in 4.2 s)`, `06:58:12 (3.1 s ago)` or `now`."""
    if abs(at_ms - now_ms) < 50:
        return "now"
    away = f"in {duration(at_ms - now_ms)}" if at_ms > now_ms else f"{duration(now_ms - at_ms)} ago"
    return f"{clock_time(at_ms)} ({away})"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _fields(rows: Iterable[tuple[str, str | Text]]) -> list[Text]:
    found = [(label, value) for label, value in rows if len(value)]
    width = max(len(label) for label, _ in found) + 2
    return [Text.assemble((label.ljust(width), "dim"), value) for label, value in found]


def state_text(state: str) -> Text:
    return Text(state, _STATE_STYLES.get(state, ""))


def submitted_line(submitted: SubmittedTask) -> Text:
    """Formats a submitted task as one line, beginning with its id."""
    task_id, delay = Text(submitted.task_id, "bold"), duration(submitted.delay_ms)
    if submitted.is_scheduled:
        return Text.assemble(task_id, f"  scheduled, joins its lane in {delay}")
    least = "at least " if submitted.lower_bound else ""
    where = f"position {least}{submitted.position}, starts in {least}{delay}" if submitted.queued else "may start now"
    return Text.assemble(task_id, f"  seq {submitted.seq}  {where}")


def task_line(task: Task) -> Text:
    """Formats a finished task as one line, beginning with its id."""
    why = f"  {task.error}" if task.error else ""
    seq = f"seq {task.seq}" if task.seq else "scheduled"  # cancelled before its time
    return Text.assemble((task.task_id, "bold"), f"  {seq}  ", state_text(task.state), why)


def task_lines(task: Task, now_ms: int) -> list[Text]:
    def at(time_ms: int | None) -> str:
        return "" if time_ms is None else f"{iso(time_ms)}  {time_ms}  {moment(time_ms, now_ms)}"

    is_waiting = task.state == "queued"
    in_line = f"position {task.position} in line" if task.position else "may start now"
    position = f"number {task.seq} of the user's, {in_line}" if is_waiting else f"{task.seq}"
    return _fields(
        [
            ("id", Text(task.task_id, "bold")),
            ("user", task.user_id),
            ("state", state_text(task.state)),
            ("task", task.task),
            ("position", position if task.seq else "none while it is scheduled"),
            ("submitted", at(task.submitted_at)),
            ("scheduled for", at(task.run_at)),
            ("schedule", task.schedule or ""),
            ("planned", at(task.planned_at) if task.seq else ""),
            ("expected", at(task.estimated_at) or "when the lane is resumed" if is_waiting else ""),
            ("started", at(task.started_at)),
            ("progress", _progress(task, now_ms)),
            ("asked to stop", at(task.cancel_requested_at)),
            ("ended", at(task.completed_at)),
            ("attempts", str(task.attempts)),
            *((f"attempt {one.attempt}", _attempt(one)) for one in task.attempt_history),
            ("units", _units(task)),
            ("counts for", task.shared or ""),
            ("payload", _payload(task)),
            ("redriven as", task.redriven_as or ""),
            ("result", "" if task.result is None else json.dumps(task.result, ensure_ascii=False)),
            ("error", Text(task.error or "", "red")),
            ("callback", task.callback_url or ""),
        ]
    )


def _progress(task: Task, now_ms: int) -> str:
    """`40 %, page 3, at 06:58:12 (2.1 s ago)`; empty without a report."""
    if task.progress is None:
        return ""
    said = f", {task.progress.text}" if task.progress.text else ""
    return f"{task.progress.fraction * 100:g} %{said}, at {moment(task.progress.at, now_ms)}"


def _attempt(attempt: Attempt) -> str:
    end = "runs" if attempt.ended_at is None else f"took {duration(attempt.ended_at - attempt.started_at)}"
    return f"{iso(attempt.started_at)}  {end}{f'  {attempt.error}' if attempt.error else ''}"


def _payload(task: Task) -> str:
    if task.payload_omitted:
        return "too large to be shown, or expired"
    return "" if task.payload is None else json.dumps(task.payload, ensure_ascii=False)


def listed_task_line(task: Task) -> Text:
    """Formats a task of a list as one line: its id, its state, when it was submitted or ended, and why it failed."""
    at = task.completed_at or task.started_at or task.submitted_at
    seq = f"seq {task.seq}" if task.seq else "scheduled"
    why = f"  {task.error}" if task.error else ""
    again = f"  redriven as {task.redriven_as}" if task.redriven_as else ""
    return Text.assemble(
        (task.task_id, "bold"), f"  {seq}  ", state_text(task.state), f"  {iso(at)}  {task.task}{why}{again}"
    )


def failed_line(task: Task) -> Text:
    """As `listed_task_line`, with the user first."""
    return Text.assemble((task.user_id, "bold"), "  ", listed_task_line(task))


def lane_line(lane: Lane) -> Text:
    """Formats a lane of a list as one line."""
    state = "paused" if lane.paused else "throttled" if lane.throttled_until else "running" if lane.running else ""
    waiting, last = count(lane.backlog, "task"), f"last start {iso(lane.starts[0])}" if lane.starts else "no start"
    return Text.assemble(
        (lane.user_id, "bold"), f"  {waiting} waiting  {last}  {lane.limits}", f"  {state}" if state else ""
    )


def redriven_line(redriven: Redriven) -> Text:
    """Formats a failed task that was submitted again, or was not, as one line."""
    new = f"  submitted again as {redriven.redriven_as}{' before' if redriven.repeated else ''}"
    stays = f"  stays: {redriven.reason}"
    return Text.assemble((redriven.user_id, "bold"), f"  {redriven.task_id}", new if redriven.redriven_as else stays)


def _units(task: Task) -> str:
    """Empty for a task of one unit that reported nothing, as most are."""
    if task.used_units is not None:
        return f"{task.units:,}, used {task.used_units:,}"
    return f"{task.units:,}" if task.units != 1 else ""


def lane_lines(lane: Lane, with_bars: bool) -> list[Text]:
    """Formats a lane, one field a line: what each limit has left, the waiting tasks, the next start."""
    whose = "its own" if lane.own_limits else "everybody's"
    return _fields(
        [
            ("user", Text(lane.user_id, "bold")),
            ("limits", f"{lane.limits} ({whose})"),
            ("group", lane.group or ""),
            *((f"per {limit.name}", _left(limit, with_bars)) for limit in lane.policies),
            ("waiting", count(lane.backlog, "task")),
            ("running", _running(lane)),
            ("next start", _next_start(lane)),
            ("waits for", _waits_for(lane)),
            ("paused", _paused(lane)),
            ("throttled", _throttled(lane)),
            ("admitted", f"{count(lane.admitted, 'task')} in all"),
        ]
    )


def scheduled_lines(tasks: Sequence[Task], now_ms: int) -> list[Text]:
    """Formats one line for each task; of many, the first ones and the number of the others."""
    shown = [
        Text.assemble((task.task_id, "bold"), "  scheduled for ", moment(task.planned_at, now_ms))
        for task in tasks[:MAX_SCHEDULED_LINES]
    ]
    return (
        [*shown, Text(f"and {len(tasks) - len(shown)} more that are scheduled")] if len(tasks) > len(shown) else shown
    )


def schedule_lines(schedules: Sequence[Schedule], now_ms: int) -> list[Text]:
    """Formats one line for each schedule: its name, when it ticks, its task, its next tick."""
    return [_schedule_line(schedule, now_ms) for schedule in schedules]


def _schedule_line(schedule: Schedule, now_ms: int) -> Text:
    often = "" if schedule.every_seconds is None else f"every {duration(schedule.every_seconds * 1000)}"
    timing = f"{schedule.cron} {schedule.timezone}" if schedule.cron else often
    following = "paused" if schedule.next_at is None else f"next {moment(schedule.next_at, now_ms)}"
    refused = f"  {count(schedule.refused, 'tick')} refused" if schedule.refused else ""
    return Text.assemble(
        (schedule.name, "bold"),
        f"  {timing}  {schedule.task}  ",
        (following, "yellow" if schedule.paused else ""),
        (refused, "red"),
    )


def _left(limit: Limit, with_bars: bool) -> Text:
    more = f", more in {duration(1000 * limit.reset_seconds)}" if limit.remaining < limit.quota else ""
    units = " units" if limit.counts == "units" else ""
    text = Text(f"{limit.remaining} of {limit.quota}{units} left{more}")
    if not with_bars:
        return text
    used = round(BAR_WIDTH * (1 - limit.remaining / limit.quota))
    style = "red" if limit.remaining == 0 else "green"
    return Text.assemble(("━" * used, style), ("━" * (BAR_WIDTH - used), "bright_black"), "  ", text)


def _next_start(lane: Lane) -> str:
    if lane.next_start_at is not None:
        return moment(lane.next_start_at, lane.now)
    return "when the lane is resumed" if lane.backlog else "nothing waits"


def _waits_for(lane: Lane) -> str:
    if lane.waits_for is None:
        return ""
    before = f"about {lane.waits_for.before} before it" if lane.waits_for.before else "its turn is next"
    return f"{lane.waits_for.name}, {before}"


def _running(lane: Lane) -> str:
    if lane.at_once > 1:
        return f"{lane.slots_in_use} of {lane.at_once} at once"
    return lane.running or "nothing"


def _paused(one: Lane | SharedLimit) -> Text:
    if not one.paused:
        return Text("no")
    until = "until it is resumed" if one.paused_until is None else f"until {moment(one.paused_until, one.now)}"
    return Text(f"yes, {until}", "yellow")


def _throttled(one: Lane | SharedLimit) -> Text | str:
    if one.throttled_until is None:
        return ""
    return Text(
        f"until {moment(one.throttled_until, one.now)}: {one.throttled_reason or 'asked to slow down'}", "yellow"
    )


def shared_line(shared: SharedLimit) -> Text:
    """Formats a shared limit as one line, beginning with its name."""
    waiting = f"  {count(shared.waiting, 'lane')} waiting" if shared.waiting else ""
    stop = "  paused" if shared.paused else "  throttled" if shared.throttled_until is not None else ""
    return Text.assemble((shared.name, "bold"), f"  {shared.limits or 'deleted'}{waiting}", (stop, "yellow"))


def shared_lines(shared: SharedLimit, with_bars: bool) -> list[Text]:
    """Formats a shared limit, one field a line: what each limit has left, who waits, the next start."""
    origin = "as SHARED_LIMITS has it" if shared.limits == shared.setting else "set at run time"
    at_once = "" if shared.at_once is None else f"{shared.running} of {shared.at_once} tasks run"
    return _fields(
        [
            ("shared limit", Text(shared.name, "bold")),
            ("limits", f"{shared.limits} ({origin})" if shared.limits else "none: it was deleted"),
            *((f"per {limit.name}", _left(limit, with_bars)) for limit in shared.policies),
            ("at once", at_once),
            ("waiting", count(shared.waiting, "lane")),
            *(("" if n else "next", waiter.user_id) for n, waiter in enumerate(shared.waiters)),
            ("next start", "not known" if shared.next_start_at is None else moment(shared.next_start_at, shared.now)),
            ("paused", _paused(shared)),
            ("throttled", _throttled(shared)),
            ("started", f"{count(shared.started, 'task')} in all"),
        ]
    )
