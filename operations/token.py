"""`python -m operations.token USER`: prints a token signed with JWT_SECRET, for trying things out.

Real tokens come from an issuer.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence

import jwt
from dotenv import dotenv_values

from chalicelib.auth.caller import ADMIN_SCOPE
from chalicelib.core.errors import SettingError
from chalicelib.core.users import is_user_id
from chalicelib.settings import JwtSettings, Settings


def main(arguments: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Exit code 0, or 2 when a setting or an argument is wrong. env: instead of the environment and `.env`."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env({**_from_file(), **os.environ} if env is None else env).jwt
        if settings is None or not settings.secret:
            raise SettingError(
                "JWT_SECRET", "is not set, or AUTH is not jwt; only with both can a token be signed here"
            )
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    print(signed_token(settings, options.user, time.time(), options.minutes, is_admin=options.admin))
    return 0


def signed_token(settings: JwtSettings, user_id: str, now: float, minutes: float, *, is_admin: bool = False) -> str:
    """A token as the settings want it, good from now, seconds since the epoch, for so many minutes."""
    claims: dict[str, object] = {"sub": user_id, "iat": int(now), "exp": int(now + 60 * minutes)}
    if is_admin:
        claims["scope"] = ADMIN_SCOPE
    if settings.audience:
        claims["aud"] = settings.audience
    if settings.issuer:
        claims["iss"] = settings.issuer
    return jwt.encode(claims, settings.secret, "HS256")


def _from_file() -> dict[str, str]:
    return {key: value for key, value in dotenv_values(".env").items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m operations.token", description="Print a token signed with JWT_SECRET."
    )
    parser.add_argument("user", type=_user_id, help="the user that it is for")
    parser.add_argument("--admin", action="store_true", help=f"give it the scope {ADMIN_SCOPE}")
    parser.add_argument("--minutes", type=float, default=60, help="how long it is good (default: 60)")
    return parser


def _user_id(text: str) -> str:
    if not is_user_id(text):
        raise argparse.ArgumentTypeError("a user id is 1 to 128 visible ASCII characters")
    return text


if __name__ == "__main__":
    sys.exit(main())
