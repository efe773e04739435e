"""A run of the first hour: whatever ends it, it removes all that it made, and reports the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from operations.first_hour.command import _alone, _require_writable, agreed, announcement, chosen
from operations.first_hour.errors import FirstHourError
from operations.first_hour.findings import Finding, State
from operations.first_hour.measurements import NAMES, Measurement, Parts
from operations.first_hour.probe_stack import PREFIX
from operations.first_hour.removal import Removal
from operations.first_hour.report import Report
from operations.first_hour.run import FirstHour
from operations.first_hour.sizes import Size
from tests.unit.first_hour_world import Commands, World, refused

GOOD = Finding("seconds", 0.1, "below 1", True)


def measurement(name: str, action: Callable[[], Any] = lambda: None) -> Measurement:
    def measure(_parts: Parts) -> list[Finding]:
        action()
        return [GOOD]

    return Measurement(name, f"{name}?", measure)


class Hour:
    """A run over an account in memory, with the lines that it said."""

    def __init__(self) -> None:
        self.world = World()
        self.said = list[str]()
        self.removal = Removal(cast(Any, self.world), Commands(self.world), self.said.append, self.world.sleep)

    def deploy(self) -> Parts:
        Commands(self.world).deploy()
        self.world.make_all()
        return cast(Parts, None)

    def run(self, *measurements: Measurement) -> Report:
        hour = FirstHour(self.world, self.deploy, self.removal, self.said.append)
        return hour.run(Size.SMALLEST, measurements, self.removal.leftovers())


@pytest.fixture
def hour() -> Hour:
    return Hour()


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def test_a_run_measures_in_order_and_leaves_nothing(hour: Hour) -> None:
    report = hour.run(measurement("a"), measurement("b"))
    assert [outcome.name for outcome in report.outcomes] == ["a", "b"]
    assert report.is_good
    assert hour.world.names == set()


def test_a_failed_measurement_does_not_keep_back_the_next_one(hour: Hour) -> None:
    report = hour.run(measurement("a", raising(TimeoutError("no message came"))), measurement("b"))
    assert [outcome.state for outcome in report.outcomes] == [State.FAILED, State.EXPECTED]
    assert report.outcomes[0].failure == "a: no message came"
    assert not report.is_good
    assert hour.world.names == set()


def test_a_refused_call_names_the_missing_permission(hour: Hour) -> None:
    message = "User: arn:aws:iam::1:user/u is not authorized to perform: lambda:InvokeFunction on resource: f because"
    report = hour.run(measurement("cold-start", raising(refused("AccessDeniedException", message, "Invoke"))))
    assert report.outcomes[0].failure.endswith("missing permission: lambda:InvokeFunction")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, lambda: os.kill(os.getpid(), signal.SIGTERM)])
def test_a_stopped_run_reports_the_measurements_until_then_and_removes_everything(
    hour: Hour, stop: Callable[[], Any]
) -> None:
    action = raising(KeyboardInterrupt()) if stop is KeyboardInterrupt else stop
    report = hour.run(measurement("a"), measurement("b", action), measurement("c"))
    assert [outcome.name for outcome in report.outcomes] == ["a"]
    assert report.stopped in ("Ctrl-C", "SIGTERM")
    assert not report.is_good
    assert hour.world.names == set()


def test_a_signal_during_a_call_of_aws_stops_the_run_and_not_the_call_alone(hour: Hour) -> None:
    def call() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:  # as AWS's client does
            raise OSError("an HTTP client raised an unhandled exception") from error

    report = hour.run(measurement("a", call), measurement("b"))
    assert (report.outcomes, report.stopped) == ((), "SIGTERM")


def test_an_unexpected_error_removes_everything_before_it_shows(hour: Hour) -> None:
    with pytest.raises(AssertionError, match="a bug"):
        hour.run(measurement("a", raising(AssertionError("a bug"))))
    assert hour.world.names == set()


def test_a_failed_deployment_is_reported_and_removed(hour: Hour) -> None:
    hour.world.make_all()
    hour.world.faults["deploy"] = refused("AccessDenied", "not authorized to perform: s3:CreateBucket on x", "Create")
    report = hour.run(measurement("a"))
    assert report.outcomes == ()
    assert report.stopped.startswith("deploying: ")
    assert report.stopped.endswith("missing permission: s3:CreateBucket")
    assert hour.world.names == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_removes_does_not_stop_the_removal(hour: Hour, number: signal.Signals) -> None:
    hour.world.at_deletion = lambda: os.kill(os.getpid(), number)
    report = hour.run(measurement("a"))
    assert report.is_good
    assert hour.world.names == set()
    assert any(line.startswith("Still removing") for line in hour.said)


def test_signals_are_handled_as_before_afterwards(hour: Hour) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    hour.run(measurement("a"))
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (f"{PREFIX}-cold", {f"{PREFIX}-cold"}),
        (f"{PREFIX}-probes", {f"{PREFIX}-probes"}),
        ("destroy", {PREFIX, "firsthour/abc.zip"}),
        (f"/aws/lambda/{PREFIX}-probe-delay", {f"/aws/lambda/{PREFIX}-probe-delay"}),
    ],
)
def test_a_step_of_the_removal_that_fails_does_not_keep_back_the_others(hour: Hour, fault: str, kept: set[str]) -> None:
    hour.world.faults[fault] = refused("Throttling", "slow down")
    report = hour.run(measurement("a"))
    assert hour.world.names == kept
    assert "slow down" in report.remaining[0]
    assert all(any(f"{name} still exists" in line for line in report.remaining) for name in kept)
    assert not report.is_good


@pytest.mark.parametrize("fault", [f"{PREFIX}-cold", "destroy", f"/aws/lambda/{PREFIX}"])
def test_a_step_that_fails_once_is_tried_again(hour: Hour, fault: str) -> None:
    hour.world.faults[f"once {fault}"] = refused("ResourceInUseException", "the trigger is being updated")
    assert hour.run(measurement("a")).is_good
    assert hour.world.names == set()


@pytest.mark.parametrize("stack", [PREFIX, f"{PREFIX}-probes"])
def test_on_localstack_a_stack_is_made_before_it_is_deleted(hour: Hour, stack: str) -> None:
    hour.world.endpoint_url = "http://127.0.0.1:4566"

    def interrupted() -> Parts:
        hour.world.stacks.add(stack)
        hour.world.creating[stack] = 40
        raise KeyboardInterrupt

    hour.deploy = interrupted  # type: ignore[method-assign]
    report = hour.run(measurement("a"))
    assert (report.stopped, report.remaining) == ("Ctrl-C", ())
    assert hour.world.names == set()


def test_a_start_removes_what_a_killed_one_left_before_it_deploys(hour: Hour) -> None:
    hour.world.make_all()
    at_deployment = list[set[str]]()
    deploy = hour.deploy

    def seen() -> Parts:
        at_deployment.append(hour.world.names)
        return deploy()

    hour.deploy = seen  # type: ignore[method-assign]
    report = hour.run(measurement("a"))
    assert at_deployment == [set()]
    assert f"stack {PREFIX}-probes" in report.earlier
    assert f"log group /aws/lambda/{PREFIX}" in report.earlier
    assert report.is_good


def test_a_start_does_not_deploy_over_leftovers_that_it_can_not_remove(hour: Hour) -> None:
    hour.world.stacks.add(f"{PREFIX}-probes")
    hour.world.faults[f"{PREFIX}-probes"] = refused("Throttling", "slow down")
    report = hour.run(measurement("a"))
    assert report.outcomes == ()
    assert "leftovers can't be removed" in report.stopped
    assert PREFIX not in hour.world.stacks


def test_another_stages_things_stay(hour: Hour) -> None:
    hour.world.stacks |= {"paceline-dev", f"{PREFIX}x"}
    hour.world.log_groups |= {"/aws/lambda/paceline-dev", f"/aws/lambda/{PREFIX}x"}
    others = hour.world.names
    assert hour.run(measurement("a")).is_good
    assert hour.world.names == others


def test_the_announcement_names_account_region_dollars_minutes_and_leftovers() -> None:
    said = announcement(cast(Any, World()), Size.FULL, [f"stack {PREFIX}"])
    assert "AWS account 123456789012, eu-west-1" in said
    assert "minutes and $0." in said
    assert f"stack {PREFIX}" in said


@pytest.mark.parametrize(("answer", "expected"), [("y", True), ("Yes ", True), ("", False), ("n", False), ("x", False)])
def test_only_yes_is_yes(answer: str, expected: bool) -> None:
    assert agreed(lambda _: answer) is expected


def test_where_nobody_can_be_asked_it_does_not_go_on() -> None:
    with pytest.raises(FirstHourError, match="--yes"):
        agreed(cast(Any, raising_eof))


def raising_eof(_question: str) -> str:
    raise EOFError


def test_measurements_are_chosen_by_name_in_their_own_order() -> None:
    assert [one.name for one in chosen(["gateway", "prefetch"])] == ["prefetch", "gateway"]
    assert tuple(one.name for one in chosen([])) == NAMES
    with pytest.raises(FirstHourError, match="there is no measurement 'x'"):
        chosen(["x"])


def test_a_second_run_of_a_checkout_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "lock"
    with _alone(lock), pytest.raises(FirstHourError, match="another first hour"), _alone(lock):
        pass
    with _alone(lock):
        pass


def test_a_report_that_can_not_be_written_is_refused_at_the_beginning(tmp_path: Path) -> None:
    _require_writable(None)
    _require_writable(tmp_path / "report.json")
    with pytest.raises(FirstHourError, match="can't be written"):
        _require_writable(tmp_path / "nowhere" / "report.json")
