"""Knows which addresses are public. Pure.

Uses tables of its own: what `ipaddress` calls global differs from one Python version to the next.
"""

import ipaddress
from collections.abc import Sequence
from typing import TypeVar

Network = TypeVar("Network", ipaddress.IPv4Network, ipaddress.IPv6Network)

#: IANA's special-purpose registry, those that are globally reachable (AS112, AMT, anycast relays) included: no host of
#: a user has such an address. Then multicast and the reserved class E, which ends with the broadcast address.
_IPV4_SPECIAL = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
#: The only range that IANA assigns public unicast addresses from.
_IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")
#: The special-purpose ranges within it: IETF protocols (Teredo, benchmarking, AMT, ORCHID, drones), documentation
#: (two), 6to4, which embeds an IPv4 address, AS112, and the former 6bone.
_IPV6_SPECIAL = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20")
)
#: Range that DNS64 uses for IPv4 addresses behind a translator (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether the address is public and does not embed or translate to one that is not."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip in _NAT64:
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if isinstance(ip, ipaddress.IPv4Address):
        return not _is_in(ip, _IPV4_SPECIAL)
    return ip in _IPV6_PUBLIC and not _is_in(ip, _IPV6_SPECIAL)


def _is_in(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Network]) -> bool:
    return any(ip in network for network in networks)
