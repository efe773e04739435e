"""Arguments and options that several commands share."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from chalicelib.core.errors import LimitsError
from chalicelib.core.limits import parse_limits
from chalicelib.core.users import is_user_id
from completions.tail import parse_since


def _user(text: str | None) -> str | None:
    if text is not None and not is_user_id(text):
        raise typer.BadParameter("a user id is 1 to 128 visible ASCII characters")
    return text


def limits_text(text: str | None) -> str | None:
    """A callback: limits that can be read."""
    if text is not None:
        try:
            parse_limits(text)
        except LimitsError as error:
            raise typer.BadParameter(str(error)) from error
    return text


def from_caller(path: Path | None) -> Path | None:
    """A callback: the path as the caller meant it, whose folder `./paceline` has left for the project's."""
    return None if path is None else Path(os.environ.get("PACELINE_FROM", ".")) / path


def _folder(path: Path | None) -> Path | None:
    found = from_caller(path)
    if found is not None and not found.is_dir():
        raise typer.BadParameter(f"{found} is not a folder")
    return found


def length_ms(text: str, option: str) -> int:
    """The milliseconds that `30s`, `10m`, `2h` or `1d` is; BadParameter when it is nothing such."""
    try:
        length = -parse_since(text, 0) if text[-1:].isalpha() and text[:1].isdigit() else 0
    except ValueError:
        length = 0
    if length <= 0:
        raise typer.BadParameter("use 30s, 10m, 2h or 1d", param_hint=option)
    return length


def moment_ms(text: str, option: str) -> int:
    """The epoch milliseconds of an ISO 8601 time, by this machine's time zone unless it names one."""
    try:
        return round(datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        reason = "use an ISO 8601 time, as in 2026-11-23T09:30 or 2026-11-23T09:30+01:00"
        raise typer.BadParameter(reason, param_hint=option) from error


def read_payload(text: str | None) -> Any:
    """The JSON that the text is, `@file` or, for `-`, standard input holds; None when there is none."""
    if text is None:
        return None
    try:
        return json.loads(_content(text))
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]}: {error.strerror}", param_hint="--payload") from error
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(
            f"no JSON: {error}; text needs quotes of its own, as in '\"hello\"'", param_hint="--payload"
        ) from error


def _content(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if text.startswith("@"):
        return (Path(os.environ.get("PACELINE_FROM", ".")) / text[1:]).read_text(encoding="utf-8")
    return text


_API = "Where it answers"

User = Annotated[str, typer.Argument(help="Whose lane.", callback=_user, show_default=False)]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id, as submit gave it.", show_default=False)]
OneUser = Annotated[str | None, typer.Option("--user", help="This user only.", callback=_user, show_default=False)]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="PACELINE_URL",
        help="Where Paceline answers; on AWS with the stage's path.",
        show_default="this machine, PORT",
        rich_help_panel=_API,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="PACELINE_TOKEN",
        help="The bearer token, where AUTH is jwt.",
        show_default=False,
        show_envvar=True,
        rich_help_panel=_API,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Stage = Annotated[str, typer.Option(help="A stage of .chalice/config.json.", envvar="STAGE", show_envvar=False)]
LogDir = Annotated[
    Path | None,
    typer.Option(help="The folder of the logs.", callback=_folder, show_default="LOG_DIR, else logs"),
]
LogStage = Annotated[str | None, typer.Option("--stage", help="Whose log.", show_default="STAGE, else dev")]
