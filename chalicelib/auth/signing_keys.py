"""Reads the keys that sign tokens. Each key is bound to one algorithm (RFC 8725, 3.1), whatever the token names.

Import it only with AUTH=jwt: PyJWT and cryptography take 0.1 s to load.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from chalicelib.core.errors import SettingError, UnavailableError
from chalicelib.settings import JwtSettings

#: Smallest accepted RSA key, in bits.
MIN_RSA_BITS = 2_048
#: Age, in milliseconds, after which a fetched set is fetched again, so that revoked keys disappear.
REFRESH_AFTER_MS = 3_600_000
#: Age, in milliseconds, after which a fetched set is no longer used, even if it cannot be renewed.
MAX_AGE_MS = 24 * REFRESH_AFTER_MS
#: Shortest time between two fetches, in milliseconds, whatever key ids tokens name; the first applies without keys.
MIN_FETCH_INTERVAL_MS = 60_000
MIN_FIRST_FETCH_INTERVAL_MS = 5_000
#: The public members of a JWK, by key type. Private members are ignored.
_PUBLIC_PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}


@dataclass(frozen=True)
class Key:
    #: the only algorithm accepted in tokens signed with it
    algorithm: str
    material: Any = field(repr=False)
    #: key id; None matches tokens with any key id, or none
    kid: str | None = None


class KeySet(Protocol):
    def find(self, kid: str | None) -> Sequence[Key]:
        """Returns the keys for a token with this key id (None: no key id). Raises UnavailableError if unfetchable."""
        ...


def key_set(settings: JwtSettings, fetch: Callable[[str], str], now_ms: Callable[[], int]) -> KeySet:
    """Returns the configured keys. Raises SettingError if invalid; a JWT_JWKS_URL is first fetched on use."""
    if settings.jwks_url:
        return FetchedKeys(lambda: fetch(settings.jwks_url), now_ms)
    if settings.secret:
        return FixedKeys([Key("HS256", settings.secret.encode())])
    try:
        if settings.public_key:
            return FixedKeys([public_key(settings.public_key)])
        return FixedKeys(jwk_set(settings.jwks))
    except ValueError as error:
        raise SettingError("JWT_PUBLIC_KEY" if settings.public_key else "JWT_JWKS", str(error)) from None


class FixedKeys:
    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    def find(self, kid: str | None) -> Sequence[Key]:
        return [key for key in self._keys if kid is None or key.kid in (None, kid)]


class FetchedKeys:
    """A remote JWK set, fetched on first use, when it is stale, and when a token names an unknown key.

    `fetch` returns its text or raises UnavailableError. Concurrent callers wait for a running fetch and use its result.
    """

    def __init__(self, fetch: Callable[[], str], now_ms: Callable[[], int]) -> None:
        self._fetch = fetch
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._keys = FixedKeys([])
        self._fetched_at: int | None = None
        self._tried_at: int | None = None

    def find(self, kid: str | None) -> Sequence[Key]:
        with self._lock:
            if self._age_ms() >= REFRESH_AFTER_MS:
                self._refresh()
            if not self._keys.find(kid):
                self._refresh()
            found = self._keys.find(kid)
            # If the set could not be renewed, an unknown key may be a new one: answer 503 rather than 401.
            if self._age_ms() >= MAX_AGE_MS or (not found and self._tried_at != self._fetched_at):
                raise UnavailableError("the keys that sign tokens cannot be fetched")
            return found

    def _age_ms(self) -> float:
        return float("inf") if self._fetched_at is None else self._now_ms() - self._fetched_at

    def _refresh(self) -> None:
        """Replaces the keys; keeps the old ones if the fetch fails, or if the last attempt is too recent."""
        now, pause = self._now_ms(), MIN_FIRST_FETCH_INTERVAL_MS if self._fetched_at is None else MIN_FETCH_INTERVAL_MS
        if self._tried_at is not None and 0 <= now - self._tried_at < pause:
            return
        self._tried_at = now
        try:
            self._keys = FixedKeys(jwk_set(self._fetch()))
        except (UnavailableError, ValueError):
            return
        self._fetched_at = now


def public_key(pem: str) -> Key:
    """Reads an ES256 or RS256 public key. Raises ValueError for any other text."""
    try:
        # An environment file allows one line per variable, so line breaks are written as \n.
        material = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a public key in PEM form (-----BEGIN PUBLIC KEY-----)") from None
    return Key(_algorithm(material), material)


def jwk_set(text: str) -> list[Key]:
    """Returns the RS256 and ES256 keys of a JWK set (RFC 7517). Raises ValueError if it has none."""
    try:
        members = json.loads(text)["keys"]
        keys = [key for member in members if (key := _jwk(member)) is not None]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError('not a JWK set such as {"keys": [...]}') from None
    if not keys:
        raise ValueError(f"the set has no usable key; usable: RSA of at least {MIN_RSA_BITS} bits, and EC with P-256")
    return keys


def _jwk(member: Mapping[str, Any]) -> Key | None:
    """Returns None for a key of another type or use, which a set may also contain."""
    parts = _PUBLIC_PARTS.get(str(member.get("kty")))
    kid = member.get("kid")
    if parts is None or member.get("use", "sig") != "sig" or "verify" not in member.get("key_ops", ["verify"]):
        return None
    try:
        algorithm = "RS256" if member["kty"] == "RSA" else "ES256"
        material = PyJWK({part: member[part] for part in ("kty", *parts)}, algorithm).key
        algorithm = _algorithm(material)
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    is_named = kid is None or isinstance(kid, str)
    return Key(algorithm, material, kid) if is_named and member.get("alg", algorithm) == algorithm else None


def _algorithm(material: object) -> str:
    if isinstance(material, RSAPublicKey):
        if material.key_size < MIN_RSA_BITS:
            raise ValueError(f"the RSA key has {material.key_size} bits; at least {MIN_RSA_BITS} are needed")
        return "RS256"
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return "ES256"
    raise ValueError("unsupported key type; allowed: RSA (RS256), and EC with P-256 (ES256)")
