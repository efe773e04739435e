"""Signs tokens with JWT_SECRET, for trying things out. Real tokens come from an issuer."""

from __future__ import annotations

from collections.abc import Mapping

import jwt

from chalicelib.auth.caller import ADMIN_SCOPE
from chalicelib.core.errors import SettingError
from chalicelib.settings import JwtSettings, Settings


def token_from(env: Mapping[str, str], user_id: str, now: float, minutes: float, *, is_admin: bool = False) -> str:
    """A token signed with JWT_SECRET, as the settings in `env` require. SettingError without that secret."""
    settings = Settings.from_env(env).jwt
    if settings is None or not settings.secret:
        raise SettingError("JWT_SECRET", "is not set, or AUTH is not jwt; signing a token here needs both")
    return signed_token(settings, user_id, now, minutes, is_admin=is_admin)


def signed_token(settings: JwtSettings, user_id: str, now: float, minutes: float, *, is_admin: bool = False) -> str:
    """A token that fits the settings. now: epoch seconds from which it is valid, for `minutes`."""
    claims: dict[str, object] = {"sub": user_id, "iat": int(now), "exp": int(now + 60 * minutes)}
    if is_admin:
        claims["scope"] = ADMIN_SCOPE
    if settings.audience:
        claims["aud"] = settings.audience
    if settings.issuer:
        claims["iss"] = settings.issuer
    return jwt.encode(claims, settings.secret, "HS256")
