"""Knows the names of this machine, so that `make run` and its emulator serve no other.

A page of a stranger may have its name resolve to 127.0.0.1 (DNS rebinding). For the browser this API then belongs to
that page; only the Host header tells the difference.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chalicelib.settings import ANY_ORIGIN

if TYPE_CHECKING:  # it imports Chalice, which the emulator does not need
    from chalicelib.api.origins import Origins

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/?#\s,]+)(:[0-9]{1,5})?")


def is_served(host: str | None, origins: Origins) -> bool:
    """Whether requests with this Host header are served: always if they need a token, and without the header.

    Serves the names and addresses of this machine on every port, since a tunnel may change it, and the hosts of the
    allowed origins, which may be a proxy's. A browser always sends the header.
    """
    if host is None or origins.has_tokens or ANY_ORIGIN in origins.allowed:
        return True
    return is_of_this_machine(host) or host.strip().lower() in {urlsplit(origin).netloc for origin in origins.allowed}


def is_of_this_machine(host: str) -> bool:
    """Whether a Host header has a name or an address of this machine."""
    authority = _AUTHORITY.fullmatch(host.strip().lower())
    name = authority[1].strip("[]").rstrip(".") if authority else ""
    return name != "" and _is_own(name)


def _is_own(name: str) -> bool:
    try:
        return _is_own_address(ipaddress.ip_address(name))
    except ValueError:
        is_local = name == "localhost" or name.endswith(".localhost") or name == os.environ.get("HOST", "").lower()
        return is_local or name in _machine_names()


def _is_own_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a socket can be bound to it, which works for this machine's addresses only."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return not address.is_multicast


@lru_cache(maxsize=1)
def _machine_names() -> frozenset[str]:
    """Returns the machine's host name, also as mDNS and DNS write it. The first call may ask a DNS server."""
    name = socket.gethostname().lower()
    return frozenset({name, f"{name.partition('.')[0]}.local", socket.getfqdn().lower()}) - {""}
