"""Each tick of a schedule once, whatever fails; and each guard is missed when it is off."""

import pytest

from tests.extent import extent
from tests.simulation.tick_mutants import TICK_MUTANTS
from tests.simulation.ticking import TickParts, run, run_forgetting


@pytest.mark.parametrize("seed", range(extent(4, 12)))
def test_each_tick_comes_once_whatever_fails(seed: int) -> None:
    witness = run(seed)
    assert witness.broken == []
    assert witness.takes > 50


@pytest.mark.parametrize("seed", range(4))
def test_no_tick_of_a_forgotten_user_is_submitted(seed: int) -> None:
    witness = run_forgetting(seed)
    assert witness.broken == []
    assert witness.forgettings > 20


@pytest.mark.parametrize("parts", TICK_MUTANTS.values(), ids=TICK_MUTANTS)
def test_a_guard_of_ticks_that_is_off_is_found(parts: TickParts) -> None:
    assert any(run(seed, parts).broken or run_forgetting(seed, parts).broken for seed in range(60))
