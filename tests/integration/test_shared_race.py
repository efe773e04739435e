import pytest

from chalicelib.core.limits import parse_limits
from tests.integration.aws import Aws
from tests.integration.racing import race
from tests.windows import assert_pace_kept

PROCESSES = 64


def race_at(aws: Aws, user: str, limits: str) -> None:
    name = user.replace("-", "")
    starts = race(aws.environment["AWS_ENDPOINT_URL"], aws.environment["TABLE_NAME"], name, limits, PROCESSES, 8)
    assert len(starts) > 20
    assert_pace_kept(starts, parse_limits(limits))


@pytest.mark.parametrize("limits", ["20/second; 60/5 seconds", "500/10 seconds", "210/2 seconds"])
def test_many_processes_never_take_more_of_a_shared_limit_than_it_allows(
    ministack: Aws, user: str, limits: str
) -> None:
    race_at(ministack, user, limits)
