"""The commands on schedules: list, put, pause, resume, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from paceline_cli.connection import connect, world_of
from paceline_cli.options import Json, Token, Url, User, length_ms, read_payload
from paceline_cli.rendering import schedule_lines, show, show_json
from paceline_client import Schedule

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.", show_default=False)]


def list_schedules(
    context: typer.Context, user: User, as_json: Json = False, url: Url = None, token: Token = None
) -> None:
    """List a user's schedules by name, each with its next tick; with --json one a line."""
    with connect(context, url, token) as paceline:
        _show(context, list(paceline.schedules(user)), as_json)


def put(
    context: typer.Context,
    user: User,
    name: Name,
    cron: Annotated[
        str | None,
        typer.Option(metavar="CRON", help="Minute, hour, day, month, weekday: '30 7 * * MON-FRI'.", show_default=False),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="The time zone of --cron, such as Europe/Zurich.", show_default="UTC"),
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="DURATION", help="A tick every 30s, 10m, 2h, 1d.", show_default=False)
    ] = None,
    task: Annotated[str, typer.Option(help="The name of the task.")] = "log",
    payload: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE|-", help="JSON, a file of it, or - for standard input.")
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="What a task counts for in limits of units.", show_default=False),
    ] = None,
    shared: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The shared limit that each task counts against.", show_default=False),
    ] = None,
    callback_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Gets a signed POST when a task has ended.", show_default=False),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Store it without ticks, until it is resumed.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a task at each tick: by --cron, or --every so often. Replaces the schedule of this name."""
    if (cron is None) == (every is None):
        raise typer.BadParameter("either --cron or --every")
    with connect(context, url, token) as paceline:
        stored = paceline.put_schedule(
            user,
            name,
            read_payload(payload),
            task,
            cron=cron,
            timezone=timezone,
            every_seconds=None if every is None else length_ms(every, "--every") // 1000,
            paused=paused,
            units=units,
            callback_url=callback_url,
            shared=shared,
        )
        _show(context, [stored], as_json)


def pause(
    context: typer.Context, user: User, name: Name, as_json: Json = False, url: Url = None, token: Token = None
) -> None:
    """Pause a schedule: it has no ticks until it is resumed."""
    with connect(context, url, token) as paceline:
        _show(context, [paceline.pause_schedule(user, name)], as_json)


def resume(
    context: typer.Context, user: User, name: Name, as_json: Json = False, url: Url = None, token: Token = None
) -> None:
    """Resume a paused schedule; it does not catch up on the ticks that it missed."""
    with connect(context, url, token) as paceline:
        _show(context, [paceline.pause_schedule(user, name, paused=False)], as_json)


def delete(
    context: typer.Context, user: User, name: Name, as_json: Json = False, url: Url = None, token: Token = None
) -> None:
    """Delete a schedule; tasks that it submitted stay."""
    with connect(context, url, token) as paceline:
        _show(context, [paceline.delete_schedule(user, name)], as_json)


def _show(context: typer.Context, schedules: list[Schedule], as_json: bool) -> None:
    if as_json:
        for schedule in schedules:
            show_json(schedule)
    else:
        show(schedule_lines(schedules, round(world_of(context).clock.now() * 1000)))
