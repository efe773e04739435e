"""The memory queue, the simulator's event source and the local gateway do as AWS was seen to do."""

import pytest

from tests.facts.differences import DIFFERENCES
from tests.facts.fact import Fact, cases, check
from tests.facts.ports import FACTS, own_adapter


@pytest.mark.parametrize(("port", "fact"), cases(FACTS, DIFFERENCES, ["own"]))
def test_own_port_does_as_aws(port: str, fact: Fact) -> None:
    check(fact, fact.observe(own_adapter(fact)), DIFFERENCES[port])
