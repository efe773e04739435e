"""The keys that tokens are signed with: one algorithm for each key, fixed where the key is read, whatever a token says.

RFC 8725, 3.1. Imported only where AUTH=jwt: PyJWT brings cryptography, and both take 0.1 s to load.
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

#: Bits.
RSA_MINIMUM = 2_048
#: A fetched set older than this is fetched again when it is next needed, so that a withdrawn key goes.
FRESH_MS = 3_600_000
#: A fetched set older than this is not used, however often fetching failed.
USABLE_MS = 24 * FRESH_MS
#: Between two fetches, whatever key ids tokens name; less as long as there is no key at all.
PAUSE_MS = 60_000
FIRST_PAUSE_MS = 5_000
#: What of a JWK makes the public key, by its type. Private parts are not even read.
_PUBLIC_PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}


@dataclass(frozen=True)
class Key:
    #: the only one that tokens signed with it may name
    algorithm: str
    material: Any = field(repr=False)
    #: None: it fits tokens that name any key, or none
    kid: str | None = None


class KeySet(Protocol):
    def find(self, kid: str | None) -> Sequence[Key]:
        """The keys for tokens that name this key, or that name none. UnavailableError when nobody knows at present."""
        ...


def key_set(settings: JwtSettings, fetch: Callable[[str], str], now_ms: Callable[[], int]) -> KeySet:
    """The keys that the settings name. SettingError when they are none; a URL is first read when a key is needed."""
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
    """A JWK set from elsewhere, fetched when it is first needed, when it is old, and when a token names an unknown key.

    `fetch` gives its text and raises UnavailableError. While one thread fetches, the others wait for what it gets.
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
            if self._age_ms() >= FRESH_MS:
                self._fetch_again()
            if not self._keys.find(kid):
                self._fetch_again()
            found = self._keys.find(kid)
            # A key that is not in a set which could not be renewed may be a new one.
            if self._age_ms() >= USABLE_MS or (not found and self._tried_at != self._fetched_at):
                raise UnavailableError("the keys that tokens are signed with can't be fetched")
            return found

    def _age_ms(self) -> float:
        return float("inf") if self._fetched_at is None else self._now_ms() - self._fetched_at

    def _fetch_again(self) -> None:
        """Leaves the keys as they are when there are no new ones to be had, or it was tried just now."""
        now, pause = self._now_ms(), FIRST_PAUSE_MS if self._fetched_at is None else PAUSE_MS
        if self._tried_at is not None and 0 <= now - self._tried_at < pause:
            return
        self._tried_at = now
        try:
            self._keys = FixedKeys(jwk_set(self._fetch()))
        except (UnavailableError, ValueError):
            return
        self._fetched_at = now


def public_key(pem: str) -> Key:
    """ES256 or RS256 by the key's type. ValueError when it is anything else than such a public key."""
    try:
        # An environment file has one line for a variable.
        material = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is no public key in PEM form (-----BEGIN PUBLIC KEY-----)") from None
    return Key(_algorithm(material), material)


def jwk_set(text: str) -> list[Key]:
    """The keys of a JWK set (RFC 7517) that sign tokens with RS256 or ES256. ValueError when there are none."""
    try:
        members = json.loads(text)["keys"]
        keys = [key for member in members if (key := _jwk(member)) is not None]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError('it is no JWK set such as {"keys": [...]}') from None
    if not keys:
        raise ValueError(f"it has no usable key; usable: RSA of at least {RSA_MINIMUM} bits, and EC with P-256")
    return keys


def _jwk(member: Mapping[str, Any]) -> Key | None:
    """None for a key of another kind or for another use, which a set may hold as well."""
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
        if material.key_size < RSA_MINIMUM:
            raise ValueError(f"the RSA key has {material.key_size} bits; at least {RSA_MINIMUM} are needed")
        return "RS256"
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return "ES256"
    raise ValueError("it is a key of another kind; allowed: RSA (RS256), and EC with P-256 (ES256)")
