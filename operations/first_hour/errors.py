"""Turns the errors of the first hour into one line that names the step, the cause and the remedy."""

from __future__ import annotations

import re

from botocore.exceptions import ClientError

from infra.deploy.account import Account
from infra.deploy.errors import explained

#: AWS names the missing action in the text alone.
_DENIED = re.compile(r"(?:not authorized to perform:|is missing the permission) ?\[?([\w-]+:[\w*]+)")


class FirstHourError(Exception):
    """A step failed; the message names step, cause and remedy in one line."""


class StoppedError(KeyboardInterrupt):
    """A signal asked the run to end. Like Ctrl-C it passes AWS's client, which wraps each `Exception` in its own."""


def explain(step: str, error: Exception, account: Account) -> FirstHourError:
    """Returns the error with the step, and with the permission that the caller lacks."""
    text = str(explained(step, error, account.endpoint_url)) if _is_awss(error) else f"{step}: {error}"
    return FirstHourError(with_permission(" ".join(text.split())))


def with_permission(text: str) -> str:
    """Returns the text; one about a refused call ends with the action that the caller must be allowed."""
    action = missing_permission(text)
    return f"{text}; missing permission: {action}" if action else text


def missing_permission(text: str) -> str | None:
    """Returns the IAM action that AWS's text says the caller lacks, such as `lambda:CreateFunction`."""
    found = _DENIED.search(text)
    return found[1] if found else None


def unusable_region(region: str, known: list[str]) -> str | None:
    """Returns the sentence about a region that AWS may not have; None for one that boto3 knows."""
    if region in known:
        return None
    alike = [name for name in known if name[:2] == region[:2]]
    return f"region {region!r} is not one that boto3 knows, such as {', '.join(alike) or 'eu-west-1'}"


def _is_awss(error: Exception) -> bool:
    return isinstance(error, ClientError) or type(error).__module__.startswith("botocore")
