"""What an answer to a submit says about shared limits: policies in headers, and why a task waits."""

import math
from collections.abc import Iterator, Sequence

from chalicelib.core.lane import FOREVER_MS
from chalicelib.core.limits import Limit
from chalicelib.core.shared_estimates import (
    expected,
    expected_in_turn,
    policy_name,
    stop_of_shared,
    used_of,
    waiting_of,
    wanted_of,
)
from chalicelib.submit.submission import SharedUse


def seconds(milliseconds: int) -> int:
    """Whole seconds, rounded up."""
    return max(0, math.ceil(milliseconds / 1000))


def policy_item(limit: Limit, name: str) -> str:
    """The limit in RateLimit-Policy. Without `qu`, a quota is one of requests."""
    unit = ';qu="units"' if limit.counts_units else ""
    return f'"{name}";q={limit.quota}{unit};w={limit.window_seconds}'


def state_item(use: SharedUse, part: Limit, name: str, now_ms: int) -> str:
    """A shared limit's limit in RateLimit. part: what the shard has of it that was read; so it is a lower bound."""
    left = max(0, part.quota - wanted_of(use.state, part, now_ms, use.starts, use.units))
    return f'"{name}";r={left};t={seconds(used_of(use.state, part, now_ms).resets_at - now_ms)}'


def shared_policies(uses: Sequence[SharedUse]) -> Iterator[tuple[SharedUse, Limit, Limit, str]]:
    """Each limit of the shared limits, the part of it that was read, and its name in the headers.

    Of one with shards, that which most of the submit's tasks want.
    """
    busiest = {use.state.name: use for use in sorted(uses, key=lambda use: use.starts)}
    chosen = (use for use in uses if use is busiest[use.state.name])
    return (
        (use, limit, part, policy_name(use.state.name, limit)) for use in chosen for limit, part in use.state.policies
    )


def violated_by(uses: Sequence[SharedUse], now_ms: int) -> list[str]:
    """Names of the limits that hold too much with the submit's tasks, and those that wait before them."""
    found = (
        policy_name(use.state.name, limit)
        for use in uses
        for limit, part in use.state.policies
        if wanted_of(use.state, part, now_ms, use.starts, use.units) > part.quota
    )
    return list(dict.fromkeys(found))


def shared_ready_at(uses: Sequence[SharedUse], now_ms: int) -> int:
    """When each of the shared limits may start one more task, after those that wait and the submit's, epoch ms."""
    waits = (expected_in_turn(use.state, now_ms, [1] * (use.starts + 1))[-1].estimated_at for use in uses)
    return max((now_ms if at is None else at for at in waits), default=now_ms)


def stop_of_uses(uses: Sequence[SharedUse], now_ms: int) -> str:
    """What stops the first of them that is stopped, as a sentence; empty if nothing does."""
    return next((stop for use in uses if (stop := stop_of_shared(use.state.shared, now_ms))), "")


def waits_for(uses: Sequence[SharedUse], now_ms: int) -> str:
    """A sentence about each shared limit that tasks wait for, with a space behind it."""
    waiting = {use.state.name: use for use in reversed(uses) if not expected(use.state, now_ms).is_now(now_ms)}
    return "".join(f"{_sentence(use, now_ms)} " for use in reversed(waiting.values()))


def _sentence(use: SharedUse, now_ms: int) -> str:
    shared, name = use.state.shared, use.state.name
    if shared.paused_until == FOREVER_MS:
        return f"The shared limit {name} is paused: it goes on when it is resumed."
    if shared.is_paused(now_ms) or shared.is_throttled(now_ms):
        return f"The shared limit {name} is {'paused' if shared.is_paused(now_ms) else 'throttled'} for a time."
    if shared.is_full(use.state.limits):
        return f"As many tasks run as the shared limit {name} lets run at once."
    before = waiting_of(use.state, now_ms)
    lanes = f", with about {before} {'lane' if before == 1 else 'lanes'} before it" if before else ""
    return f"It waits for the shared limit {name}{lanes}."
