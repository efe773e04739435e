"""Derives the worker function's time-out, and its queue's visibility timeout, from the longest deadline of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping

from chalicelib.container import load_own_tasks
from chalicelib.core.errors import OwnTasksError
from chalicelib.settings import Settings
from chalicelib.tasks.registry import Registry, registry
from infra.deploy.errors import DeployError
from infra.deploy.stages import Stage

#: Seconds of the worker function beside a task's run: to wait for its start, to claim it and to store its outcome.
MARGIN_SECONDS = 10
#: Seconds for which a message stays hidden after its function must have ended. Lambda refuses a trigger whose queue
#: hides messages for less than the function's time-out.
HIDDEN_LONGER_SECONDS = 30


def worker_timeout(stage: Stage, deadlines_ms: Mapping[str, int]) -> int:
    """Returns the time-out in seconds. DeployError if a deadline needs a longer one than the region takes.

    deadlines_ms: by the setting or task that says so.
    """
    name, longest_ms = max(deadlines_ms.items(), key=lambda one: one[1])
    needed = max(stage.worker_timeout, math.ceil(longest_ms / 1000) + MARGIN_SECONDS)
    if needed <= stage.longest_timeout:
        return needed
    raise DeployError(
        f"{name} needs functions that run for {needed} s; stage {stage.name} allows {stage.longest_timeout} s",
        f"allowed: deadlines up to {stage.longest_timeout - MARGIN_SECONDS} s. "
        "Where AWS takes 1,800 s, set longest_timeout in .chalice/config.json",
    )


def own_tasks(tasks_dir: str = "") -> Registry:
    """Loads the own tasks and returns them. DeployError if that fails: it would fail on Lambda too."""
    try:
        load_own_tasks(tasks_dir)
    except OwnTasksError as error:
        raise DeployError(str(error), "mend it, then deploy again") from error
    except Exception as error:
        raise DeployError(
            f"own tasks: {type(error).__name__}: {error}", "mend it, or install what it imports"
        ) from error
    return registry


def require_shared_limits(settings: Mapping[str, str], tasks: Registry) -> None:
    """DeployError if a task counts against a shared limit that SHARED_LIMITS does not have."""
    known = Settings.from_env({"SHARED_LIMITS": settings.get("SHARED_LIMITS", "")}).shared_limits
    if wrong := tasks.unknown_shared(known):
        raise DeployError(f"SHARED_LIMITS: {wrong}", "add it in the environment or in .env")


def deadlines(settings: Mapping[str, str], tasks: Registry) -> dict[str, int]:
    """Returns the deadlines, in milliseconds, of the setting and of each task that has one of its own."""
    of_all = Settings.from_env({"DEADLINE": settings.get("DEADLINE", "")}).deadline_ms
    own = {f"the task {name!r}": tasks[name].deadline_ms for name in tasks.names}
    return {"DEADLINE": of_all, **{name: deadline for name, deadline in own.items() if deadline}}
