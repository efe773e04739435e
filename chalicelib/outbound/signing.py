"""Signs calls by Standard Webhooks (standardwebhooks.com), so that receivers can verify the sender. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

#: Prefix of a written secret; base64 follows.
SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix, not a secret
#: Shortest and longest secret that Standard Webhooks allows, in bytes.
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


def secret_bytes(secret: str) -> bytes:
    """Decodes a `whsec_` secret. Raises ValueError unless it is base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError as error:  # includes binascii.Error
        raise ValueError("is not valid base64 after `whsec_`") from error
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"has {len(key)} bytes; allowed: {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}")
    return key


def signed_headers(key: bytes, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """Returns the three signature headers. message_id: same for every attempt. timestamp: of the attempt, epoch s."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
