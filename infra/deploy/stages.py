"""Reads the stages from `.chalice/config.json` and the settings of their functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from chalicelib.core.errors import SettingError
from chalicelib.settings import JWT_KEYS, Settings
from infra.deploy.errors import DeployError
from infra.deploy.secrets import without_references

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / ".chalice" / "config.json"

#: Chalice's name of the API's function.
API = "api_handler"

#: Settings that functions get from the environment; others (LOG_DIR, PORT, ...) apply to this machine only.
PASSED_ON = (
    *("SHARED_LIMITS", "HTTP_SHARED"),
    *("LIMITS", "OVER_LIMIT", "MAX_DELAY", "MAX_ATTEMPTS", "BACKOFF", "DEADLINE", "MAX_PAYLOAD", "ALLOW_KILL"),
    *(
        "KEEP_FINISHED",
        "MAX_THROTTLE",
        "LATE_UP_TO",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
    ),
    "AWS_CLIENT",
    *("MAX_SCHEDULED", "MAX_SCHEDULES", "HTTP_ALLOWED_HOSTS", "HTTP_ALLOW_PRIVATE", "WEBHOOK_SECRET", "CORS_ORIGINS"),
    *("AUTH", *JWT_KEYS, "JWT_AUDIENCE", "JWT_ISSUER"),
)
#: The only functions, by their Chalice names, that get the settings whose names begin so. Workers run own tasks, whose
#: code could make tokens with JWT_SECRET.
RECIPIENTS = {
    "WEBHOOK_SECRET": ("worker", "scheduled"),
    "TASKS_DIR": (API, "worker", "scheduled"),
    **dict.fromkeys(("AUTH", "JWT_", "CORS_ORIGINS", "ALLOW_KILL"), (API, "authorizer")),
}
#: Stages that must not run without authentication by mistake.
GUARDED_STAGES = ("prod",)


class FrontDoor(str, Enum):
    """What receives a stage's HTTP requests."""

    #: API Gateway's REST API
    REST_API = "rest_api"
    #: a Lambda Function URL
    FUNCTION_URL = "function_url"


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
    front_door: FrontDoor = FrontDoor.REST_API
    #: concurrency that is reserved for the API's function, and its bound; None for neither
    api_concurrency: int | None = None
    #: longest time-out of a function that the region takes, in seconds
    longest_timeout: int = 900
    #: time-out of the worker function in seconds, unless a deadline needs a longer one
    worker_timeout: int = 60
    #: whether a task submitted each minute watches for a stall in which nothing fails
    canary: bool = False
    #: whether API Gateway logs each request
    access_log: bool = False
    #: units a second for which the table is ready at once, and above which DynamoDB throttles; these defaults are
    #: DynamoDB's own values for a table
    warm_writes: int = 4_000
    warm_reads: int = 12_000
    max_writes: int = 40_000
    max_reads: int = 40_000

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
        worker_timeout=stage["lambda_functions"]["worker"]["lambda_timeout"],
        **{**stage["deployment"], "front_door": _front_door(stage["deployment"].get("front_door", "rest_api"))},
    )


def _front_door(text: str) -> FrontDoor:
    try:
        return FrontDoor(text)
    except ValueError:
        allowed = ", ".join(one.value for one in FrontDoor)
        raise DeployError(
            f"front_door {text!r} is not allowed", f"set one of {allowed} in .chalice/config.json"
        ) from None


def settings_of(function: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of the settings that this function gets. function: its Chalice name."""
    return {name: value for name, value in settings.items() if function in _recipients(name, function)}


def _recipients(setting: str, function: str) -> tuple[str, ...]:
    """Returns the setting's recipients; a setting for all has the function itself."""
    return next((found for prefix, found in RECIPIENTS.items() if setting.startswith(prefix)), (function,))


def function_settings(env: Mapping[str, str], stage: Stage) -> dict[str, str]:
    """Returns and validates the settings that the stage's functions get from the environment.

    Raises DeployError for an invalid setting, and for a stage that must not be open to all without authentication.
    """
    passed = {name: env[name] for name in PASSED_ON if env.get(name)}
    validate(passed, stage)
    if env.get("AUTH", "none") not in ("", "none"):
        return passed
    _require_guard(stage, _is_true(env, "ALLOW_NO_AUTH"))
    return {name: value for name, value in passed.items() if not name.startswith("JWT_")}  # nobody uses the keys


def validate(settings: Mapping[str, str], stage: Stage) -> None:
    """DeployError for an invalid setting; a secret that is a reference counts as valid."""
    try:
        Settings.from_env(without_references(settings) | {"STAGE": stage.name})
    except SettingError as error:
        raise DeployError(str(error), "correct it in the environment or in .env") from error


def _require_guard(stage: Stage, is_allowed: bool) -> None:
    """DeployError if all could act for any user without being allowed to."""
    if stage.front_door is FrontDoor.FUNCTION_URL:
        raise DeployError(
            f"stage {stage.name} has a Function URL, which nothing else protects", "set AUTH=jwt and a key"
        )
    if stage.is_guarded and not is_allowed:
        raise DeployError(
            f"stage {stage.name} with AUTH=none would let anyone act for any user",
            "set AUTH, or ALLOW_NO_AUTH=true if another layer authenticates",
        )


def _is_true(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() in ("true", "1", "yes")
