"""The settings that list shared limits and the hosts that count against them. Pure."""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from chalicelib.core.limits import Limits, parse_shared_limits
from chalicelib.core.names import NAME_RULE, is_name

#: Shared limits in one setting.
MAX_SHARED = 100
_HOST = re.compile(r"(\*\.)?[a-z0-9.-]+(:[0-9]{1,5})?")


class SharedHost(Struct, frozen=True):
    """A host as in HTTP_ALLOWED_HOSTS, and the shared limit that calls to it count against."""

    host: str
    name: str


def parse_shared(text: str) -> Mapping[str, Limits]:
    """Parses `stripe: 25/second; 10 at once | openai: 500/minute`; limits by name. Raises ValueError or LimitsError."""
    found: dict[str, Limits] = {}
    for part in _parts(text, "|"):
        name, colon, limits = (piece.strip() for piece in part.partition(":"))
        if not colon or not is_name(name):
            raise ValueError(
                f"{part[:200]!r} is not a name, ':' and limits; allowed: parts such as 'stripe: 25/second; 10 at once' "
                f"between '|'; a name is {NAME_RULE}"
            )
        if name in found:
            raise ValueError(f"the name {name!r} is there twice; allowed: each name once")
        found[name] = parse_shared_limits(limits)
    if len(found) > MAX_SHARED:
        raise ValueError(f"{len(found)} shared limits are too many; allowed: at most {MAX_SHARED}")
    return found


def parse_shared_hosts(text: str, known: Mapping[str, Limits]) -> tuple[SharedHost, ...]:
    """Parses `api.stripe.com=stripe, *.openai.com=openai`; known: the shared limits. Raises ValueError."""
    found = tuple(_shared_host(part, known) for part in _parts(text, ","))
    if twice := next((one.host for one in found if [other.host for other in found].count(one.host) > 1), None):
        raise ValueError(f"the host {twice!r} is there twice; allowed: each host once")
    return found


def _shared_host(part: str, known: Mapping[str, Limits]) -> SharedHost:
    host, equals, name = (piece.strip() for piece in part.partition("="))
    if not equals or not _HOST.fullmatch(host.lower()):
        raise ValueError(
            f"{part[:200]!r} is not a host, '=' and a name; allowed: parts such as 'api.stripe.com=stripe' or "
            "'*.openai.com:443=openai' between commas"
        )
    if name not in known:
        raise ValueError(f"{name[:64]!r} is not in SHARED_LIMITS; allowed: {', '.join(known) or 'none, it is empty'}")
    return SharedHost(host.lower(), name)


def _parts(text: str, between: str) -> Sequence[str]:
    return [part.strip() for part in text.split(between) if part.strip()]
