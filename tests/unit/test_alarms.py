"""The alarms: the metrics that they look at, the stalls that they notice, and their page of the docs."""

import re
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.canary import CANARY_METRIC
from chalicelib.worker.completion_event import METRICS_NAMESPACE
from infra.deploy.alarms import CANARY_LATE_MS, IN_FLIGHT, alarms
from infra.deploy.package import read_stack_template
from infra.deploy.stages import ROOT, FrontDoor, read_stage

#: Messages in flight that SQS allows, for a FIFO queue and for a standard queue.
SQS_IN_FLIGHT = 120_000
SQS_QUEUES = {"worker": "Queue", "scheduled": "LaterQueue"}


def stack() -> dict[str, Any]:
    """The template, with a dead-letter queue for each queue."""
    template = read_stack_template()
    policy = {"deadLetterTargetArn": {"Fn::GetAtt": ["LaterDeadLetterQueue", "Arn"]}}
    template["Resources"]["LaterQueue"]["Properties"].setdefault("RedrivePolicy", policy)
    return template


def of_stage(stage: str) -> dict[str, dict[str, Any]]:
    """The alarms' properties by name."""
    found = alarms(read_stage(stage), stack()).values()
    return {one["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("paceline-${Stage}-"): one for one in found}


@pytest.fixture(scope="module")
def prod() -> dict[str, dict[str, Any]]:
    return {name: one["Properties"] for name, one in of_stage("prod").items()}


def metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    return [part["MetricStat"]["Metric"] for part in alarm.get("Metrics", ()) if "MetricStat" in part] or [alarm]


def dimensions(metric: dict[str, Any]) -> dict[str, Any]:
    return {one["Name"]: one["Value"] for one in metric["Dimensions"]}


def test_own_metrics_are_those_that_the_functions_log(prod: dict[str, Any]) -> None:
    own = [metric for alarm in prod.values() for metric in metrics(alarm) if not metric["Namespace"].startswith("AWS/")]
    assert {metric["MetricName"] for metric in own} == {"late_ms", "task_failed", CANARY_METRIC}
    assert {metric["Namespace"] for metric in own} == {METRICS_NAMESPACE}
    assert all(dimensions(metric) == {"stage": "prod"} for metric in own)


def test_only_the_canarys_missing_data_is_a_fault(prod: dict[str, Any]) -> None:
    breaching = [name for name, alarm in prod.items() if alarm["TreatMissingData"] == "breaching"]
    assert breaching == ["canary"]
    assert prod["canary"]["Threshold"] == CANARY_LATE_MS < 60_000  # of an outcome that a minute did not bring
    assert prod["canary"]["Period"] * prod["canary"]["EvaluationPeriods"] <= 300


def test_stage_without_a_canary_has_no_alarm_that_needs_one(prod: dict[str, Any]) -> None:
    assert set(prod) - set(of_stage("dev")) == {"canary"}


def value(alarm: dict[str, Any], **data: float) -> float:
    """The alarm's expression, by CloudWatch's rules, over one period; a metric that is not given has no data."""
    [expression] = [part["Expression"] for part in alarm["Metrics"] if "Expression" in part]
    given = {part["Id"]: data.get(part["Id"]) for part in alarm["Metrics"] if "MetricStat" in part}
    assert set(data) <= set(given)
    functions = {
        "IF": lambda condition, yes, no: yes if condition else no,
        "FILL": lambda metric, missing: missing if metric is None else metric,
    }
    python = expression.replace(" AND ", " and ").replace(" OR ", " or ")
    return float(eval(python, functions, given))


@pytest.mark.parametrize(
    ("data", "is_stalled"),
    [
        ({"visible": 5}, True),
        ({"visible": 5, "received": 0, "empty": 0}, True),
        ({"visible": 5, "received": 12, "empty": 3}, True),
        ({"visible": 5, "received": 12, "empty": 3, "invoked": 12}, False),
        ({"visible": 19, "received": 0, "empty": 15}, False),
        ({"visible": 0, "empty": 15}, False),
        ({"visible": 0}, False),
    ],
    ids=[
        "the trigger is disabled",
        "nothing polls",
        "polled messages do not reach the function",
        "works",
        "a paused lane hides its head and nobody else submits",
        "idle",
        "disabled and empty",
    ],
)
@pytest.mark.parametrize("function", SQS_QUEUES)
def test_stall_is_messages_without_invocations_unless_polls_find_nothing(
    prod: dict[str, Any], function: str, data: dict[str, float], is_stalled: bool
) -> None:
    alarm = prod[f"{function}-stalled"]
    assert value(alarm, **data) == is_stalled
    found = {part["Id"]: part["MetricStat"]["Metric"] for part in alarm["Metrics"] if "MetricStat" in part}
    assert dimensions(found["visible"]) == {"QueueName": {"Fn::GetAtt": [SQS_QUEUES[function], "QueueName"]}}
    assert dimensions(found["invoked"]) == {"FunctionName": {"Fn::Sub": f"paceline-${{Stage}}-{function}"}}


@pytest.mark.parametrize("function", SQS_QUEUES)
def test_messages_in_flight_raise_the_alarm_before_sqs_holds_back_more(prod: dict[str, Any], function: str) -> None:
    alarm = prod[f"{function}-in-flight"]
    assert alarm["MetricName"] == "ApproximateNumberOfMessagesNotVisible"
    assert alarm["Threshold"] == IN_FLIGHT == 0.8 * SQS_IN_FLIGHT


def test_throttles_of_the_table_and_of_each_index_are_added(prod: dict[str, Any]) -> None:
    alarm = prod["table-throttles"]
    table = read_stack_template()["Resources"]["Table"]["Properties"]
    by_index = [dimensions(metric).get("GlobalSecondaryIndexName") for metric in metrics(alarm)]
    assert by_index == [None, None, *(index["IndexName"] for index in table["GlobalSecondaryIndexes"])]
    assert value(alarm) == 0
    assert value(alarm, reads=1, writes=4, index_lanes=6) == 11 > alarm["Threshold"]


def test_every_dead_letter_queue_has_an_alarm(prod: dict[str, Any]) -> None:
    watched = {name: dimensions(alarm)["QueueName"] for name, alarm in prod.items() if name.endswith("dead-letters")}
    assert watched == {
        "dead-letters": {"Fn::GetAtt": ["DeadLetterQueue", "QueueName"]},
        "scheduled-dead-letters": {"Fn::GetAtt": ["LaterDeadLetterQueue", "QueueName"]},
    }


def test_api_alarm_looks_at_this_stages_api(prod: dict[str, Any]) -> None:
    """Chalice names the API of each stage `paceline`."""
    assert dimensions(prod["api-5xx"]) == {"ApiName": "paceline-prod", "Stage": "api"}
    behind_url = replace(read_stage("prod"), front_door=FrontDoor.FUNCTION_URL)
    alarm = alarms(behind_url, read_stack_template())["Api5xxAlarm"]["Properties"]
    assert (alarm["MetricName"], dimensions(alarm)) == (
        "Url5xxCount",
        {"FunctionName": {"Fn::Sub": "paceline-${Stage}"}},
    )


def test_every_alarm_notifies_the_topic_and_names_the_page(prod: dict[str, Any]) -> None:
    for alarm in prod.values():
        assert alarm["AlarmActions"]["Fn::If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]]
        assert alarm["AlarmDescription"].endswith("See docs/production/alarms.md.")
        assert alarm["DatapointsToAlarm"] <= alarm["EvaluationPeriods"]


def test_every_alarm_has_its_paragraph_and_no_paragraph_lacks_an_alarm(prod: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "production" / "alarms.md").read_text()
    headings = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert {name for heading in headings for name in re.findall(r"`([^`]+)`", heading)} == set(prod)
