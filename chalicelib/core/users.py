"""Validates user ids and encodes them in URL paths. Pure."""

import re
from urllib.parse import quote, unquote

#: The visible ASCII characters: those that SQS allows in a message group id.
USER_PATTERN = "^[!-~]{1,128}$"


def is_user_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(USER_PATTERN, value) is not None


def to_path(user_id: str) -> str:
    """Encodes the user id as a path segment. Prefixes `.` and `..` with a space, since clients would remove them."""
    return ("%20" if user_id in _DOT_SEGMENTS else "") + quote(user_id, safe="")


def from_path(segment: str) -> str:
    """Decodes a path segment that `to_path` encoded. The result may be an invalid user id."""
    text = unquote(segment)
    return text[1:] if text[:1] == " " and text[1:] in _DOT_SEGMENTS else text


_DOT_SEGMENTS = (".", "..")
