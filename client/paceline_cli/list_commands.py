"""The commands that list: tasks, lanes, failed. Each page is fetched as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, TypeVar

import typer
from rich.text import Text

from paceline_cli.connection import connect
from paceline_cli.options import Json, Most, Token, Url, User
from paceline_cli.rendering import console, failed_line, lane_line, listed_task_line, show, show_json
from paceline_client import Lane, State, Task

#: Values of one request.
PAGE = 100
_STATES: tuple[State, ...] = ("queued", "running", "succeeded", "failed", "cancelled")

Value = TypeVar("Value", Task, Lane)


def _state(text: str | None) -> str | None:
    if text is not None and text not in _STATES:
        raise typer.BadParameter(f"a state is one of {', '.join(_STATES)}")
    return text


def tasks(
    context: typer.Context,
    user: User,
    state: Annotated[
        str | None,
        typer.Option(callback=_state, help=f"Only tasks in this state: {', '.join(_STATES)}.", show_default=False),
    ] = None,
    most: Most = 50,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List a user's tasks, newest first."""
    wanted = next((one for one in _STATES if one == state), None)
    with connect(context, url, token) as paceline:
        _show(paceline.tasks(user, state=wanted, page_size=min(most, PAGE)), most, as_json, listed_task_line)


def lanes(
    context: typer.Context,
    search: Annotated[str, typer.Argument(metavar="[BEGINNING]", help="The beginning of the user ids.")] = "",
    most: Most = 50,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the lanes by user id, with what waits and when the last task started."""
    with connect(context, url, token) as paceline:
        _show(paceline.lanes(search, page_size=min(most, PAGE)), most, as_json, lane_line)


def failed(
    context: typer.Context, most: Most = 50, as_json: Json = False, url: Url = None, token: Token = None
) -> None:
    """List the failed tasks of all users, the newest failure first, with their reasons."""
    with connect(context, url, token) as paceline:
        _show(paceline.failed(page_size=min(most, PAGE)), most, as_json, failed_line)


def _show(values: Iterator[Value], most: int, as_json: bool, line: Callable[[Value], Text]) -> None:
    out = console()
    for value in islice(values, most):
        if as_json:
            show_json(value)
        else:
            show([line(value)], out)
    if out.is_terminal and not as_json and next(values, None) is not None:
        show([f"There are more: --limit {10 * most} lists them."], out)
