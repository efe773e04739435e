"""The checkout's commands: each parses its options, calls one function, and exits with its code.

The functions' modules are imported when a command runs: AWS's libraries take a second to load, and most need none.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from completions.reader import completions_folder
from completions.tail import FORMATS, parse_since
from infra.environment import environment
from operations.first_hour.sizes import Size
from paceline_cli.options import User, user_id

Format = Enum("Format", {name: name for name in FORMATS}, type=str)  # type: ignore[misc]  # a dict known at run time
_LINE = Format("line")


def _from_caller(path: Path | None) -> Path | None:
    """A callback: the path relative to the caller's folder, which `./paceline` has left for the checkout's."""
    return None if path is None else Path(os.environ.get("PACELINE_FROM", ".")) / path


def _existing_folder(path: Path | None) -> Path | None:
    found = _from_caller(path)
    if found is not None and not found.is_dir():
        raise typer.BadParameter(f"{found} is not a folder")
    return found


def _since(text: str) -> str:
    try:
        parse_since(text, int(time.time() * 1000))
    except ValueError as error:
        raise typer.BadParameter("use 30s, 10m, 2h, 1d, 1w or an ISO 8601 time") from error
    return text


OneUser = Annotated[str | None, typer.Option("--user", help="This user only.", callback=user_id, show_default=False)]
Stage = Annotated[str, typer.Option(help="A stage of .chalice/config.json.", envvar="STAGE", show_envvar=False)]
LogDir = Annotated[
    Path | None,
    typer.Option(help="The folder of the logs.", callback=_existing_folder, show_default="LOG_DIR, else logs"),
]
LogStage = Annotated[str | None, typer.Option("--stage", help="The stage of the log.", show_default="STAGE, else dev")]


def _log_folder(log_dir: Path | None, stage: str | None) -> Path:
    """The folder of the chosen completion log; it may not exist yet."""
    env = environment()
    return completions_folder(log_dir or Path(env.get("LOG_DIR") or "logs"), stage or env.get("STAGE") or "dev")


def run() -> None:
    """Run everything on this machine; Ctrl-C ends it."""
    from local.runner import main  # noqa: PLC0415

    raise typer.Exit(main())


def logs(
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Wait for more, until Ctrl-C.")] = True,
    user: OneUser = None,
    form: Annotated[
        Format, typer.Option("--format", help="line is Paceline's form, the others are those of aws logs tail.")
    ] = _LINE,
    since: Annotated[
        str, typer.Option(callback=_since, help="Oldest entry: 30s, 10m, 2h, 1d, 1w ago, or an ISO 8601 time.")
    ] = "10m",
    log_dir: LogDir = None,
    stage: LogStage = None,
) -> None:
    """Show the completions that this machine logged, and follow them."""
    from completions.tail import print_log  # noqa: PLC0415

    print_log(_log_folder(log_dir, stage), user, parse_since(since, int(time.time() * 1000)), form.value, follow)


def audit(
    user: OneUser = None,
    limits: Annotated[
        str | None, typer.Option(help="Limits of users without limits of their own.", show_default="LIMITS")
    ] = None,
    shared_limits: Annotated[
        str | None, typer.Option(help="Shared limits that no one has changed.", show_default="SHARED_LIMITS")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    log_dir: LogDir = None,
    stage: LogStage = None,
) -> None:
    """Prove from the completion log that the pace was kept, by each user and under each shared limit.

    Exit code: 0 if it is clean, 1 if a promise was broken.
    """
    from chalicelib.core.errors import LimitsError  # noqa: PLC0415
    from completions.audit import default_limits, default_shared_limits, print_audit  # noqa: PLC0415

    try:
        parsed = default_limits(limits or environment().get("LIMITS"))
    except LimitsError as error:
        raise typer.BadParameter(str(error), param_hint="--limits") from error
    try:
        shared = default_shared_limits(shared_limits or environment().get("SHARED_LIMITS"))
    except (LimitsError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--shared-limits") from error
    raise typer.Exit(0 if print_audit(_log_folder(log_dir, stage), user, parsed, as_json, shared) else 1)


def demo(
    fast: Annotated[bool, typer.Option("--fast", help="Short windows: a quarter of a minute instead of one.")] = False,
    out: Annotated[
        Path | None, typer.Option(callback=_from_caller, help="Folder for the picture.", show_default="build/demo")
    ] = None,
) -> None:
    """Send bursts for five users, watch them live, and end with the audit and a picture.

    Uses the Paceline that answers at PORT; if none does, it runs one of its own and leaves nothing behind.

    Exit code: 0 if the audit is clean, 1 if it is not.
    """
    from demo.show import show_demo  # noqa: PLC0415

    raise typer.Exit(show_demo(fast, out))


def deploy(stage: Stage = "dev") -> None:
    """Deploy a stage: to LocalStack when AWS_ENDPOINT_URL is set, else to AWS."""
    from infra.deploy import command  # noqa: PLC0415

    _or_exit(command.deploy, stage)


def destroy(stage: Stage = "dev") -> None:
    """Delete a stage, with its queued tasks and stored data."""
    from infra.deploy import command  # noqa: PLC0415

    _or_exit(command.destroy, stage)


def package(
    stage: Stage = "dev",
    out: Annotated[Path, typer.Option(callback=_from_caller, help="Folder for the package.")] = Path("build/package"),
) -> None:
    """Write a stage as one SAM template and one archive, for a pipeline."""
    from infra.deploy import command  # noqa: PLC0415

    _or_exit(command.write_package, stage, out)


def first_hour(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it spends.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=_from_caller, help="Also write the report to this file, as JSON.")
    ] = None,
    size: Annotated[
        Size | None,
        typer.Option(help="How much it measures.", show_default="full on AWS, small on LocalStack"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this measurement; may be repeated.", show_default="all")
    ] = None,
    remove_only: Annotated[
        bool, typer.Option("--remove-only", help="Only remove the leftovers of an earlier run.")
    ] = False,
) -> None:
    """Deploy a stage of its own, measure AWS with it, and remove everything again.

    Exit code: 0 if all is as expected, 1 if something is not, 2 if you declined.
    """
    from operations.first_hour.command import first_hour as measure  # noqa: PLC0415
    from operations.first_hour.errors import FirstHourError  # noqa: PLC0415

    try:
        code = measure(size, only or (), json_file, is_agreed=yes, remove_only=remove_only)
    except FirstHourError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    raise typer.Exit(code)


def dead_letters(
    user: OneUser = None,
    stage: Annotated[str | None, typer.Option(help="A stage on AWS.", show_default="the running one, else dev")] = None,
) -> None:
    """Submit failed tasks again from the dead-letter queue, each user's in order."""
    from operations.redrive import print_redrive  # noqa: PLC0415

    raise typer.Exit(print_redrive(user, stage))


def token(
    user: User,
    admin: Annotated[bool, typer.Option("--admin", help="Let it act for every user.")] = False,
    minutes: Annotated[float, typer.Option(min=0, help="How long it is valid.")] = 60,
) -> None:
    """Print a token signed with JWT_SECRET, for trying things out."""
    from chalicelib.core.errors import SettingError  # noqa: PLC0415
    from operations.token import token_from  # noqa: PLC0415

    try:
        print(token_from(environment(), user, time.time(), minutes, is_admin=admin))
    except SettingError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


def _or_exit(action: Callable[..., None], *arguments: object) -> None:
    """Calls the action; a DeployError becomes one line on standard error and exit code 1."""
    from infra.deploy.errors import DeployError  # noqa: PLC0415

    try:
        action(*arguments)
    except DeployError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
