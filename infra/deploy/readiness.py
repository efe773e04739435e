"""Checks before a deployment whether a guarded stage is ready for production: warns, or refuses to deploy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy.access_log import require_log_role
from infra.deploy.account import Account
from infra.deploy.errors import DeployError
from infra.deploy.stages import FrontDoor, Stage

#: Concurrent executions that stay for the API, beside those of the triggers.
_FOR_THE_API = 100
_DENIED = ("AccessDenied", "AccessDeniedException")


def check_readiness(
    account: Account, stage: Stage, settings: Mapping[str, str], env: Mapping[str, str], warn: Callable[[str], None]
) -> None:
    """Warns of whatever the checklist of docs/production/going-live.md advises against.

    DeployError for what breaks a promise or would fail. The account is checked on AWS only. settings: the functions'.
    """
    if stage.is_guarded:
        for warning in (*_of_settings(settings), *_of_stage(stage, env)):
            warn(f"warning: {warning}")
    if not account.endpoint_url:
        _check_account(account, stage, warn)


def _of_settings(settings: Mapping[str, str]) -> Iterator[str]:
    if settings.get("AUTH") == "jwt":
        yield from _of_tokens(settings)
    else:
        yield "AUTH is none: whoever reaches the API may act for every user, so another layer must authenticate"
    hosts = [host.strip() for host in settings.get("HTTP_ALLOWED_HOSTS", "").split(",") if host.strip()]
    if any(host.partition(":")[0] == "*" for host in hosts):
        yield "HTTP_ALLOWED_HOSTS is *: tasks may call every host; name those that you need"
    if hosts and not settings.get("WEBHOOK_SECRET"):
        yield "WEBHOOK_SECRET is not set: receivers can't tell Paceline's calls and callbacks from others"
    if settings.get("ALLOW_KILL", "").lower() in ("true", "1", "yes"):
        yield "ALLOW_KILL is true: an admin can end the API's processes"


def _of_tokens(settings: Mapping[str, str]) -> Iterator[str]:
    if settings.get("JWT_SECRET"):
        yield "JWT_SECRET is set: whoever reads it can make tokens for every user; JWT_JWKS_URL needs no secret"
    missing = [name for name in ("JWT_AUDIENCE", "JWT_ISSUER") if not settings.get(name)]
    if missing:
        yield f"{' and '.join(missing)} not set: tokens that were issued for other applications may be accepted"


def _of_stage(stage: Stage, env: Mapping[str, str]) -> Iterator[str]:
    if not env.get("ALARM_TOPIC_ARN"):
        yield "ALARM_TOPIC_ARN is not set: alarms notify nobody"
    if not stage.canary:
        yield "canary is false: no canary watches for a stall in which nothing fails"
    if stage.front_door is FrontDoor.FUNCTION_URL:
        yield "front_door is function_url: it has no access log, no firewall and no throttling"
    elif not stage.access_log:
        yield "access_log is false: API Gateway does not log requests"


def _check_account(account: Account, stage: Stage, warn: Callable[[str], None]) -> None:
    checks: dict[str, Callable[[], None]] = {
        "the role of the access log": lambda: require_log_role(account, stage),
        "the table's replicas": lambda: _refuse_eventual_replicas(account, stage),
        "the account's concurrency": lambda: _check_concurrency(account, stage, warn),
    }
    for what, check in checks.items():
        try:
            check()
        except ClientError as error:
            if error.response["Error"]["Code"] not in _DENIED:
                raise
            warn(f"warning: {what} could not be checked: {error}")


def _refuse_eventual_replicas(account: Account, stage: Stage) -> None:
    client = account.client("dynamodb")
    table: dict[str, Any] = {}
    with suppress(client.exceptions.ResourceNotFoundException):
        table = client.describe_table(TableName=stage.full_name)["Table"]
    if table.get("Replicas") and table.get("MultiRegionConsistency") != "STRONG":
        raise DeployError(
            f"the table {stage.full_name} has replicas that follow with a delay, which breaks the pace",
            "remove the replicas: 'Regions' in docs/production/going-live.md",
        )


def _check_concurrency(account: Account, stage: Stage, warn: Callable[[str], None]) -> None:
    free = account.client("lambda").get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    needed = stage.maximum_concurrency + stage.scheduled_concurrency + _FOR_THE_API
    if free < needed:
        warn(
            f"warning: the account has {free} concurrent executions, the stage may use {needed}, "
            f"{_FOR_THE_API} of them for the API: ask AWS for more, or lower maximum_concurrency"
        )
