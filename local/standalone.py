"""Supports `chalice local` alone: reads `.env` and creates the stack on the emulator of AWS_ENDPOINT_URL."""

import os
from pathlib import Path

from dotenv import load_dotenv

from chalicelib.container import Container
from chalicelib.core.errors import UnavailableError
from chalicelib.settings import Settings
from infra.stack import OUTPUT_VARIABLES, StackError, emulator_defaults, ensure_stack


def make_container() -> Container:
    """Raises SettingError for an invalid environment, UnavailableError if the stack cannot be created."""
    if not os.environ.get("TABLE_NAME") and Path(".env").is_file():
        load_dotenv(".env")  # does not override the environment
    settings = Settings.from_env(os.environ)
    if settings.endpoint_url and not settings.table_name:
        try:
            outputs = ensure_stack(settings.endpoint_url, settings.stage)
        except StackError as error:
            raise UnavailableError(str(error)) from error
        names = {variable: outputs[output] for variable, output in OUTPUT_VARIABLES.items()}
        os.environ.update(emulator_defaults(os.environ) | names)
        settings = Settings.from_env(os.environ)
    return Container(settings)
