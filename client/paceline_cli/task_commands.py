"""The commands on tasks: submit, status, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Annotated

import httpx
import typer

from paceline_cli.connection import connect, world_of
from paceline_cli.failures import FAILED, NotReachableError
from paceline_cli.options import Json, TaskId, Token, Url, User, length_ms, moment_ms, read_payload
from paceline_cli.rendering import console, count, duration, show, show_json, submitted_line, task_line, task_lines
from paceline_cli.watching import Watching
from paceline_client import Paceline, PacelineError, SubmittedTask, Task, TaskOrder

#: Number of tasks that a terminal lists; above it, only the sum is shown.
MAX_LINES = 10
#: Newest tasks of a user whose names complete in the shell: one page.
NAMES_FROM = 100


def _key(text: str | None) -> str | None:
    if text is not None and not (1 <= len(text) <= 240 and text.isascii() and text.isprintable()):
        raise typer.BadParameter("a key is 1 to 240 printable ASCII characters")
    return text


def task_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completes the name of a task, in the shell: those that are built in or known here, and the user's newest ones."""
    names, options = {"log", "http", *world_of(context).task_names()}, context.params
    if user := options.get("user") or next(iter(context.args), None):
        with (
            suppress(PacelineError, NotReachableError, typer.TyperException, httpx.HTTPError),
            connect(context, options.get("url"), options.get("token")) as paceline,
        ):
            names |= {one.task for one in islice(paceline.tasks(user), NAMES_FROM)}
    return sorted(name for name in names if name.startswith(incomplete))


def submit(
    context: typer.Context,
    user: User,
    task: Annotated[str, typer.Option(help="The name of the task.", autocompletion=task_names)] = "log",
    payload: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE|-", help="JSON, a file of it, or - for standard input.")
    ] = None,
    number: Annotated[int, typer.Option("--count", "-n", min=1, max=100_000, help="Number of tasks.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait until all have ended, with a bar.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Over the limit, refuse instead of queueing.")] = False,
    delay: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Schedule it in 30s, 10m, 2h, 1d.", show_default=False)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Schedule it for an ISO 8601 time, by default of this machine's zone."),
    ] = None,
    callback_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The URL that gets a signed POST when the task has ended.", show_default=False
        ),
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="What a task counts for in limits of units.", show_default=False),
    ] = None,
    shared: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The shared limit that it counts against.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(callback=_key, help="Idempotency key: a repeat with the same key makes no second task."),
    ] = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit tasks to a user's lane.

    A task over the limits waits in the lane; the answer gives its position and planned start. A task with --delay or
    --at joins the lane at its time, and delays no other task before that.

    Exit code: 0 when they were taken (with --watch: all succeeded), 1 when one failed, 4 when they were refused.
    """
    if delay is not None and at is not None:
        raise typer.BadParameter("either --delay or --at, not both")
    delay_seconds = None if delay is None else length_ms(delay, "--delay") / 1000
    run_at = None if at is None else moment_ms(at, "--at")
    order = TaskOrder(read_payload(payload), task, run_at, delay_seconds, callback_url, units, shared)
    with connect(context, url, token) as paceline:
        submitted_tasks = _submitted(paceline, user, order, number, key, strict)
        if not watch:
            _show_submitted(submitted_tasks, as_json)
            return
        out = console()
        if out.is_terminal and not as_json:
            show([_sum(submitted_tasks)], out)
        _show_ended(Watching(paceline, world_of(context).clock, out).ended(submitted_tasks), as_json)


def _submitted(
    paceline: Paceline, user: str, order: TaskOrder, number: int, key: str | None, strict: bool
) -> list[SubmittedTask]:
    if number == 1:
        submitted = paceline.submit(
            user,
            order.payload,
            order.task,
            run_at=order.run_at,
            delay_seconds=order.delay_seconds,
            callback_url=order.callback_url,
            units=order.units,
            shared=order.shared,
            idempotency_key=key,
            strict=strict,
        )
        return [submitted]
    return paceline.submit_many(user, [order] * number, idempotency_key=key, strict=strict)


def _show_submitted(submitted_tasks: Sequence[SubmittedTask], as_json: bool) -> None:
    out = console()
    if as_json:
        for submitted in submitted_tasks:
            show_json(submitted)
    elif out.is_terminal and len(submitted_tasks) > MAX_LINES:
        show([_sum(submitted_tasks)], out)
    else:
        show((submitted_line(submitted) for submitted in submitted_tasks), out)


def _sum(submitted_tasks: Sequence[SubmittedTask]) -> str:
    last = submitted_tasks[-1]
    first = f"{count(len(submitted_tasks), 'task')} submitted for {last.user_id}"
    if last.is_scheduled:
        return f"{first}: scheduled in {duration(last.delay_ms)}"
    return f"{first}: the last starts in {duration(last.delay_ms)}" if last.queued else f"{first}: may start now"


def _show_ended(tasks: Sequence[Task], as_json: bool) -> None:
    """As above, and the exit code 1 when one has not succeeded."""
    out, bad = console(), [task for task in tasks if task.state != "succeeded"]
    if as_json:
        for task in tasks:
            show_json(task)
    elif out.is_terminal and len(tasks) > MAX_LINES:
        show([*map(task_line, bad), f"{len(tasks) - len(bad)} of {len(tasks)} succeeded"], out)
    else:
        show(map(task_line, tasks), out)
    if bad:
        raise typer.Exit(FAILED)


def status(
    context: typer.Context,
    user: User,
    task_id: TaskId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show a task: its state, its position, when it starts.

    Exit code: 0 while it waits or runs and when it succeeded, 1 when it failed, was cancelled or is not there.
    """
    with connect(context, url, token) as paceline:
        task = paceline.wait((user, task_id)) if wait else paceline.task(user, task_id)
    _show_task(context, task, as_json)
    if task.state in ("failed", "cancelled"):
        raise typer.Exit(FAILED)


def cancel(
    context: typer.Context, user: User, task_id: TaskId, as_json: Json = False, url: Url = None, token: Token = None
) -> None:
    """Cancel a task; it takes no more start. A running task is asked to stop.

    Exit code: 0 when it is cancelled or asked to stop, 4 when it has ended.
    """
    with connect(context, url, token) as paceline:
        task = paceline.cancel(user, task_id)
    _show_task(context, task, as_json)


def _show_task(context: typer.Context, task: Task, as_json: bool) -> None:
    if as_json:
        show_json(task)
    else:
        show(task_lines(task, round(world_of(context).clock.now() * 1000)))
