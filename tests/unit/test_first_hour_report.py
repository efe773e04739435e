"""The first hour's report as text and JSON, its dollars, and the errors before it begins."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from bench import prices
from infra.deploy.account import Account
from operations.first_hour.command import found_account
from operations.first_hour.dollars import PRICES, Usage, amounts, dollars, minutes_ahead, usage_ahead
from operations.first_hour.errors import FirstHourError, missing_permission, unusable_region
from operations.first_hour.findings import Finding, Outcome, State, percentile
from operations.first_hour.report import Report, as_json, as_text
from operations.first_hour.sizes import SIZES, Size
from operations.first_hour.usage import OwnCounts, own_usage, usage_findings
from tests.unit.first_hour_world import refused

OK = Finding("seconds held, most", 0.031, "below 1", True)
LATE = Finding("seconds late, p99", 7.2, "below 5", False)
PLAIN = Finding("messages sent", 40)


def report(*outcomes: Outcome, is_aws: bool = True, **more: Any) -> Report:
    target = "AWS account 123456789012, eu-west-1" if is_aws else "LocalStack at http://127.0.0.1:4566, us-east-1"
    return Report(target, is_aws, "full", 1_700_000_000.0, 630.0, outcomes, **more)


def outcome(*findings: Finding, failure: str = "") -> Outcome:
    return Outcome("prefetch", "Does it prefetch?", findings, failure)


def test_each_finding_has_its_value_beside_the_expected_one() -> None:
    text = as_text(report(outcome(PLAIN, OK, LATE)))
    assert "First hour: AWS account 123456789012, eu-west-1, sizes full, 10.5 minutes" in text
    assert "prefetch: otherwise than expected" in text
    assert "    ok            seconds held, most: 0.031 (expected: below 1)" in text
    assert "    DIFFERS       seconds late, p99: 7.2 (expected: below 5)" in text
    assert "                  messages sent: 40\n" in text
    assert "Everything is removed again." in text
    assert "This is not AWS" not in text


def test_an_emulators_values_are_marked_with_the_reason() -> None:
    text = as_text(
        report(outcome(OK.elsewhere("it polls otherwise"), LATE.elsewhere("it polls otherwise")), is_aws=False)
    )
    assert "prefetch: not measured" in text
    assert "    not measured  seconds late, p99: 7.2" in text
    assert text.count("not measured: it polls otherwise.") == 1
    assert "This is not AWS" in text
    assert "DIFFERS" not in text


def test_an_early_end_and_what_was_not_removed_are_said() -> None:
    text = as_text(report(stopped="Ctrl-C", remaining=("stack x still exists",), earlier=("stack y",)))
    assert "Stopped early: Ctrl-C" in text
    assert "NOT removed" in text
    assert "    stack x still exists" in text
    assert "Removed first, left by an earlier run: stack y." in text
    assert "Everything is removed again." not in text


def test_the_json_has_the_same_findings() -> None:
    document = json.loads(as_json(report(outcome(OK, LATE.elsewhere("why")), outcome(failure="it broke"))))
    first, second = document["measurements"]
    assert document["is_good"] is False
    assert (first["state"], second["state"], second["failure"]) == ("as expected", "failed", "it broke")
    assert first["findings"][0] == {
        "label": "seconds held, most",
        "value": 0.031,
        "expected": "below 1",
        "state": "as expected",
        "why_not_measured": "",
    }
    assert first["findings"][1]["state"] == "not measured"


@pytest.mark.parametrize(
    ("findings", "state"),
    [
        ([PLAIN, OK, LATE], State.UNEXPECTED),
        ([PLAIN, OK, LATE.elsewhere("x")], State.EXPECTED),
        ([PLAIN, LATE.elsewhere("x")], State.MEASURED),
        ([LATE.elsewhere("x")], State.NOT_MEASURED),
        ([], State.NOT_MEASURED),
    ],
)
def test_the_worst_finding_about_aws_decides(findings: list[Finding], state: State) -> None:
    assert outcome(*findings).state is state


@pytest.mark.parametrize(
    ("bad", "is_good"),
    [(report(outcome(OK)), True), (report(outcome(LATE)), False), (report(outcome(failure="x")), False)],
)
def test_a_report_is_good_if_nothing_differs_or_failed(bad: Report, is_good: bool) -> None:
    assert bad.is_good is is_good


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50, 99, 100)] == [50.0, 99.0, 100.0]
    assert percentile([3.0], 1) == 3.0
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 50)


def test_dollars_follow_from_the_list_prices() -> None:
    usage = Usage(api_requests=1e6, gb_seconds=1000, write_units=2e6)
    assert dollars(usage) == {
        "api_requests": prices.API_GATEWAY_REST,
        "gb_seconds": pytest.approx(1000 * prices.LAMBDA_GB_SECOND),
        "write_units": 2 * prices.WRITE_UNIT,
    }


def test_every_amount_has_a_price() -> None:
    assert set(amounts(PRICES)) == set(amounts(usage_ahead(SIZES[Size.FULL]))) | {"read_units"}


def test_lambdas_reports_give_invocations_and_gb_seconds() -> None:
    lines = [
        "REPORT RequestId: a Duration: 99.1 ms Billed Duration: 500 ms Memory Size: 512 MB Max Memory Used: 90 MB",
        "REPORT RequestId: b\tDuration: 1000 ms\tBilled Duration: 1000 ms\tMemory Size: 256 MB\tMax Memory Used: 9 MB",
        '{"event": "task_completed"}',
    ]
    usage = own_usage(OwnCounts(api_requests=30, records=10, tasks=5, sqs_requests=7), lines, Usage(hours=1))
    assert (usage.invocations, usage.gb_seconds) == (2, 0.5)
    assert (usage.api_requests, usage.write_units, usage.sqs_requests, usage.hours) == (30, 20, 7 + 40 + 25, 1)
    assert usage.log_gb == pytest.approx(sum(len(line) + 26 for line in lines) / 1e9)


def test_without_reports_the_amounts_are_unknown() -> None:
    usage = own_usage(OwnCounts(1, 1, 1, 1), ["START"], Usage())
    assert (usage.invocations, usage.gb_seconds) == (None, None)


def test_both_counts_end_in_dollars() -> None:
    found = {one.label: one for one in usage_findings(Usage(api_requests=1e6), Usage(api_requests=2e6), is_aws=True)}
    assert found["dollars at list prices, by own count"].value == 3.5
    assert found["dollars at list prices, by CloudWatch"].value == 7.0
    assert found["API Gateway requests, by own count"].state is State.MEASURED
    assert found["Lambda GB-seconds, by own count"].state is State.NOT_MEASURED
    elsewhere = usage_findings(Usage(api_requests=1), Usage(), is_aws=False)
    assert {one.state for one in elsewhere} == {State.NOT_MEASURED}


def test_larger_sizes_cost_more_and_a_full_run_less_than_a_dollar() -> None:
    costs = [sum(dollars(usage_ahead(SIZES[size])).values()) for size in (Size.SMALLEST, Size.SMALL, Size.FULL)]
    assert costs == sorted(costs)
    assert 0.01 < costs[-1] < 1
    assert 20 <= minutes_ahead(SIZES[Size.FULL]) <= 60


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (
            "User: u is not authorized to perform: cloudformation:CreateStack on resource: r",
            "cloudformation:CreateStack",
        ),
        ("API: iam:CreateRole User: u is not authorized to perform: iam:CreateRole on resource: r", "iam:CreateRole"),
        ("An error occurred (AccessDenied) when calling ListObjectsV2: Access Denied", None),
        ("Rate exceeded", None),
    ],
)
def test_the_missing_permission_is_read_from_awss_text(text: str, action: str | None) -> None:
    assert missing_permission(text) == action


def failing(error: Exception) -> Any:
    def find(_endpoint_url: str | None) -> Account:
        raise error

    return find


def identified(error: Exception, region: str | None = "eu-west-1") -> str:
    """The message with which finding the account fails."""
    with pytest.raises(FirstHourError) as failed:
        found_account({}, failing(error), lambda: region)
    return str(failed.value)


def test_without_credentials_the_error_says_how_to_get_some() -> None:
    assert "Unable to locate credentials - log in to AWS" in identified(NoCredentialsError())


def test_without_a_region_the_error_says_how_to_set_one() -> None:
    assert identified(AssertionError("AWS was called"), None) == "no region is configured - set AWS_DEFAULT_REGION"


def test_a_wrong_region_is_named_with_those_that_look_alike() -> None:
    error = EndpointConnectionError(endpoint_url="https://sts.eu-wets-1.amazonaws.com/")
    said = identified(error, "eu-wets-1")
    assert "region 'eu-wets-1' is not one that boto3 knows, such as eu-central-1" in said
    assert "eu-west-1" in said
    assert "boto3 knows" not in identified(error, "eu-west-1")
    assert unusable_region("xx-nowhere-1", ["eu-west-1"]) == (
        "region 'xx-nowhere-1' is not one that boto3 knows, such as eu-west-1"
    )


def test_a_refused_caller_identity_names_the_permission() -> None:
    denied = refused("AccessDenied", "User: u is not authorized to perform: sts:GetCallerIdentity", "GetCallerIdentity")
    assert identified(denied).endswith("missing permission: sts:GetCallerIdentity")
