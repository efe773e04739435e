"""Shows the task `http` against a receiver of ours that limits its callers: what came, in which order, how close.

`python -m tests.e2e.demonstrate --users 5 --count 100 --limits '10/second; 60/10 seconds'` starts a system of its own
and says what the receiver saw. Exit code 0 when nothing was lost, forged, out of order or started too early.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chalicelib.core.limits import Limit, Limits, parse_limits
from tests.e2e.running import Paceline, most_in_any_window, running
from tests.receiver import Got, Receiver, Reply

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
#: Calls of a user between two throttlings, and their length.
CALLS_BETWEEN, RETRY_AFTER_SECONDS = 7, 1


class Limiting:
    """Verifies each call's signature with a library that is not ours, and now and then tells a user to slow down."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.turned_away: list[str] = []
        self.accepted: list[tuple[str, int]] = []
        self.ends: set[str] = set()
        self.forged = 0
        self._lock = threading.Lock()

    def __call__(self, got: Got) -> Reply:
        try:
            body = Webhook(SECRET).verify(got.body, dict(got.headers))
        except WebhookVerificationError:
            self.forged += 1
            return Reply(401)
        if "event" in body:
            self.ends.add(body["task_id"])
            return Reply(204)
        with self._lock:
            self.calls[body["user"]] += 1
            if self.calls[body["user"]] % CALLS_BETWEEN == 0:
                self.turned_away.append(body["user"])
                return Reply(429, {"Retry-After": str(RETRY_AFTER_SECONDS)})
            self.accepted.append((body["user"], body["number"]))
        return Reply(200, {"Content-Type": "application/json"}, b'{"thanks": true}')


@dataclass(frozen=True)
class Shown:
    """Results of a demonstration. Times are epoch milliseconds."""

    answer: Limiting
    count: int
    limits: Limits
    #: by the log, each user's in order
    starts: Mapping[str, Sequence[int]]
    #: by the receiver's clock
    arrivals: Mapping[str, Sequence[int]]

    @property
    def ways_ms(self) -> list[int]:
        """How long each call took from its start to the receiver."""
        pairs = [zip(self.starts[user], self.arrivals[user], strict=True) for user in self.starts]
        return [arrival - start for pair in pairs for start, arrival in pair]

    def most_starts(self, limit: Limit) -> int:
        """In any window of any user."""
        return max(most_in_any_window(starts, limit.window_ms) for starts in self.starts.values())

    def most_arrivals(self, limit: Limit) -> int:
        return max(most_in_any_window(came, limit.window_ms) for came in self.arrivals.values())

    def too_close_ms(self, limit: Limit) -> tuple[int, int]:
        """How often a call came within the window of the quota-th before it, and by how much at most."""
        close = [
            limit.window_ms - (last - first)
            for came in self.arrivals.values()
            for first, last in zip(came, came[limit.quota :], strict=False)
        ]
        early = [by for by in close if by > 0]
        return len(early), max(early, default=0)

    def check(self) -> None:
        """AssertionError when a call was lost, forged, out of order, started too early or came before its start.

        However long each call takes to arrive, a window of the receiver's holds at most one call more than the quota:
        a lane makes its calls one after the other, so each has arrived before the next one starts.
        """
        assert self.answer.forged == 0
        for user in self.starts:
            assert [number for name, number in self.answer.accepted if name == user] == list(range(self.count))
            assert self.answer.turned_away.count(user) == (self.count - 1) // (CALLS_BETWEEN - 1)
        assert min(self.ways_ms) >= 0
        for limit in self.limits:
            assert self.most_starts(limit) <= limit.quota
            assert self.most_arrivals(limit) <= limit.quota + 1


def demonstrate(
    paceline: Paceline, receiver: Receiver, users: Sequence[str], count: int, limits: Limits, timeout_seconds: float
) -> Shown:
    answer = Limiting()
    receiver.answer = answer
    for user in users:
        for first in range(0, count, 100):
            numbers = range(first, min(count, first + 100))
            body = {"user_id": user, "tasks": [order(receiver, user, number) for number in numbers]}
            submitted = paceline.request("POST", "/api/v1/tasks", body)
            assert submitted.status in (202, 429), submitted.text
    entries = paceline.wait_for_completions(count * len(users), *users, timeout_seconds=timeout_seconds)
    assert {entry["event"] for entry in entries} == {"task_completed"}
    assert {entry["attempt"] for entry in entries} == {1}, "throttling uses up no attempt"
    paceline.wait_for(lambda: len(answer.ends) >= len(entries), 60, "each callback is sent")
    starts = {user: sorted(s for e in entries if e["user_id"] == user for s in all_starts(e)) for user in users}
    return Shown(answer, count, limits, starts, {user: sorted(arrivals_of(receiver, user)) for user in users})


def order(receiver: Receiver, user: str, number: int) -> dict[str, object]:
    url = receiver.url(f"/{user}")
    payload = {"url": url, "body": {"user": user, "number": number}}
    return {"task": "http", "payload": payload, "callback_url": receiver.url("/ends")}


def all_starts(entry: Mapping[str, object]) -> list[int]:
    return [*entry.get("starts", []), entry["started_at"]]  # type: ignore[misc,list-item]


def arrivals_of(receiver: Receiver, user: str) -> list[int]:
    return [int(got.at * 1000) for got in receiver.got if got.path == f"/{user}"]


def settings(receiver: Receiver) -> dict[str, str]:
    return {
        "HTTP_ALLOWED_HOSTS": receiver.authority,
        "HTTP_ALLOW_PRIVATE": "true",
        "WEBHOOK_SECRET": SECRET,
        "RELOAD": "false",
    }


def report(shown: Shown) -> Iterator[str]:
    answer, ways = shown.answer, sorted(shown.ways_ms)
    yield f"{len(answer.accepted)} accepted, {len(answer.turned_away)} throttled, {answer.forged} forged"
    yield f"{len(answer.ends)} callbacks sent"
    middle, late = statistics.median(ways), ways[len(ways) * 99 // 100]
    yield f"from start to receiver: median {middle:g} ms, 99 in 100 within {late} ms, longest {ways[-1]} ms"
    for limit in shown.limits:
        close, by = shown.too_close_ms(limit)
        most = f"at most {shown.most_starts(limit)} starts and {shown.most_arrivals(limit)} arrivals in any window"
        yield f"{limit.quota} per {limit.window_ms / 1000:g} s: {most}; {close} arrivals too close, by {by} ms at most"


def main() -> int:
    parser = argparse.ArgumentParser("tests.e2e.demonstrate", description="Show calls against a limiting receiver.")
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--count", type=int, default=100, help="calls of each user")
    parser.add_argument("--limits", default="10/second; 60/10 seconds")
    options = parser.parse_args()
    users, limits = [f"caller-{number}" for number in range(options.users)], parse_limits(options.limits)
    with (
        TemporaryDirectory() as folder,
        Receiver() as receiver,
        running(Path(folder), LIMITS=options.limits, **settings(receiver)) as paceline,
    ):
        shown = demonstrate(paceline, receiver, users, options.count, limits, timeout_seconds=1_800)
    print(*report(shown), sep="\n")
    shown.check()
    print("nothing lost, order kept, each signature good, each start in time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
