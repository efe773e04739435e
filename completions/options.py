"""What the commands on the log have in common: where it is, by option, environment or `.env`."""

import argparse
import os
from pathlib import Path

from dotenv import dotenv_values

from completions.reader import completions_folder


def setting(name: str, default: str) -> str:
    """A setting from the environment, else from `.env` in the current folder; empty counts as not set."""
    return os.environ.get(name) or dotenv_values(".env").get(name) or default


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a log and, in it, a user."""
    parser.add_argument("--log-dir", type=Path, help="the folder that holds the logs (default: LOG_DIR, else logs)")
    parser.add_argument("--stage", help="the stage whose log it is (default: STAGE, else dev)")
    parser.add_argument("--user", help="this user only")


def chosen_folder(arguments: argparse.Namespace) -> Path:
    """The folder of the log group that the options choose; it need not be there."""
    log_dir = arguments.log_dir or Path(setting("LOG_DIR", "logs"))
    return completions_folder(log_dir, arguments.stage or setting("STAGE", "dev"))
