"""What a user id is. Pure."""

import re

#: Those characters that SQS allows in a message group id: all that ASCII shows, but the space.
USER_PATTERN = "^[!-~]{1,128}$"


def is_user_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(USER_PATTERN, value) is not None
