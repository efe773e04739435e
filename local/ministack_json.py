"""JSON as the standard library reads and writes it, several times faster for nearly all texts."""

from __future__ import annotations

import json
from typing import Any

import msgspec

_decode, _encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


def decode(text: bytes | str) -> Any:
    """Reads JSON. Raises ValueError."""
    try:
        return _decode(text)
    except msgspec.MsgspecError:  # such as a lone surrogate or NaN
        return json.loads(text)


def encode(value: Any) -> bytes:
    """Writes JSON of a value that has only JSON's types."""
    try:
        return _encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value).encode()
