from itertools import chain

import pytest

from tests.extent import extent
from tests.simulation.__main__ import find
from tests.simulation.mutants import FOUND_BY, MUTANTS


def test_each_guard_has_a_schedule_that_misses_it():
    assert list(FOUND_BY) == list(MUTANTS)


#: Outages of hours, which take seconds each.
SLOW = ("outage: messages back ever later", "outage: scheduled messages back ever later")


@pytest.mark.parametrize("name", [name for name in FOUND_BY if name not in SLOW[: extent(len(SLOW), 0)]])
def test_a_guard_that_is_off_is_found(name):
    """With the schedule that found it last, else with any of the first ones."""
    tries, result = find(MUTANTS[name], chain([FOUND_BY[name]], range(150)))
    assert result, f"{tries} schedules kept every promise without: {name}"
