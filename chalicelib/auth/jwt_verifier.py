"""Verifies JWTs and turns them into callers (RFC 7519, RFC 8725). Pure, apart from fetching keys.

Error texts name the fault; they never quote the token and never reveal expected values.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    InvalidSubjectError,
    MissingRequiredClaimError,
    PyJWTError,
)

from chalicelib.auth.caller import ADMIN_SCOPE, Caller, TokenAuthentication
from chalicelib.auth.signing_keys import Key, KeySet, key_set
from chalicelib.core.errors import UnauthenticatedError
from chalicelib.core.users import is_user_id
from chalicelib.settings import JwtSettings

#: Tolerated clock difference between issuer and Paceline, in seconds.
LEEWAY_SECONDS = 10
#: Largest time in a token, in seconds: up to here every JSON parser keeps whole numbers exact (RFC 8259, 6).
MAX_TIME_SECONDS = 2**53
#: Three parts of base64url without padding (RFC 7515, 2 and 7.1); only the signature may be empty.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
#: Error titles for PyJWT's exceptions; the first matching class wins.
_ERROR_TITLES: tuple[tuple[type[PyJWTError], str], ...] = (
    (InvalidSignatureError, "The token's signature is wrong"),
    (InvalidAudienceError, "The token is for another audience"),
    (InvalidIssuerError, "The token is from another issuer"),
    (InvalidSubjectError, "The token's subject is not a valid user id"),
    (PyJWTError, "The token is malformed"),
)
_OPTIONS: Any = {
    "require": ["exp", "sub"],
    "enforce_minimum_key_length": True,
    # PyJWT would read the system clock; `_check_times` takes the time as an argument.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_jti": False,
}

Claims = Mapping[str, Any]


def token_authentication(
    settings: JwtSettings, fetch: Callable[[str], str], now_ms: Callable[[], int]
) -> TokenAuthentication:
    """Builds AUTH=jwt from the settings. `fetch` returns the text at a URL. Raises SettingError for an invalid key."""
    verifier = TokenVerifier(key_set(settings, fetch, now_ms), settings.audience, settings.issuer, now_ms)
    return TokenAuthentication(verifier.verify)


class TokenVerifier:
    """Verifies tokens. audience, issuer: required claim values; None skips the issuer check or forbids an audience."""

    def __init__(self, keys: KeySet, audience: str | None, issuer: str | None, now_ms: Callable[[], int]) -> None:
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._now_ms = now_ms

    def verify(self, token: str) -> Caller:
        """Returns the token's caller. Raises UnauthenticatedError, or UnavailableError if keys cannot be fetched."""
        claims = self._claims(token, self._key(_header(token)))
        _check_times(claims, self._now_ms() / 1000)
        if not is_user_id(claims["sub"]):
            raise UnauthenticatedError("The token's subject is not a valid user id")
        return Caller(claims["sub"], is_admin=ADMIN_SCOPE in _scopes(claims))

    def _key(self, header: Claims) -> Key:
        keys = self._keys.find(header.get("kid"))
        if not keys:
            raise UnauthenticatedError("The token names an unknown key")
        # The key fixes the algorithm: otherwise an attacker could use a public key as an HMAC secret, or choose `none`.
        fitting = [key for key in keys if key.algorithm == header.get("alg")]
        if not fitting:
            raise UnauthenticatedError("The token is signed with an algorithm that is not accepted")
        if len(fitting) > 1:
            raise UnauthenticatedError("The token does not say which key it is signed with")
        return fitting[0]

    def _claims(self, token: str, key: Key) -> Claims:
        try:
            claims: Claims = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except MissingRequiredClaimError as error:
            raise UnauthenticatedError(f"The token has no `{error.claim}`") from None
        except PyJWTError as error:
            # Not `from error`: its text may quote the token.
            raise UnauthenticatedError(
                next(title for kind, title in _ERROR_TITLES if isinstance(error, kind))
            ) from None
        return claims


def _header(token: str) -> Claims:
    # PyJWT also takes a padded signature.
    if not _COMPACT.fullmatch(token):
        raise UnauthenticatedError("The token is malformed", "Its parts must be base64url without padding.")
    try:
        header = jwt.get_unverified_header(token)
    except PyJWTError:
        raise UnauthenticatedError("The token is malformed") from None
    if "crit" in header:
        raise UnauthenticatedError("The token requires an unsupported extension")
    return header


def _check_times(claims: Claims, now: float) -> None:
    if _time(claims, "exp") <= now - LEEWAY_SECONDS:
        raise UnauthenticatedError("The token has expired")
    for claim in ("nbf", "iat"):
        if claim in claims and _time(claims, claim) > now + LEEWAY_SECONDS:
            raise UnauthenticatedError("The token is not yet valid")


def _time(claims: Claims, claim: str) -> float:
    """Returns the claim in seconds since the epoch.

    Python's JSON parser accepts Infinity, NaN and integers that no float can hold; none of them passes the comparison.
    """
    value = claims[claim]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_TIME_SECONDS:
        return value
    raise UnauthenticatedError(f"The token's `{claim}` is not a valid time")


def _scopes(claims: Claims) -> set[str]:
    """Returns the union of `scope` (space-separated, RFC 8693) and `scp` (a list or a space-separated string)."""
    scope, scp = claims.get("scope"), claims.get("scp")
    names = scope.split(" ") if isinstance(scope, str) else []
    names += scp.split(" ") if isinstance(scp, str) else scp if isinstance(scp, list) else []
    return {name for name in names if isinstance(name, str)}
