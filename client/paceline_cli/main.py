"""The map of the command line: every command, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from infra.cli import lanes, project, tasks
from infra.cli.failures import NotReachableError, exit_code, line
from paceline_client import PacelineError

_EXIT_CODES = (
    "Exit codes: 0 done, 1 failed or broken, 2 wrong usage, 3 not reachable, 4 refused (over the limit, not allowed, "
    "too late to cancel), 130 Ctrl-C."
)


class Commands(TyperGroup):
    """Says what went wrong in one line on standard error, and exits with its code. Nothing is ever a traceback."""

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


app = typer.Typer(
    cls=Commands,
    name="paceline",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
)


@app.callback()
def paceline() -> None:
    """A task queue that keeps every user to a pace."""


def _add(panel: str, command: Callable[..., None], *examples: str) -> None:
    epilog = "\n\n".join(["Examples:", *(f"  [cyan]./paceline {example}[/]" for example in examples)])
    app.command(rich_help_panel=panel, epilog=epilog)(command)


_TASKS, _LANES, _LOG, _SYSTEM = "Tasks", "Lanes", "See it", "Run and deploy"

_add(
    _TASKS,
    tasks.submit,
    "submit ann",
    """submit ann --payload '{"n": 1}' --count 25 --watch""",
    "submit ann --payload @order.json --strict",
    "submit ann --delay 10m --callback-url https://hooks.example.com/ends",
    "submit ann --count 3 --json | jq -r .task_id",
)
_add(_TASKS, tasks.status, "status ann 01a201c6-2ed8-78ae-98d6-419040bdc8e3 --wait")
_add(_TASKS, tasks.cancel, "cancel ann 01a201c6-2ed8-78ae-98d6-419040bdc8e3")
_add(_LANES, lanes.lane, "lane ann", "lane ann --json | jq .backlog")
_add(_LANES, lanes.limits, "limits ann", "limits ann '5/second; 100/minute'", "limits ann --clear")
_add(_LANES, lanes.pause, "pause ann", "pause ann --for 10m")
_add(_LANES, lanes.resume, "resume ann")
_add(_LOG, project.demo, "demo", "demo --fast")
_add(_LOG, project.logs, "logs --follow", "logs --user ann --since 1h --format short")
_add(_LOG, project.audit, "audit", "audit --user ann --json | jq .clean")
_add(_SYSTEM, project.run, "run")
_add(_SYSTEM, project.deploy, "deploy --stage dev")
_add(_SYSTEM, project.destroy, "destroy --stage dev")
_add(_SYSTEM, project.redrive, "redrive --user ann")
_add(_SYSTEM, project.token, "token ann", "token operator --admin")
