"""Reads this machine's settings: environment variables, and the file `.env` for those that are not set."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dotenv import dotenv_values

#: In the current folder, which `make` and `./paceline` set to the checkout.
ENV_FILE = ".env"


def environment() -> dict[str, str]:
    """Every variable by name; the environment wins over `.env`, also with an empty value.

    Whoever reads a setting takes an empty value for one that is not set: so the environment can switch off what
    `.env` says.
    """
    from_file = {name: value for name, value in dotenv_values(ENV_FILE).items() if value is not None}
    return {**from_file, **os.environ}


def aws_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The same variables, fit for boto3; those of AWS are set in this process too, where boto3 and Chalice read them.

    An empty AWS_ENDPOINT_URL is left out, so that it means AWS; an emulator gets the credentials that it ignores.
    """
    fit = {**env}
    if fit.get("AWS_ENDPOINT_URL"):
        fit |= emulator_defaults(fit)
    else:
        fit.pop("AWS_ENDPOINT_URL", None)
        os.environ.pop("AWS_ENDPOINT_URL", None)
    os.environ.update({name: value for name, value in fit.items() if name.startswith("AWS_")})
    return fit


def emulator_defaults(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that boto3 can't do without and an emulator does not look at, where the environment lacks them."""
    defaults: dict[str, str] = {}
    if "AWS_ACCESS_KEY_ID" not in env and "AWS_PROFILE" not in env:
        defaults |= {"AWS_ACCESS_KEY_ID": "paceline", "AWS_SECRET_ACCESS_KEY": "paceline"}
    if "AWS_DEFAULT_REGION" not in env and "AWS_REGION" not in env and "AWS_PROFILE" not in env:
        defaults["AWS_DEFAULT_REGION"] = "us-east-1"
    return defaults
