"""The commands that `make` has too: each hands its words to the module that does the work.

Those modules are loaded when they are called: AWS's libraries take a second to load, and `submit` needs none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from completions.tail import FORMATS, parse_since
from infra.cli.options import LogDir, LogStage, OneUser, Stage, User, from_caller, limits_text

Format = Enum("Format", {name: name for name in FORMATS}, type=str)  # type: ignore[misc]  # they are known to logs
_LINE = Format("line")


def _words(**options: Any) -> list[str]:
    """Options as argparse has them; those that are None, False or empty are left out."""
    found: list[str] = []
    for name, value in options.items():
        if value is True:
            found.append(f"--{name.replace('_', '-')}")
        elif value not in (None, False, ""):
            found.append(f"--{name.replace('_', '-')}={value}")
    return found


def _run(module: str, words: Iterable[str] | None = None) -> None:
    main = import_module(module).main
    raise typer.Exit(main() if words is None else main(list(words)))


def run() -> None:
    """Run everything on this machine; Ctrl-C ends it. The same as make run."""
    _run("local.runner")


def _since(text: str) -> str:
    try:
        parse_since(text, int(time.time() * 1000))
    except ValueError as error:
        raise typer.BadParameter("use 30s, 10m, 2h, 1d, 1w or an ISO 8601 time") from error
    return text


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
    user: OneUser = None,
    form: Annotated[
        Format, typer.Option("--format", help="line is ours, the others are those of aws logs tail.")
    ] = _LINE,
    since: Annotated[
        str, typer.Option(callback=_since, help="From when: 30s, 10m, 2h, 1d, 1w or an ISO 8601 time.")
    ] = "10m",
    log_dir: LogDir = None,
    stage: LogStage = None,
) -> None:
    """Show the completions that this machine logged."""
    words = _words(user=user, format=form.value, since=since, log_dir=log_dir, stage=stage)
    _run("completions.tail", ["--follow" if follow else "--no-follow", *words])


def audit(
    user: OneUser = None,
    limits: Annotated[
        str | None, typer.Option(callback=limits_text, help="Everybody's limits.", show_default="LIMITS")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    log_dir: LogDir = None,
    stage: LogStage = None,
) -> None:
    """Prove from the completion log that the pace was kept.

    Exit code: 0 when it is clean, 1 when a promise was broken.
    """
    _run("completions.audit", _words(user=user, limits=limits, json=as_json, log_dir=log_dir, stage=stage))


def demo(
    fast: Annotated[bool, typer.Option("--fast", help="Short windows: a quarter of a minute instead of one.")] = False,
    out: Annotated[
        Path | None, typer.Option(callback=from_caller, help="Where the picture goes to.", show_default="build/demo")
    ] = None,
) -> None:
    """Send bursts for five users, watch them live, and end with the audit and a picture.

    Uses the Paceline that answers at PORT; when none does, it runs one of its own and leaves nothing behind.

    Exit code: 0 when the audit is clean, 1 when it is not.
    """
    _run("demo.show", _words(fast=fast, out=out))


def deploy(stage: Stage = "dev") -> None:
    """Bring a stage up: on LocalStack when AWS_ENDPOINT_URL is set, else on AWS."""
    _run("infra.deploy.command", ["up", f"--stage={stage}"])


def destroy(stage: Stage = "dev") -> None:
    """Take everything of a stage away, what waits and what is stored included."""
    _run("infra.deploy.command", ["down", f"--stage={stage}"])


def redrive(
    user: OneUser = None,
    stage: Annotated[str | None, typer.Option(help="A stage on AWS.", show_default="what runs here, else dev")] = None,
) -> None:
    """Bring failed tasks back from the dead-letter queue, each user's in order."""
    _run("operations.redrive", _words(user=user, stage=stage))


def token(
    user: User,
    admin: Annotated[bool, typer.Option("--admin", help="Let it act for everyone.")] = False,
    minutes: Annotated[float, typer.Option(min=0, help="How long it is good.")] = 60,
) -> None:
    """Print a token signed with JWT_SECRET, for trying things out."""
    _run("operations.token", [*_words(admin=admin, minutes=minutes), "--", user])
