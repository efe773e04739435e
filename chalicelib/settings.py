"""A deployment's settings: read once from the environment, validated, immutable."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar
from urllib.parse import urlsplit

from chalicelib.core.errors import LimitsError, SettingError
from chalicelib.core.limits import Limits, parse_limits
from chalicelib.core.shared_names import SharedHost, parse_shared, parse_shared_hosts
from chalicelib.outbound.signing import secret_bytes

Value = TypeVar("Value")

#: The stage that rejects settings meant for one machine.
PRODUCTION = "prod"
DEFAULT_LIMITS = "1/second; 20/minute"
#: SQS hides a received message for at most 12 hours in all, its wait for the start included. A deployment allows less:
#: a Lambda function's time-out.
MAX_DEADLINE_MS = 11 * 3_600_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|milliseconds?|seconds?|minutes?|hours?|days?)?")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class OverLimit(str, Enum):
    """Response to a submit over the limit."""

    #: 429; the task is queued
    QUEUE = "queue"
    #: 202; the task is queued
    ACCEPT = "accept"
    #: 429; the task is not queued
    REJECT = "reject"


class Auth(str, Enum):
    """How callers authenticate."""

    #: anonymous: every caller is an admin
    NONE = "none"
    #: with a signed bearer token
    JWT = "jwt"


#: What a secret begins with that `make deploy` or CloudFormation has to replace by a value.
REFERENCES = ("secretsmanager:", "{{resolve:")
#: In CORS_ORIGINS: pages of every origin may call.
ANY_ORIGIN = "*"
#: Variables of which AUTH=jwt needs exactly one.
JWT_KEYS = ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS", "JWT_JWKS_URL")


@dataclass(frozen=True)
class JwtSettings:
    """How tokens are verified. Exactly one of secret, public_key, jwks and jwks_url is set; the others are empty."""

    #: HS256 secret
    secret: str = field(repr=False)
    #: public key in PEM form
    public_key: str
    #: JWK set as JSON
    jwks: str
    jwks_url: str
    #: required claim values; None skips the issuer check or forbids an audience
    audience: str | None
    issuer: str | None


@dataclass(frozen=True)
class Settings:
    limits: Limits
    #: limits that tasks of many users count against, by name
    shared_limits: Mapping[str, Limits]
    over_limit: OverLimit
    #: longest wait of a submitted task, in milliseconds; a submit that would wait longer is refused
    max_delay_ms: int
    #: scheduled tasks per user and day (UTC)
    max_scheduled: int
    #: schedules per user
    max_schedules: int
    #: attempts per task
    max_attempts: int
    #: milliseconds before the second attempt; doubles for each further one
    backoff_ms: int
    #: longest throttling of a lane, in milliseconds, whatever a called API asks for
    max_throttle_ms: int
    #: 0, or milliseconds by which a start may be late so that its message is hidden and no worker sleeps before it
    late_up_to_ms: int
    #: milliseconds after its start at which the worker gives up on a task
    deadline_ms: int
    #: milliseconds for which the record of a finished task is kept
    keep_finished_ms: int
    #: bytes of a payload as compact JSON
    max_payload: int
    #: hosts that the task `http` may call, each with an optional port; `*.example.com` for subdomains, `*` for all
    http_allowed_hosts: tuple[str, ...]
    #: let the task `http` call private, loopback and link-local addresses: for one machine and tests
    http_allow_private: bool
    #: the shared limits of tasks `http`, by the hosts of their URLs
    http_shared: tuple[SharedHost, ...]
    #: key that signs calls of the task `http`; None disables signing
    webhook_key: bytes | None = field(repr=False)
    allow_kill: bool
    #: module, package or folder of own tasks outside this project; empty for none
    tasks_dir: str
    #: None with AUTH=none
    jwt: JwtSettings | None
    #: origins whose web pages may call the API, or ANY_ORIGIN alone
    cors_origins: tuple[str, ...]
    #: names and URLs of resources; empty if unset
    table_name: str
    queue_url: str
    dead_letter_url: str
    scheduled_queue_url: str
    scheduled_dead_letter_url: str
    #: None uses AWS's own endpoints
    endpoint_url: str | None
    stage: str
    #: every call of AWS by boto3, also those that Paceline's own client knows
    is_boto3: bool = False
    #: a collector of OpenTelemetry traces; empty for none
    otlp_endpoint: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Reads the settings; absent and blank variables take their default. SettingError names an invalid variable."""
        read = _Reader(env)
        if read("STAGE", _stage, "dev") == PRODUCTION and read("HTTP_ALLOW_PRIVATE", _boolean, "false"):
            raise SettingError("HTTP_ALLOW_PRIVATE", f"true is not allowed in stage {PRODUCTION}; allowed: false")
        shared_limits = read("SHARED_LIMITS", parse_shared, "")
        return cls(
            limits=read("LIMITS", parse_limits, DEFAULT_LIMITS),
            shared_limits=shared_limits,
            over_limit=read("OVER_LIMIT", _over_limit, OverLimit.QUEUE.value),
            max_delay_ms=read("MAX_DELAY", _duration(0, 12 * _UNIT_MS["d"]), "1h"),
            max_scheduled=read("MAX_SCHEDULED", _integer(1, 100_000), "1000"),
            max_schedules=read("MAX_SCHEDULES", _integer(1, 1000), "100"),
            max_attempts=read("MAX_ATTEMPTS", _integer(1, 100), "3"),
            backoff_ms=read("BACKOFF", _duration(0, _UNIT_MS["h"]), "1s"),
            max_throttle_ms=read("MAX_THROTTLE", _duration(0, 12 * _UNIT_MS["h"]), "1h"),
            late_up_to_ms=read("LATE_UP_TO", _late_up_to, "0"),
            deadline_ms=read("DEADLINE", _duration(1000, MAX_DEADLINE_MS), "50s"),
            keep_finished_ms=read("KEEP_FINISHED", _duration(_UNIT_MS["d"], 366 * _UNIT_MS["d"]), "30d"),
            max_payload=read("MAX_PAYLOAD", _integer(2, 262_144), "65536"),
            http_allowed_hosts=read("HTTP_ALLOWED_HOSTS", _hosts, ""),
            http_shared=read("HTTP_SHARED", lambda text: parse_shared_hosts(text, shared_limits), ""),
            http_allow_private=read("HTTP_ALLOW_PRIVATE", _boolean, "false"),
            webhook_key=read("WEBHOOK_SECRET", _webhook_key, ""),
            allow_kill=read("ALLOW_KILL", _boolean, "false"),
            tasks_dir=read("TASKS_DIR", str, ""),
            jwt=_jwt(read) if auth_of(env) is Auth.JWT else None,
            cors_origins=cors_origins_of(env),
            table_name=read("TABLE_NAME", str, ""),
            queue_url=read("QUEUE_URL", str, ""),
            dead_letter_url=read("DEAD_LETTER_URL", str, ""),
            scheduled_queue_url=read("SCHEDULED_QUEUE_URL", str, ""),
            scheduled_dead_letter_url=read("SCHEDULED_DEAD_LETTER_URL", str, ""),
            endpoint_url=read("AWS_ENDPOINT_URL", _url, "") or None,
            stage=read("STAGE", _stage, "dev"),
            is_boto3=read("AWS_CLIENT", _aws_client, "signed"),
            otlp_endpoint=read("OTEL_EXPORTER_OTLP_ENDPOINT", _url, ""),
        )


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def __call__(self, variable: str, parse: Callable[[str], Value], default: str) -> Value:
        text = self._env.get(variable, "").strip() or default
        try:
            return parse(text)
        except (ValueError, LimitsError) as error:
            raise SettingError(variable, str(error)) from error


