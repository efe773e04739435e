"""The commands that submit failed tasks again, empty a lane, and forget a user."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from paceline_cli.connection import connect, world_of
from paceline_cli.failures import REFUSED
from paceline_cli.options import Json, Token, Url, User, length_ms, moment_ms, user_id
from paceline_cli.rendering import console, count, redriven_line, show, show_json, submitted_line
from paceline_client import Paceline, Redriven

_TASK_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID_HELP = "The failed task's id; without it, all failed tasks of the user."


def redrive(
    context: typer.Context,
    user: Annotated[
        str | None,
        typer.Argument(help="The user, or the failed task's id alone.", callback=user_id, show_default=False),
    ] = None,
    task_id: Annotated[str | None, typer.Argument(metavar="[ID]", help=_ID_HELP, show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION|TIME",
            help="Those that failed in the last 30s, 10m, 2h, 1d, or since an ISO 8601 time.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Over the limit, refuse instead of queueing.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit failed tasks again: one, a user's, or all since a time. Each is submitted once, however often this runs.

    Exit code: 0 when all were submitted, 4 when some stay failed.
    """
    if user is None and since is None:
        raise typer.BadParameter("name a user, a task or --since")
    if task_id is not None and since is not None:
        raise typer.BadParameter("either a task or --since, not both")
    since_ms = None if since is None else _since_ms(context, since)
    with connect(context, url, token) as paceline:
        if task_id is None and since is None and user is not None and _TASK_ID.fullmatch(user):
            user, task_id = _found(paceline, user)
        if user is not None and task_id is not None:
            submitted = paceline.redrive(user, task_id, strict=strict)
            if as_json:
                show_json(submitted)
            else:
                show([submitted_line(submitted)])
            return
        _show(paceline.redrive_many(user_id=user, since=since_ms, strict=strict), as_json)


def _since_ms(context: typer.Context, text: str) -> int:
    if re.fullmatch("[0-9]+[smhdw]", text):
        return round(world_of(context).clock.now() * 1000) - length_ms(text, "--since")
    try:
        return moment_ms(text, "--since")
    except typer.BadParameter as error:
        reason = "use 30s, 10m, 2h or 1d, or an ISO 8601 time, as in 2026-11-23T09:30"
        raise typer.BadParameter(reason, param_hint="--since") from error


def _found(paceline: Paceline, given: str) -> tuple[str, str | None]:
    """The user of the failed task with that id, and the id; if there is none, it is a user's id."""
    task = next((task for task in paceline.failed() if task.task_id == given), None)
    return (given, None) if task is None else (task.user_id, given)


def _show(redriven: Iterable[Redriven], as_json: bool) -> None:
    out, found, stays = console(), 0, 0
    for one in redriven:
        found += 1
        stays += one.redriven_as is None
        if as_json:
            show_json(one)
        else:
            show([redriven_line(one)], out)
    if not found:
        print("no failed task was found", file=sys.stderr)
    if stays:
        raise typer.Exit(REFUSED)


def empty(context: typer.Context, user: User, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Cancel all waiting and scheduled tasks of a user, however many. A running one goes on."""
    with connect(context, url, token) as paceline:
        emptied = paceline.empty(user)
    if as_json:
        show_json({"user_id": user, **asdict(emptied)})
    else:
        scheduled = count(emptied.cancelled_scheduled, "scheduled task")
        show([f"{count(emptied.cancelled, 'waiting task')} and {scheduled} of {user} cancelled"])


def forget(context: typer.Context, user: User, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Delete a user's finished tasks, payloads, schedules and own limits.

    Its seqs and starts stay for its longest window and 14 days, so that it stays within the limits.

    Exit code: 0 when it is forgotten, 4 while it has tasks that wait, are scheduled or run.
    """
    with connect(context, url, token) as paceline:
        deleted = paceline.forget(user)
    if as_json:
        show_json({"user_id": user, "deleted": deleted})
    else:
        show([f"{user} is forgotten: {count(deleted, 'finished task')} deleted"])
