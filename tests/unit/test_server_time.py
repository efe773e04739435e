from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from chalicelib.aws.server_time import ServerTime
from tests.factories import NOW


class Call:
    """An answer that AWS gives at NOW, to a machine whose clock is off by that, after some milliseconds each way."""

    def __init__(self, off_ms: int, there_ms: int = 3, back_ms: int = 3, answered_at: int = NOW) -> None:
        self.now_ms = answered_at - there_ms + off_ms
        self.server_time = ServerTime(lambda: self.now_ms)
        date = datetime.fromtimestamp(answered_at // 1000, timezone.utc)
        self._arrives_at = answered_at + back_ms + off_ms
        self.answer({"date": format_datetime(date, usegmt=True)})

    def answer(self, headers: dict[str, Any]) -> None:
        with self.server_time.comparing() as compare:
            self.now_ms = self._arrives_at
            compare({"ResponseMetadata": {"HTTPHeaders": headers}})


@pytest.mark.parametrize("answered_at", [NOW // 1000 * 1000, NOW // 1000 * 1000 + 999])
@pytest.mark.parametrize("off_ms", [-990, 0, 990])
def test_clock_within_a_second_is_right_whenever_the_answer_came(off_ms: int, answered_at: int) -> None:
    assert not Call(off_ms, answered_at=answered_at).server_time.is_off()


@pytest.mark.parametrize("off_ms", [-300_000, -2_100, 2_100, 300_000])
def test_clock_that_is_off_by_more_is_found_by_one_answer(off_ms: int) -> None:
    assert Call(off_ms).server_time.is_off()


@pytest.mark.parametrize(("there_ms", "back_ms"), [(5_000, 3), (3, 5_000)])
def test_slow_answer_accuses_no_clock(there_ms: int, back_ms: int) -> None:
    assert not Call(0, there_ms, back_ms).server_time.is_off()


def test_clock_that_is_set_right_is_right_with_the_next_answer() -> None:
    call = Call(300_000)
    call.now_ms = call._arrives_at = NOW + 5_000
    call.answer({"date": format_datetime(datetime.fromtimestamp((NOW + 5_000) // 1000, timezone.utc), usegmt=True)})
    assert not call.server_time.is_off()


def test_answers_without_a_date_say_nothing() -> None:
    call = Call(300_000)
    call.answer({"date": "soon"})
    call.answer({})
    assert call.server_time.is_off()