def auth_of(env: Mapping[str, str]) -> Auth:
    """Reads AUTH. Raises SettingError for an unknown value."""
    return _Reader(env)("AUTH", _auth, Auth.NONE.value)


def cors_origins_of(env: Mapping[str, str]) -> tuple[str, ...]:
    """Reads CORS_ORIGINS. Raises SettingError for an invalid value.

    With tokens every origin may call by default: a page needs a token first, and no browser adds one by itself.
    """
    default = ANY_ORIGIN if auth_of(env) is Auth.JWT else ""
    return _Reader(env)("CORS_ORIGINS", _origins, default)


def _origins(text: str) -> tuple[str, ...]:
    if text == ANY_ORIGIN:
        return (ANY_ORIGIN,)
    found = tuple(origin.strip().lower() for origin in text.split(",") if origin.strip())
    for origin in found:
        if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", origin):
            raise ValueError(
                f"{origin!r} is not allowed; allowed: *, or origins such as https://app.example.com and "
                "http://localhost:3000, separated by commas"
            )
    return found


def _auth(text: str) -> Auth:
    allowed = [choice.value for choice in Auth]
    if text not in allowed:
        raise ValueError(f"{text!r} is not allowed; allowed: {', '.join(allowed)}")
    return Auth(text)


def _jwt(read: _Reader) -> JwtSettings:
    keys = {variable: read(variable, str, "") for variable in JWT_KEYS}
    if len([text for text in keys.values() if text]) != 1:
        given = ", ".join(variable for variable, text in keys.items() if text) or "none"
        raise SettingError("AUTH", f"jwt needs exactly one of {', '.join(JWT_KEYS)}; set: {given}")
    return JwtSettings(
        secret=read("JWT_SECRET", _secret, ""),
        public_key=keys["JWT_PUBLIC_KEY"],
        jwks=keys["JWT_JWKS"],
        jwks_url=read("JWT_JWKS_URL", _https, ""),
        audience=read("JWT_AUDIENCE", str, "") or None,
        issuer=read("JWT_ISSUER", str, "") or None,
    )


