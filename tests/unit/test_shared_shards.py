"""The shards of a shared limit: how many, what each may start, and how their number changes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.limits import Limit, Limits, parse_shared_limits
from chalicelib.core.shared_shards import (
    MAX_SHARDS,
    index_of,
    is_shareable,
    item_name,
    plain_name,
    shard_of,
    shards_of,
    share,
)

rates = st.lists(
    st.builds(Limit, st.integers(1, 40_000), st.sampled_from([1_000, 2_000, 10_000, 60_000])),
    min_size=1, max_size=3, unique_by=lambda limit: limit.window_ms,
).map(tuple)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shards"),
    [
        ("100/second", 1),
        ("101/second", 2),
        ("1000/second", 17),
        ("1000000/second", MAX_SHARDS),
        ("1000/second; 12000/minute", 4),
        ("6000/minute", 1),
        ("30000/minute", 9),
        ("1000/second; 100000/day", 1),
        ("1000/second; 10 at once", 1),
        ("1000/second; 90000 units/minute", 1),
        ("10 at once", 1),
    ],
)
def test_number_of_shards_follows_from_the_rate_that_is_allowed_for_long(text: str, shards: int) -> None:
    assert shards_of(parse_shared_limits(text)) == shards


@given(rates, st.integers(1, MAX_SHARDS))
def test_parts_of_the_shards_are_the_quota_together(limits: Limits, shards: int) -> None:
    parts = [share(limits, shards, index) for index in range(shards)]
    for place, limit in enumerate(limits):
        total = sum(part[place].quota for part in parts)
        assert total == (limit.quota if is_shareable((limit,), shards) else shards)
        assert max(part[place].quota for part in parts) - min(part[place].quota for part in parts) <= 1
    assert is_shareable(limits, shards) == all(limit.quota >= shards for limit in limits)


@given(rates)
def test_each_shard_that_limits_need_has_a_part_of_each_quota(limits: Limits) -> None:
    assert is_shareable(limits, shards_of(limits))


@given(st.integers(1, 40_000), st.integers(1, 40_000), st.integers(1, MAX_SHARDS))
def test_shards_under_two_settings_at_once_hold_no_more_than_the_higher_one(one: int, other: int, shards: int) -> None:
    """Old and new processes of a deployment count in the same shards, each under its own setting."""
    limits = [(Limit(quota, 1_000),) for quota in (one, other)]
    highest = (max(share(each, shards, index)[0].quota for each in limits) for index in range(shards))
    assert sum(highest) == max(one, other)


def test_tasks_spread_over_the_shards_and_each_stays_with_its_own() -> None:
    counts = Counter(shard_of("api", f"01a201b2-dcca-7001-{number:04}", 10) for number in range(5_000))
    assert set(counts) == {item_name("api", index) for index in range(10)}
    assert min(counts.values()) > 400
    assert shard_of("api", "any", 1) == "api"
    assert [(plain_name(item), index_of(item)) for item in ("api", "api#7")] == [("api", 0), ("api", 7)]
