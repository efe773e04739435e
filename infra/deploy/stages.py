"""Reads the stages from `.chalice/config.json` and the settings of their functions."""

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

#: Chalice's name of the API's function.
API = "api_handler"

#: Settings that functions get from the environment; others (LOG_DIR, PORT, ...) apply to this machine only.
PASSED_ON = (
    *("LIMITS", "OVER_LIMIT", "MAX_DELAY", "MAX_ATTEMPTS", "BACKOFF", "DEADLINE", "MAX_PAYLOAD", "ALLOW_KILL"),
    *("MAX_THROTTLE", "LATE_UP_TO"),
    *("MAX_SCHEDULED", "HTTP_ALLOWED_HOSTS", "HTTP_ALLOW_PRIVATE", "WEBHOOK_SECRET", "CORS_ORIGINS"),
)
#: Secrets, each with the Chalice names of the functions that get it.
SECRETS = {"WEBHOOK_SECRET": ("worker", "scheduled")}
#: Functions also get each setting whose name begins with one of these.
PASSED_ON_PREFIXES = ("AUTH", "JWT_")
#: Stages that must not run without authentication by mistake.
GUARDED_STAGES = ("prod",)


@dataclass(frozen=True)
class Stage:
    """One stage's configuration."""

    name: str
    api_gateway_stage: str
    #: Chalice's names of the functions
    functions: tuple[str, ...]
    #: retention of logs, in days
    log_retention_days: int
    #: lateness, in milliseconds, that raises the alarm
    late_ms: int
    #: concurrent workers at most; the rest of the account's concurrency stays for the API and other functions
    maximum_concurrency: int
    #: the same of the function for scheduled tasks and callbacks
    scheduled_concurrency: int
    #: API Gateway's throttling: requests per second, and burst size
    throttling_rate: int
    throttling_burst: int

    @property
    def full_name(self) -> str:
        """Prefix of the names of all the stage's resources."""
        return f"paceline-{self.name}"

    @property
    def is_guarded(self) -> bool:
        """True if it must not be deleted or opened to all by mistake."""
        return self.name in GUARDED_STAGES

    def function_name(self, function: str) -> str:
        """Returns the function's name on AWS, as Chalice, the template and the policies form it."""
        return self.full_name if function == API else f"{self.full_name}-{function}"


def read_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(CONFIG.read_text())
    return config


def read_stage(name: str) -> Stage:
    """Returns the stage. Raises DeployError if it is not configured."""
    config = read_config()
    if name not in config["stages"]:
        known = ", ".join(config["stages"])
        raise DeployError(f"unknown stage {name!r}", f"use one of {known}, or add it to .chalice/config.json")
    stage = config["stages"][name]
    return Stage(
        name=name,
        api_gateway_stage=stage.get("api_gateway_stage", config["api_gateway_stage"]),
        log_retention_days=stage["log_retention_in_days"],
        functions=tuple(stage["lambda_functions"]),
        **stage["deployment"],
    )


def function_settings(env: Mapping[str, str], stage: str) -> dict[str, str]:
    """Returns and validates the settings that the stage's functions get from the environment.

    Raises DeployError for an invalid setting, and for a guarded stage without authentication.
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
            f"stage {stage} with AUTH=none would let anyone act for any user",
            "set AUTH, or ALLOW_NO_AUTH=true if another layer authenticates",
        )
    return passed


def _is_true(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() in ("true", "1", "yes")