def _literal(text: str) -> str:
    """Refuses a reference to a secret, which would be a key that everybody can guess."""
    if text.startswith(REFERENCES):
        raise ValueError("a reference to a secret works for `make deploy` only; allowed here: the secret itself")
    return text


def _secret(text: str) -> str:
    _literal(text)
    # RFC 7518, 3.2. The secret itself must not appear in an error.
    if text and len(text.encode()) < 32:
        raise ValueError(
            f"it has {len(text.encode())} bytes; allowed: at least 32, such as from `openssl rand -hex 32`"
        )
    return text


def _https(text: str) -> str:
    parts = urlsplit(text)
    if text and not (
        parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)))
    ):
        raise ValueError(f"{text!r} is not allowed; allowed: an https URL, or http on this machine")
    return text


def _over_limit(text: str) -> OverLimit:
    allowed = [choice.value for choice in OverLimit]
    if text not in allowed:
        raise ValueError(f"{text!r} is not allowed; allowed: {', '.join(allowed)}")
    return OverLimit(text)


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(host.strip() for host in text.split(",") if host.strip())
    for host in hosts:
        if not re.fullmatch(r"(\*|(\*\.)?[A-Za-z0-9.-]+)(:[0-9]{1,5})?", host):
            raise ValueError(
                f"{host!r} is not allowed; allowed: hosts such as api.example.com, *.example.com:8443 or *"
            )
    return hosts


def _webhook_key(text: str) -> bytes | None:
    _literal(text)
    try:
        return secret_bytes(text) if text else None
    except ValueError as error:
        raise ValueError(f"{error}; write it as whsec_ and base64") from error


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"{text!r} is not allowed; allowed: a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def _duration(min_ms: int, max_ms: int) -> Callable[[str], int]:
    """Returns a parser to milliseconds of `90` (seconds), `1.5s`, `10 minutes`, `1h`."""

    def parse(text: str) -> int:
        match = _DURATION.fullmatch(text.lower())
        unit = (match and match[2]) or "s"
        milliseconds = float(match[1]) * _UNIT_MS["ms" if unit.startswith(("ms", "mil")) else unit[0]] if match else -1
        if not min_ms <= milliseconds <= max_ms:
            raise ValueError(
                f"{text!r} is not allowed; allowed: seconds, or a number with ms, s, m, h or d, such as 90 or 1h, "
                f"at most {max_ms // 1000} seconds"
            )
        return round(milliseconds)

    return parse


def _late_up_to(text: str) -> int:
    milliseconds = _duration(0, 1000)(text)
    if milliseconds not in (0, 1000):
        raise ValueError(f"{text!r} is not allowed; allowed: 0, 1s")
    return milliseconds


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError(f"{text!r} is not allowed; allowed: true, false")
    return text.lower() in ("true", "1", "yes")


def _url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s/]+.*", text):
        raise ValueError(f"{text!r} is not allowed; allowed: a URL such as http://127.0.0.1:4566")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _aws_client(text: str) -> bool:
    if text not in ("signed", "boto3"):
        raise ValueError(f"{text!r} is not allowed; allowed: signed, boto3")
    return text == "boto3"


def _stage(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,15}", text):
        raise ValueError(f"{text!r} is not allowed; allowed: 1 to 16 lower-case letters, digits and '-'")
    return text
