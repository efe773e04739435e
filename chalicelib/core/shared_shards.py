"""The shards of a shared limit that allows more starts than one item of the table carries. Pure.

Each shard is an item of its own with a part of each quota: together the parts are the quota, so no window over all
shards holds more. A task counts against one shard, by a hash of its id. The first shard is the item of the limit's
name, the others add '#' and their number, which no name holds.
"""

import zlib
from functools import lru_cache

from msgspec.structs import replace

from chalicelib.core.limits import Limits, LimitsAtOnce

#: Starts a second that one item carries: DynamoDB takes 1,000 write units a second for an item.
STARTS_OF_AN_ITEM = 100
#: And that each of several shards is made for: the item of so many stays below 1 KB, so a write takes one unit, and the
#: unit that another one takes is left for the seconds in which lanes refuse each other's claims.
STARTS_OF_A_SHARD = 60
#: Most shards of one shared limit.
MAX_SHARDS = 20
#: Longest window of a shared limit with shards, milliseconds: another number of shards stops it for so long.
LONGEST_WINDOW_MS = 60_000


def is_plain(limits: Limits) -> bool:
    """True for rates of starts alone: units and tasks that run at once are counted in one item."""
    return not isinstance(limits, LimitsAtOnce) and not any(limit.counts_units for limit in limits)


@lru_cache(maxsize=1_000)
def shards_of(limits: Limits, of_an_item: int = STARTS_OF_AN_ITEM, of_a_shard: int = STARTS_OF_A_SHARD) -> int:
    """How many shards these limits need, by the rate that they allow for long; of_…: starts a second.

    >>> from chalicelib.core.limits import parse_shared_limits
    >>> [shards_of(parse_shared_limits(text)) for text in ("100/second", "1000/second", "1000/second; 9000/minute")]
    [1, 17, 3]
    >>> [shards_of(parse_shared_limits(text)) for text in ("1000/second; 9 at once", "900 units/second", "900000/day")]
    [1, 1, 1]
    """
    if not limits or not is_plain(limits) or any(limit.window_ms > LONGEST_WINDOW_MS for limit in limits):
        return 1
    if any(limit.quota * 1_000 <= limit.window_ms * of_an_item for limit in limits):
        return 1
    needed = min(-(-limit.quota * 1_000 // (limit.window_ms * of_a_shard)) for limit in limits)
    return max(1, min(needed, MAX_SHARDS, *(limit.quota for limit in limits)))


def is_shareable(limits: Limits, shards: int) -> bool:
    """True if each of so many shards gets a part of each quota."""
    return shards == 1 or (is_plain(limits) and all(limit.quota >= shards for limit in limits))


@lru_cache(maxsize=10_000)
def share(limits: Limits, shards: int, index: int) -> Limits:
    """The part of each quota that the shard with this index has. With a higher quota no part is lower.

    1 at least, for views: limits that are not shareable let nothing start until there are fewer shards.

    >>> from chalicelib.core.limits import format_limits, parse_limits
    >>> [format_limits(share(parse_limits("250/second"), 3, index)) for index in range(3)]
    ['84/second', '83/second', '83/second']
    """
    if shards == 1:
        return limits
    return tuple(replace(one, quota=max(1, one.quota // shards + (index < one.quota % shards))) for one in limits)


def item_name(name: str, index: int) -> str:
    """The name of a shard's item.

    >>> [item_name("stripe", index) for index in (0, 1)]
    ['stripe', 'stripe#1']
    """
    return f"{name}#{index}" if index else name


def plain_name(item: str) -> str:
    """The name of the shared limit of which that item is a shard."""
    return item.partition("#")[0]


def index_of(item: str) -> int:
    return int(item.partition("#")[2] or 0)


def shard_of(name: str, task_id: str, shards: int) -> str:
    """The name of the item that a task counts against."""
    return name if shards == 1 else item_name(name, zlib.crc32(task_id.encode()) % shards)
