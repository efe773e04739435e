"""The stages: what `.chalice/config.json` says of each, and the settings that its functions get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.core.errors import SettingError
from chalicelib.settings import Settings
from infra.deploy.errors import DeployError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / ".chalice" / "config.json"

#: Chalice's name for the function behind the API.
API = "api_handler"

#: Settings that functions take over from the environment; the rest (LOG_DIR, PORT, ...) belong to this machine.
PASSED_ON = (
    *("LIMITS", "OVER_LIMIT", "MAX_DELAY", "MAX_ATTEMPTS", "BACKOFF", "DEADLINE", "MAX_PAYLOAD", "ALLOW_KILL"),
    *("MAX_SCHEDULED", "HTTP_ALLOWED_HOSTS", "HTTP_ALLOW_PRIVATE", "WEBHOOK_SECRET"),
)
#: Secrets, each with Chalice's names of the functions that need it; the others don't get it.
SECRETS = {"WEBHOOK_SECRET": ("worker", "scheduled")}
#: So are those of the authentication, whatever they are.
PASSED_ON_PREFIXES = ("AUTH", "JWT_")
#: Stages where everybody on the internet would be let in by mistake.
GUARDED_STAGES = ("prod",)


@dataclass(frozen=True)
class Stage:
    """One stage as configured."""

    name: str
    api_gateway_stage: str
    #: Chalice's names of the functions.
    functions: tuple[str, ...]
    #: Days.
    log_retention_days: int
    #: Milliseconds from which on a start is late, for the alarm.
    late_ms: int
    #: Workers at a time; the account's other functions, the API among them, need the rest of its concurrency.
    maximum_concurrency: int
    #: Requests a second that API Gateway lets through, and how many at once on top.
    throttling_rate: int
    throttling_burst: int

    @property
    def full_name(self) -> str:
        """What the names of everything that belongs to the stage begin with."""
        return f"paceline-{self.name}"

    def function_name(self, function: str) -> str:
        """The function's name on AWS, as Chalice makes it; template and policies know it too."""
        return self.full_name if function == API else f"{self.full_name}-{function}"

    def role_name(self, function: str) -> str:
        """The name of the function's role, as Chalice makes it."""
        return f"{self.full_name}-{function}"


def read_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(CONFIG.read_text())
    return config


def read_stage(name: str) -> Stage:
    """The stage of that name. DeployError when there is none."""
    config = read_config()
    if name not in config["stages"]:
        known = ", ".join(config["stages"])
        raise DeployError(f"there is no stage {name!r}", f"use one of {known}, or add it to .chalice/config.json")
    stage = config["stages"][name]
    return Stage(
        name=name,
        api_gateway_stage=stage.get("api_gateway_stage", config["api_gateway_stage"]),
        log_retention_days=stage["log_retention_in_days"],
        functions=tuple(stage["lambda_functions"]),
        **stage["deployment"],
    )


def function_settings(env: Mapping[str, str], stage: str) -> dict[str, str]:
    """The settings that the stage's functions get from here, checked as they will check them themselves.

    DeployError for a wrong one, and for a guarded stage that would let everybody in.
    """
    passed = {
        name: value for name, value in env.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES) if value
    }
    try:
        Settings.from_env(passed | {"STAGE": stage})
    except SettingError as error:
        raise DeployError(str(error), "correct it in the environment or in .env") from error
    if stage in GUARDED_STAGES and env.get("AUTH", "none") in ("", "none") and not _is_true(env, "ALLOW_NO_AUTH"):
        raise DeployError(
            f"stage {stage} with AUTH=none would take tasks from anyone in the name of anyone",
            "set AUTH, or ALLOW_NO_AUTH=true if something else guards it",
        )
    return passed


def _is_true(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() in ("true", "1", "yes")
