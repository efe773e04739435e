"""The rule for names of shared limits and of schedules. Pure.

A name is part of paths (`/api/v1/limits/stripe`), of policies in headers (`stripe-second`) and of keys in the table.
"""

import re

NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
NAME_RULE = "1 to 64 letters, digits, '.', '_' and '-', the first a letter or a digit"


def is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(NAME_PATTERN, value) is not None
