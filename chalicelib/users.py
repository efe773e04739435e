"""What a user id is. Pure."""

#: Those that SQS allows in a message group id.
USER_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
)


def is_user_id(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 128 and USER_CHARACTERS.issuperset(value)
