"""The command line of the checkout: the client's commands, and those that run, watch and deploy a Paceline."""

from local.run_settings import local_url
from operations import commands
from paceline_cli.connection import World
from paceline_cli.main import add, app

_LOG, _SYSTEM = "See it", "Run and deploy"

add(_LOG, commands.demo, "demo", "demo --fast")
add(_LOG, commands.logs, "logs", "logs --user ann --since 1h --format short --no-follow")
add(_LOG, commands.audit, "audit", "audit --user ann --json | jq .clean")
add(_SYSTEM, commands.run, "run")
add(_SYSTEM, commands.deploy, "deploy --stage dev")
add(_SYSTEM, commands.destroy, "destroy --stage dev")
add(_SYSTEM, commands.package, "package --stage prod")
add(_SYSTEM, commands.first_hour, "first-hour", "first-hour --yes --json first-hour.json")
add(_SYSTEM, commands.dead_letters, "dead-letters --user ann")
add(_SYSTEM, commands.token, "token ann", "token operator --admin")

__all__ = ["app", "main"]


def main() -> None:
    app(prog_name="paceline", obj=World(default_url=local_url(), task_names=own_task_names))


def own_task_names() -> list[str]:
    """The names of this checkout's tasks."""
    from chalicelib.container import load_own_tasks  # noqa: PLC0415 - most commands need no task
    from chalicelib.tasks.registry import registry  # noqa: PLC0415

    load_own_tasks()
    return list(registry.names)
