"""Supports `chalice local` alone: reads `.env` and creates the stack on the emulator of AWS_ENDPOINT_URL."""

import os

from chalicelib.container import Container
from chalicelib.core.errors import UnavailableError
from chalicelib.settings import Settings
from infra.environment import emulator_defaults, environment
from infra.stack import StackError, ensure_stack, output_variables


def make_container() -> Container:
    """Raises SettingError for an invalid environment, UnavailableError if the stack cannot be created."""
    if not os.environ.get("TABLE_NAME"):
        os.environ.update(environment())
    settings = Settings.from_env(os.environ)
    if settings.endpoint_url and not settings.table_name:
        try:
            outputs = ensure_stack(settings.endpoint_url, settings.stage)
        except StackError as error:
            raise UnavailableError(str(error)) from error
        os.environ.update(emulator_defaults(os.environ) | output_variables(outputs))
        settings = Settings.from_env(os.environ)
    return Container(settings)
