"""What a user id is. Pure."""

import re
from urllib.parse import quote, unquote

#: Those characters that SQS allows in a message group id: all that ASCII shows, but the space.
USER_PATTERN = "^[!-~]{1,128}$"


def is_user_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(USER_PATTERN, value) is not None


def to_path(user_id: str) -> str:
    """The user id as a segment of a path. Clients tidy `.` and `..` away, so a space, which no id has, goes before."""
    return ("%20" if user_id in _TIDIED else "") + quote(user_id, safe="")


def from_path(segment: str) -> str:
    """What was meant to be a user id, from a segment of a path."""
    text = unquote(segment)
    return text[1:] if text[:1] == " " and text[1:] in _TIDIED else text


_TIDIED = (".", "..")
