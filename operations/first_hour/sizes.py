"""How much is measured: as much as an account shows something with, less on LocalStack, least in a test."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Sizes:
    #: messages, and seconds that each of them keeps its function
    prefetch: tuple[int, float]
    #: lanes whose messages become visible together, and seconds until then
    delays: tuple[tuple[int, int], ...]
    #: users of the stage, and tasks of each
    paced: tuple[int, int]
    #: groups of two messages, and seconds that each message keeps its function
    early: tuple[int, float]
    #: cold starts of each function, at a time
    cold: int
    #: length of the chain of sends
    chain: int
    #: receives until a message is a dead letter, and the longest wait between two of them in seconds
    failure: tuple[int, int]
    #: functions at a time of the stage's workers and of the probe for delays
    concurrency: int
    #: seconds without a further record after which a probe has ended
    quiet: float
    #: seconds that CloudWatch gets to show the run's metrics
    metrics: float


class Size(str, Enum):
    """The named sizes."""

    FULL = "full"
    SMALL = "small"
    SMALLEST = "smallest"


SIZES = {
    Size.FULL: Sizes(
        prefetch=(40, 5),
        delays=((1, 8), (50, 20), (500, 45)),
        paced=(20, 5),
        early=(5, 6),
        cold=5,
        chain=24,
        failure=(10, 16),
        concurrency=500,
        quiet=60,
        metrics=300,
    ),
    Size.SMALL: Sizes(
        prefetch=(10, 2),
        delays=((1, 8), (5, 12), (20, 25)),
        paced=(3, 3),
        early=(2, 4),
        cold=3,
        chain=24,
        failure=(6, 4),
        concurrency=20,
        quiet=15,
        metrics=0,
    ),
    Size.SMALLEST: Sizes(
        prefetch=(4, 1),
        delays=((1, 6), (3, 8)),
        paced=(1, 2),
        early=(1, 3),
        cold=1,
        chain=18,
        failure=(3, 2),
        concurrency=20,
        quiet=10,
        metrics=0,
    ),
}
