"""Keeps secrets out of templates: AWS Secrets Manager stores them, and templates refer to them.

CloudFormation reads a secret when it updates the function whose variable refers to it. It does so for references to
Secrets Manager in every property, but not for SecureStrings of SSM Parameter Store in functions' variables. A reference
names the secret's version: otherwise CloudFormation would not notice a new value, nor roll back to the old one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy.account import Account
from infra.deploy.errors import DeployError

#: Settings that are secrets, each with a value of its form, for checks that can't know the secret.
SECRETS = {"JWT_SECRET": "0" * 32, "WEBHOOK_SECRET": f"whsec_{'0' * 32}"}
PREFIX = "secretsmanager:"
_REFERENCE = re.compile(
    rf"{PREFIX}(?P<id>arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]+:secret:[\w/+=.@-]+|[\w/+=.@-]+)(:(?P<key>[\w.-]+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Reference:
    """One secret in Secrets Manager."""

    #: name or ARN
    secret_id: str
    #: the member of a secret that is a JSON object; empty for a secret that is the value itself
    key: str

    def in_template(self, version: str = "") -> str:
        """Returns CloudFormation's dynamic reference; without a version to the newest."""
        return f"{{{{resolve:{PREFIX}{self.secret_id}:SecretString:{self.key}::{version}}}}}"


def read_reference(name: str, text: str) -> Reference | None:
    """Returns the reference that a setting holds, None for a plain secret. DeployError for a malformed reference."""
    if text.startswith(("ssm:", "{{resolve:")):
        raise DeployError(
            f"{name} refers to another store than Secrets Manager",
            f"CloudFormation reads no SSM SecureString into functions' variables: use {PREFIX}NAME or {PREFIX}NAME:KEY",
        )
    if not text.startswith(PREFIX):
        return None
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise DeployError(f"{name} is not a valid reference", f"use {PREFIX}NAME, {PREFIX}NAME:KEY or {PREFIX}ARN")
    return Reference(found["id"], found["key"] or "")


def without_references(settings: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings with a valid secret instead of each reference. DeployError for a malformed reference."""
    known = {name: SECRETS[name] for name in SECRETS if name in settings and read_reference(name, settings[name])}
    return {**settings, **known}


def stored_by_deploy(settings: Mapping[str, str]) -> list[str]:
    """Returns the names of the settings that are plain secrets."""
    return [name for name in SECRETS if name in settings and read_reference(name, settings[name]) is None]


def references(settings: Mapping[str, str], secret_id: str) -> dict[str, str]:
    """Returns the settings with each secret as a reference in the template's form, without version.

    secret_id: the secret of plain values, by setting.
    """
    found = {name: read_reference(name, settings[name]) for name in SECRETS if name in settings}
    named = {name: reference or Reference(secret_id, name) for name, reference in found.items()}
    return {**settings, **{name: reference.in_template() for name, reference in named.items()}}


class SecretStore:
    """The account's Secrets Manager. `stage_secret`: the secret that `make deploy` makes of a stage's plain values."""

    def __init__(self, account: Account, stage_secret: str) -> None:
        self._client = account.client("secretsmanager")
        self._stage_secret = stage_secret

    def values(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Returns the value of each secret to which a setting refers. DeployError if it does not exist."""
        found = {name: read_reference(name, settings[name]) for name in SECRETS if name in settings}
        return {name: self._value(name, reference)[0] for name, reference in found.items() if reference}

    def store(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Stores plain secrets; returns the settings with a reference to its version for each secret."""
        found = {name: read_reference(name, settings[name]) for name in SECRETS if name in settings}
        plain = {name: settings[name] for name, reference in found.items() if reference is None}
        version = self._stored(plain) if plain else ""
        in_template = {
            name: reference.in_template(self._value(name, reference)[1])
            if reference
            else Reference(self._stage_secret, name).in_template(version)
            for name, reference in found.items()
        }
        return {**settings, **in_template}

    def delete(self) -> bool:
        """Deletes the stage's secret at once; false if there is none."""
        if self._current() is None:
            return False
        self._client.delete_secret(SecretId=self._stage_secret, ForceDeleteWithoutRecovery=True)
        return True

    def _stored(self, plain: Mapping[str, str]) -> str:
        """Returns the version of the stage's secret that holds these values."""
        current = self._current()
        if current is not None and json.loads(current["SecretString"]) == plain:
            return str(current["VersionId"])
        text = json.dumps(plain)
        if current is None:
            description = "Secrets of Paceline's settings, written by make deploy"
            answer = self._client.create_secret(Name=self._stage_secret, SecretString=text, Description=description)
        else:
            answer = self._client.put_secret_value(SecretId=self._stage_secret, SecretString=text)
        return str(answer["VersionId"])

    def _current(self) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._client.get_secret_value(SecretId=self._stage_secret)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            return None
        return answer

    def _value(self, name: str, reference: Reference) -> tuple[str, str]:
        """Returns value and version."""
        try:
            answer = self._client.get_secret_value(SecretId=reference.secret_id)
            text = answer["SecretString"]
            return json.loads(text)[reference.key] if reference.key else text, str(answer["VersionId"])
        except (KeyError, TypeError, ValueError):
            problem = f"the secret has no text {reference.key}".rstrip()
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            problem = "it does not exist"
        raise DeployError(
            f"{name}={PREFIX}{reference.secret_id}: {problem}", "create it: aws secretsmanager create-secret"
        )
