from itertools import chain

import pytest

from tests.simulation.__main__ import find
from tests.simulation.mutants import MUTANTS, OFTEN_FOUND


@pytest.mark.parametrize("name", OFTEN_FOUND)
def test_a_guard_that_is_off_is_found(name):
    """With the schedule that found it last, else with any of the first ones."""
    tries, result = find(MUTANTS[name], chain([OFTEN_FOUND[name]], range(150)))
    assert result, f"{tries} schedules kept every promise without: {name}"
