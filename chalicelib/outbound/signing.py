"""The Standard Webhooks signature (standardwebhooks.com): the receiver can tell that a call is ours. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

#: How a secret is written: this, then base64.
SECRET_PREFIX = "whsec_"  # noqa: S105 - the form of one, not one
#: Bytes that the scheme allows for a secret.
MIN_SECRET, MAX_SECRET = 24, 64


def secret_bytes(secret: str) -> bytes:
    """The secret's bytes, from `whsec_` and base64. ValueError when it is not 24 to 64 bytes so written."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError as error:  # binascii.Error among them
        raise ValueError("is no base64 after `whsec_`") from error
    if not MIN_SECRET <= len(key) <= MAX_SECRET:
        raise ValueError(f"has {len(key)} bytes; allowed: {MIN_SECRET} to {MAX_SECRET}")
    return key


def signed_headers(key: bytes, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """The three headers. message_id: the same for each try of one call. timestamp: epoch seconds of this try."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
