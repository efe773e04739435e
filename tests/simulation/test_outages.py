import pytest

from tests.extent import extent
from tests.simulation.outages import CLOSED_LANE, FAILING, long_outage, throttled
from tests.simulation.schedule import Behaviour, Plan, Submit
from tests.simulation.world import Result, run


def kept(plan: Plan) -> Result:
    result = run(plan)
    assert not result.broken, "\n".join([*result.story, *map(str, result.broken)])
    return result


@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize("is_lambda", [True, False], ids=["Lambda", "one machine"])
def test_three_hours_without_aws_lose_nothing_and_every_lane_goes_on_within_a_minute(failing, is_lambda):
    for seed in range(extent(1, 2)):
        result = kept(long_outage(seed, failing, is_lambda))
        assert result.figures["lanes that waited at the end of a long outage"] >= 5


def test_scheduled_task_whose_lane_is_closed_for_hours_makes_no_chain_that_lambda_stops():
    result = kept(CLOSED_LANE)
    assert not any("stops the chain" in line for line in result.story)


def test_message_stays_hidden_while_its_task_runs_however_late_the_invocation_began():
    result = kept(throttled("lanes."))
    assert sum(" starts long/0" in line for line in result.story) == 1


def test_worker_that_can_renew_nothing_ends_before_another_one_takes_its_task():
    result = kept(throttled(""))
    died, taken = (
        index
        for index, line in enumerate(result.story)
        if "w0 is expired" in line or ("w1:" in line and "starts long/0" in line)
    )
    assert died < taken


def test_death_of_a_worker_on_lambda_is_noticed_soon():
    """Its message would be hidden for 90 s."""
    dying = Submit(0, "ann", "dying", (Behaviour(runs_ms=5_000, kills=1), Behaviour()))
    result = kept(Plan(0, "5/second", True, 2, (0,) * 4, (dying,)))
    starts = [float(line.split()[0]) for line in result.story if "starts dying/0" in line]
    assert len(starts) == 2
    assert starts[1] < 30
