import pytest

from tests.simulation.outages import CLOSED_LANE, FAILING, long_outage
from tests.simulation.schedule import Plan
from tests.simulation.world import Result, run


def kept(plan: Plan) -> Result:
    result = run(plan)
    assert not result.broken, "\n".join([*result.story, *map(str, result.broken)])
    return result


@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize("is_lambda", [True, False], ids=["Lambda", "one machine"])
def test_three_hours_without_aws_lose_nothing_and_every_lane_goes_on_within_a_minute(failing, is_lambda):
    for seed in range(3):
        result = kept(long_outage(seed, failing, is_lambda))
        assert result.figures["lanes that waited at the end of a long outage"] >= 5


def test_scheduled_task_whose_lane_is_closed_for_hours_makes_no_chain_that_lambda_stops():
    result = kept(CLOSED_LANE)
    assert not any("stops the chain" in line for line in result.story)
