from datetime import datetime, timezone
from email.utils import format_datetime
from random import Random

import pytest

from chalicelib.aws.server_time import EVERY_MS, FEWEST, ServerTime
from tests.factories import NOW


def watched(off_ms: int, answers: int = 20, every_ms: int = 1_130) -> ServerTime:
    """The clock is off by that; the answers come at any time of a second, and some take their time."""
    random, local = Random(off_ms), [0]
    server_time = ServerTime(lambda: local[0])
    for number in range(answers):
        true_ms = NOW + number * every_ms + random.randint(0, 200)
        date = datetime.fromtimestamp(true_ms // 1000, timezone.utc)
        local[0] = true_ms + off_ms + random.choice((2, 5, 9, 150))
        headers = {"date": format_datetime(date, usegmt=True)}
        server_time._answered({"ResponseMetadata": {"HTTPHeaders": headers}})
    return server_time


@pytest.mark.parametrize("off_ms", [-900, -300, 0, 200, 900])
def test_clock_within_a_second_is_taken_for_right(off_ms: int) -> None:
    assert not watched(off_ms).is_off()


@pytest.mark.parametrize("off_ms", [-300_000, -2_500, 2_500, 300_000])
def test_clock_that_is_off_by_more_is_found(off_ms: int) -> None:
    server_time = watched(off_ms)
    assert server_time.is_off()
    assert abs(server_time.ahead_ms - off_ms) < 700


def test_few_answers_say_nothing() -> None:
    assert not watched(300_000, answers=FEWEST - 1).is_off()


def test_answers_in_one_second_are_one_sample() -> None:
    assert not watched(300_000, answers=20, every_ms=EVERY_MS // 200).is_off()


def test_answers_without_a_date_say_nothing() -> None:
    server_time = ServerTime(lambda: NOW)
    for parsed in ({}, {"ResponseMetadata": {}}, {"ResponseMetadata": {"HTTPHeaders": {"date": "soon"}}}):
        server_time._answered(parsed)
    assert not server_time.is_off()
