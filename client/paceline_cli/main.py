"""The command line: its commands, and the exit code of each error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from paceline_cli import (
    clearing_commands,
    lane_commands,
    list_commands,
    new_project,
    schedule_commands,
    shared_commands,
    task_commands,
)
from paceline_cli.failures import NotReachableError, exit_code, line
from paceline_client import PacelineError, __version__

_EXIT_CODES = (
    "Exit codes: 0 done, 1 failed or broken, 2 wrong usage, 3 not reachable, 4 refused (over the limit, not allowed, "
    "too late to cancel), 130 Ctrl-C."
)


class Commands(TyperGroup):
    """Prints each error in one line on standard error, and exits with its code; never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (PacelineError, NotReachableError) as error:
            print(line(error), file=sys.stderr)
            raise typer.Exit(exit_code(error)) from error
        except typer.TyperException as error:
            if sys.stderr.isatty():
                raise  # typer draws it with the usage
            print(" ".join(error.format_message().split()), file=sys.stderr)
            raise typer.Exit(error.exit_code) from error


class ScheduleCommands(Commands):
    """Takes `schedules USER` for `schedules list USER`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["list", *args])


app = typer.Typer(
    cls=Commands,
    name="paceline",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"paceline {__version__}")
        raise typer.Exit


@app.callback()
def paceline(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A task queue that keeps every user to a pace."""


def add(panel: str, command: Callable[..., None], *examples: str) -> None:
    """Adds a command to `app`. panel: its heading in the help."""
    app.command(rich_help_panel=panel, epilog=_examples(*examples))(command)


def _examples(*examples: str) -> str:
    return "\n\n".join(["Examples:", *(f"  [cyan]paceline {example}[/]" for example in examples)])


_TASKS, _LANES = "Tasks", "Lanes"

schedules = typer.Typer(cls=ScheduleCommands, no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(schedules, name="schedules", rich_help_panel=_TASKS, help="Submit a task again and again, at its times.")

add(
    _TASKS,
    task_commands.submit,
    "submit ann",
    """submit ann --payload '{"n": 1}' --count 25 --watch""",
    "submit ann --payload @order.json --strict",
    "submit ann --delay 10m --callback-url https://hooks.example.com/ends",
    "submit ann --count 3 --json | jq -r .task_id",
)
add(_TASKS, task_commands.status, "status ann 01a201c6-2ed8-78ae-98d6-419040bdc8e3 --wait")
add(_TASKS, task_commands.cancel, "cancel ann 01a201c6-2ed8-78ae-98d6-419040bdc8e3")
add(_TASKS, list_commands.tasks, "tasks ann", "tasks ann --state failed --limit 500 --json | jq -r .task_id")
add(_TASKS, list_commands.failed, "failed", "failed --json | jq -r '[.user_id, .error] | @tsv'")
add(
    _TASKS,
    clearing_commands.redrive,
    "redrive 01a201c6-2ed8-78ae-98d6-419040bdc8e3",
    "redrive ann 01a201c6-2ed8-78ae-98d6-419040bdc8e3",
    "redrive ann",
    "redrive --since 2h",
)
add(_LANES, list_commands.lanes, "lanes", "lanes customer- --json | jq .backlog")
add(_LANES, lane_commands.lane, "lane ann", "lane ann --json | jq .backlog")
app.add_typer(
    shared_commands.limits,
    rich_help_panel=_LANES,
    epilog=_examples("limits ann '5/second; 100/minute'", "limits ann --clear", "limits set stripe '25/second'"),
)
add(_LANES, lane_commands.group, "group ann acme", "group ann --clear")
add(_LANES, lane_commands.pause, "pause ann", "pause ann --for 10m")
add(_LANES, lane_commands.resume, "resume ann")
add(_LANES, clearing_commands.empty, "empty ann")
add(_LANES, clearing_commands.forget, "forget ann")

add("Your own tasks", new_project.init, "init shop")


def add_to_schedules(name: str, command: Callable[..., None], *examples: str) -> None:
    """Adds a command to `schedules`."""
    schedules.command(name, epilog=_examples(*examples))(command)


add_to_schedules("list", schedule_commands.list_schedules, "schedules list ann", "schedules ann --json")
add_to_schedules(
    "put",
    schedule_commands.put,
    "schedules put ann report --cron '30 7 * * MON-FRI' --timezone Europe/Zurich",
    "schedules put ann poll --every 10m --payload @order.json",
)
add_to_schedules("pause", schedule_commands.pause, "schedules pause ann report")
add_to_schedules("resume", schedule_commands.resume, "schedules resume ann report")
add_to_schedules("delete", schedule_commands.delete, "schedules delete ann report")


def main() -> None:
    """The command `paceline`."""
    app(prog_name="paceline")
