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

_USER_ID = re.compile("[!-~]{1,128}")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def user_id(text: str | None) -> str | None:
    """A callback: a valid user id, or None. BadParameter for any other text."""
    if text is not None and not _USER_ID.fullmatch(text):
        raise typer.BadParameter("a user id is 1 to 128 visible ASCII characters")
    return text


def length_ms(text: str, option: str) -> int:
    """The length of time in milliseconds, from `30s`, `10m`, `2h` or `1d`. BadParameter for any other text."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if not match or not int(match[1]):
        raise typer.BadParameter("use 30s, 10m, 2h or 1d", param_hint=option)
    return int(match[1]) * _UNIT_MS[match[2]]


def pause_end_ms(length: str | None, now: float) -> int | None:
    """The epoch milliseconds at which a pause of that length ends; None for one without end. now: epoch seconds."""
    return None if length is None else round(now * 1000) + length_ms(length, "--for")


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

User = Annotated[str, typer.Argument(help="The user whose lane it is.", callback=user_id, show_default=False)]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id, as submit gave it.", show_default=False)]
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
Most = Annotated[int, typer.Option("--limit", "-n", min=1, help="List this many at most; pages are fetched as needed.")]
PauseLength = Annotated[
    str | None,
    typer.Option("--for", metavar="DURATION", help="How long: 30s, 10m, 2h, 1d.", show_default="no end"),
]
