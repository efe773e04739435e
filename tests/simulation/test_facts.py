"""The memory queue, the simulator's event source and the local gateway do as AWS was seen to do."""

import pytest

from tests.facts.differences import DIFFERENCES
from tests.facts.fact import Fact, UnknownOutcomeError, cases, check
from tests.facts.gateway import fact as gateway_facts
from tests.facts.ports import FACTS, own_adapter


@pytest.mark.parametrize(("port", "fact"), cases(FACTS, DIFFERENCES, ["own"]))
def test_own_port_does_as_aws(port: str, fact: Fact) -> None:
    check(fact, fact.observe(own_adapter(fact)), DIFFERENCES[port])


def test_each_difference_is_of_a_fact_that_the_port_plays() -> None:
    assert len({fact.name for fact in FACTS}) == len(FACTS)
    for port, differences in DIFFERENCES.items():
        assert set(differences) <= {fact.name for fact in FACTS if port in fact.ports}


def test_queue_and_event_source_of_the_simulator_have_no_difference() -> None:
    gateway = {fact.name for fact in FACTS if fact.area == gateway_facts.area}
    assert set(DIFFERENCES["own"]) <= gateway


def test_an_unknown_outcome_is_no_expected_failure() -> None:
    fact = next(fact for fact in FACTS if fact.name in DIFFERENCES["moto"])
    with pytest.raises(UnknownOutcomeError):
        check(fact, ["neither"], DIFFERENCES["moto"])
    with pytest.raises(AssertionError):
        check(fact, DIFFERENCES["moto"][fact.name], DIFFERENCES["moto"])
    check(fact, fact.recorded, DIFFERENCES["moto"])
