"""The commands on lanes: lane, limits, group, pause, resume."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from paceline_cli.connection import connect, world_of
from paceline_cli.options import Json, PauseLength, Token, Url, User, pause_end_ms
from paceline_cli.rendering import console, lane_lines, scheduled_lines, show, show_json
from paceline_client import Lane, Paceline, Task

#: Queued tasks searched for scheduled ones: one page.
MAX_LOOKED_THROUGH = 100


def lane(context: typer.Context, user: User, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Show a user's lane: its limits, what is left in each window, what waits, when the next task starts.

    Below it are the tasks that are scheduled for their time; of very many that wait, the newest are looked through.
    """
    with connect(context, url, token) as paceline:
        found, scheduled = paceline.lane(user), [] if as_json else _scheduled(paceline, user)
    _show(found, as_json)
    show(scheduled_lines(scheduled, found.now))


def _scheduled(paceline: Paceline, user: str) -> list[Task]:
    """Soonest first."""
    waiting = islice(paceline.tasks(user, state="queued"), MAX_LOOKED_THROUGH)
    return sorted((task for task in waiting if task.is_scheduled), key=lambda task: task.planned_at)


def limits(
    context: typer.Context,
    user: User,
    text: Annotated[str | None, typer.Argument(metavar="[LIMITS]", help="Such as '5/second; 100/minute'.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Back to everybody's limits.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show, set or clear a user's own limits; they hold at once, for what waits as well."""
    if clear and text is not None:
        raise typer.BadParameter("either limits or --clear, not both")
    with connect(context, url, token) as paceline:
        if clear:
            found = paceline.clear_limits(user)
        elif text is not None:
            found = paceline.set_limits(user, text)
        else:
            found = paceline.lane(user)
    if as_json or text is not None or clear:
        _show(found, as_json)
    else:
        show([found.limits])


def group(
    context: typer.Context,
    user: User,
    name: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Such as the tenant's name.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="The user takes turns alone.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show, set or clear a user's group: its users take turns at shared limits as one."""
    if clear and name is not None:
        raise typer.BadParameter("either a group or --clear, not both")
    with connect(context, url, token) as paceline:
        found = paceline.lane(user) if name is None and not clear else paceline.set_group(user, name)
    if as_json or name is not None or clear:
        _show(found, as_json)
    else:
        show([found.group or ""])


def pause(
    context: typer.Context,
    user: User,
    duration: PauseLength = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Pause a user's lane: no task starts until the lane is resumed, or the time is over."""
    until = pause_end_ms(duration, world_of(context).clock.now())
    with connect(context, url, token) as paceline:
        found = paceline.pause(user, until)
    _show(found, as_json)


def resume(context: typer.Context, user: User, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Resume a paused lane."""
    with connect(context, url, token) as paceline:
        found = paceline.resume(user)
    _show(found, as_json)


def _show(found: Lane, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    out = console()
    show(lane_lines(found, with_bars=out.is_terminal), out)
