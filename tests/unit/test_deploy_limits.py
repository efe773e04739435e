"""Time-outs of a deployment's functions, and settings that a Function URL demands."""

from dataclasses import replace

import pytest

from chalicelib.tasks.registry import Registry
from infra.deploy.errors import DeployError
from infra.deploy.stages import FrontDoor, function_settings, read_stage
from infra.deploy.timeouts import deadlines, worker_timeout

DEV = read_stage("dev")


@pytest.mark.parametrize(("deadline_ms", "seconds"), [(50_000, 60), (1_000, 60), (50_001, 61), (890_000, 900)])
def test_the_worker_may_run_for_longer_than_the_longest_deadline(deadline_ms: int, seconds: int) -> None:
    assert worker_timeout(DEV, {"DEADLINE": deadline_ms}) == seconds


def test_a_deadline_that_lambda_does_not_take_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(DeployError, match=r"DEADLINE needs .* 901 s.*allowed: deadlines up to 890 s.*longest_timeout"):
        worker_timeout(DEV, {"DEADLINE": 890_001, "the task 'short'": 1_000})


def test_a_region_that_takes_1800_s_allows_longer_deadlines() -> None:
    long = replace(DEV, longest_timeout=1_800)
    assert worker_timeout(long, {"DEADLINE": 50_000, "the task 'long'": 1_790_000}) == 1_800
    with pytest.raises(DeployError, match=r"the task 'long' needs .* 1801 s.*up to 1790 s"):
        worker_timeout(long, {"DEADLINE": 50_000, "the task 'long'": 1_790_001})


def test_deadlines_are_those_of_the_setting_and_of_own_tasks() -> None:
    own = Registry()
    own.task("quick")(lambda payload: payload)
    own.task("slow", deadline_seconds=600)(lambda payload: payload)
    assert deadlines({"DEADLINE": "2 minutes"}, own) == {"DEADLINE": 120_000, "the task 'slow'": 600_000}
    assert deadlines({}, Registry()) == {"DEADLINE": 50_000}


def test_a_function_url_demands_tokens() -> None:
    stage = replace(DEV, front_door=FrontDoor.FUNCTION_URL)
    for env in ({}, {"AUTH": "none"}, {"ALLOW_NO_AUTH": "true"}):
        with pytest.raises(DeployError, match="set AUTH=jwt"):
            function_settings(env, stage)
    env = {"AUTH": "jwt", "JWT_JWKS_URL": "https://issuer.example.com/jwks"}
    assert function_settings(env, stage) == env
