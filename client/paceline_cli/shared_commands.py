"""The commands on shared limits, below `limits`. `limits USER` stays the command on a lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from paceline_cli import lane_commands
from paceline_cli.connection import connect, world_of
from paceline_cli.options import Json, PauseLength, Token, Url, pause_end_ms
from paceline_cli.rendering import console, shared_line, shared_lines, show, show_json
from paceline_client import SharedLimit

#: The command that a first word leads to which is none of the group's: it is a user.
_USER = "user"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The shared limit's name.", show_default=False)]


#: Options that are followed by a value.
_WITH_VALUE = ("--url", "--token")


class LimitsGroup(TyperGroup):
    """Takes a first word that is no command for a user; without a word it lists the shared limits."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        index = _first_word(args)
        if index is None:
            return super().parse_args(ctx, args if {"-h", "--help"} & set(args) else ["list", *args])
        word = args[index]
        rest = [*args[:index], *args[index + 1 :]]
        return super().parse_args(ctx, [word, *rest] if word in self.commands else [_USER, *args])


def _first_word(args: Sequence[str]) -> int | None:
    """The index of the first argument that is neither an option nor its value."""
    for index, word in enumerate(args):
        is_value = index > 0 and args[index - 1] in _WITH_VALUE
        if not word.startswith("-") and not is_value:
            return index
    return None


limits = typer.Typer(
    name="limits",
    cls=LimitsGroup,
    help="Show or set the limits of a user, or of a shared limit, which tasks of many users count against.",
)
limits.command(_USER)(lane_commands.limits)


@limits.command("list")
def list_all(as_json: Json = False, url: Url = None, token: Token = None, *, context: typer.Context) -> None:
    """List the shared limits: what holds, how many lanes wait."""
    with connect(context, url, token) as paceline:
        found = paceline.shared_limits()
    for one in found if as_json else ():
        show_json(one)
    if not as_json:
        show(map(shared_line, found) if found else ["There are no shared limits: SHARED_LIMITS is empty"])


@limits.command("show")
def show_one(context: typer.Context, name: Name, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Show a shared limit: what is left, who waits, when the next task starts."""
    with connect(context, url, token) as paceline:
        _show(paceline.shared_limit(name), as_json)


@limits.command("set")
def set_one(
    context: typer.Context,
    name: Name,
    text: Annotated[str, typer.Argument(metavar="LIMITS", help="Such as '25/second; 10 at once'.")],
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Set the limits of a shared limit; they hold at once, whatever SHARED_LIMITS says."""
    with connect(context, url, token) as paceline:
        _show(paceline.set_shared_limit(name, text), as_json)


@limits.command("delete")
def delete(context: typer.Context, name: Name, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Take back what was set; the limits of SHARED_LIMITS hold again, or none."""
    with connect(context, url, token) as paceline:
        _show(paceline.delete_shared_limit(name), as_json)


@limits.command("pause")
def pause(
    context: typer.Context,
    name: Name,
    duration: PauseLength = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Pause a shared limit: no task that counts against it starts until it is resumed, or the time is over."""
    until = pause_end_ms(duration, world_of(context).clock.now())
    with connect(context, url, token) as paceline:
        _show(paceline.pause_shared_limit(name, until), as_json)


@limits.command("resume")
def resume(context: typer.Context, name: Name, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Resume a shared limit that is paused or throttled."""
    with connect(context, url, token) as paceline:
        _show(paceline.resume_shared_limit(name), as_json)


def _show(found: SharedLimit, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    out = console()
    show(shared_lines(found, with_bars=out.is_terminal), out)
