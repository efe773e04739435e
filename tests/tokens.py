"""Tokens, good and forged. PyJWT refuses to make some of the forged ones, so `forged` signs by hand."""

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.factories import NOW

SECRET = "a secret of more than thirty-two bytes"
#: Claims of `make_token`.
NOW_SECONDS = NOW // 1000


@cache
def rsa_key(name: str = "first", bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str = "first", curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def pem(key: Any) -> str:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public.decode()


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    algorithm = jwt.get_algorithm_by_name("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **members}


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token for ann; None takes one away."""
    all_claims = {"sub": "ann", "exp": NOW_SECONDS + 600, **changed}
    return {name: value for name, value in all_claims.items() if value is not None}


def make_token(key: Any = SECRET, algorithm: str = "HS256", kid: Any = None, **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, {"kid": kid} if kid is not None else None)


def forged(header: Any, body: Any, secret: str | None = None) -> str:
    """Whatever is given as header and body, with an HMAC, or with no signature."""
    signed = f"{_encoded(header)}.{_encoded(body)}"
    return f"{signed}.{_base64(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)) if secret else ''}"


def _encoded(part: Any) -> str:
    return _base64(part if isinstance(part, bytes) else json.dumps(part).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
