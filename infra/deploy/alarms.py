"""Defines the stage's CloudWatch alarms. `docs/production/alarms.md` says for each what to look at and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.canary import CANARY_METRIC
from chalicelib.worker.completion_event import METRICS_NAMESPACE
from infra.deploy.stages import FrontDoor, Stage

#: Messages in flight at which the alarm is raised: 80 % of those that SQS allows, beyond which starts come late.
IN_FLIGHT = 96_000
#: Lateness of the canary's outcome that raises the alarm, in milliseconds; it comes once a minute.
CANARY_LATE_MS = 30_000
#: The oldest message's age that raises the alarm, in seconds: twice the default MAX_DELAY.
OLDEST_SECONDS = 7_200
#: Throttled calls and failed requests in 5 minutes that raise the alarm; the clients' retries absorb fewer.
TABLE_THROTTLES, API_FAILURES = 10, 5

#: The stack's parameter for alarms, and the condition that the alarms' actions depend on.
PARAMETERS = {
    "AlarmTopicArn": {
        "Type": "String",
        "Default": "",
        "Description": "The SNS topic for alarms; empty shows them in CloudWatch only.",
    }
}
CONDITIONS = {"HasAlarmTopic": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]}}

#: Logical id of the queue, and Chalice's name of the function that it triggers.
_TRIGGERS = {"Queue": "worker", "LaterQueue": "scheduled"}


@dataclass(frozen=True)
class Metric:
    namespace: str
    name: str
    dimensions: Mapping[str, Any]
    statistic: str = "Sum"

    @property
    def properties(self) -> dict[str, Any]:
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions.items()]
        return {"Namespace": self.namespace, "MetricName": self.name, "Dimensions": dimensions}


@dataclass(frozen=True)
class Alarm:
    """It is raised when the value is `threshold` or more in each of `periods` periods."""

    #: the alarm's name after that of the stage
    name: str
    description: str
    #: the metric, or those of the expression, by their names in it
    metrics: Metric | Mapping[str, Metric]
    threshold: float = 1
    expression: str = ""
    #: seconds
    period: int = 300
    periods: int = 1
    #: periods of these that suffice; None for all
    periods_to_alarm: int | None = None
    #: missing data raises the alarm, rather than proving that all is well
    needs_data: bool = False

    @property
    def logical_id(self) -> str:
        return "".join(part.capitalize() for part in self.name.split("-")) + "Alarm"

    @property
    def resource(self) -> dict[str, Any]:
        properties = {
            "AlarmName": {"Fn::Sub": f"paceline-${{Stage}}-{self.name}"},
            "AlarmDescription": f"{self.description} See docs/production/alarms.md.",
            **self._value(),
            "EvaluationPeriods": self.periods,
            "DatapointsToAlarm": self.periods_to_alarm or self.periods,
            "Threshold": self.threshold,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "breaching" if self.needs_data else "notBreaching",
            "AlarmActions": {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]},
        }
        return {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}

    def _value(self) -> dict[str, Any]:
        if isinstance(self.metrics, Metric):
            statistic = self.metrics.statistic
            kind = "ExtendedStatistic" if statistic.startswith("p") else "Statistic"
            return {**self.metrics.properties, kind: statistic, "Period": self.period}
        parts = [
            {
                "Id": name,
                "ReturnData": False,
                "MetricStat": {"Metric": one.properties, "Stat": one.statistic, "Period": self.period},
            }
            for name, one in self.metrics.items()
        ]
        return {"Metrics": [{"Id": "value", "Expression": self.expression, "ReturnData": True}, *parts]}


def alarms(stage: Stage, stack: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the resources by logical id. stack: the template, whose queues and indexes have alarms of their own."""
    every = (*_starts(stage), *_queues(stack["Resources"]), *_functions(), *_api(stage), *_table(stack["Resources"]))
    return {alarm.logical_id: alarm.resource for alarm in every}


def _starts(stage: Stage) -> Iterator[Alarm]:
    """Without starts there is no data: that is no lateness, and a stall that the canary notices."""
    by_stage = {"stage": stage.name}
    late = Metric(METRICS_NAMESPACE, "late_ms", by_stage, "p99")
    text = f"One start in a hundred came {stage.late_ms} ms late or later."
    yield Alarm("late-starts", text, late, stage.late_ms, period=60, periods=5, periods_to_alarm=3)
    failed = Metric(METRICS_NAMESPACE, "task_failed", by_stage)
    yield Alarm("tasks-failed", "A task used up its attempts; the completion log has the reason.", failed)
    if stage.canary:
        canary = Metric(METRICS_NAMESPACE, CANARY_METRIC, by_stage, "Maximum")
        text = "The canary's task did not finish in time, or the canary does not run."
        yield Alarm("canary", text, canary, CANARY_LATE_MS, period=60, periods=3, needs_data=True)


def _queues(resources: Mapping[str, Any]) -> Iterator[Alarm]:
    """A queue that is empty and unused for six hours has no data."""
    for queue, dead_queue in _dead_letter_queues(resources).items():
        dead = _of_queue(dead_queue, "ApproximateNumberOfMessagesVisible")
        kind = "dead-letters" if queue == "Queue" else f"{_TRIGGERS[queue]}-dead-letters"
        yield Alarm(kind, "The dead-letter queue has messages that need attention.", dead)
    # Leaves out messages that were received several times, so it notices only those that nobody receives.
    oldest = _of_queue("Queue", "ApproximateAgeOfOldestMessage")
    text = "A message is older than 2 hours: a lane is paused or far behind."
    yield Alarm("oldest-message", text, oldest, OLDEST_SECONDS)
    for name, function in _TRIGGERS.items():
        hidden = _of_queue(name, "ApproximateNumberOfMessagesNotVisible")
        text = f"The {function} queue's messages in flight are at 80 % of what SQS allows."
        yield Alarm(f"{function}-in-flight", text, hidden, IN_FLIGHT)
        yield _stalled(name, function)


def _dead_letter_queues(resources: Mapping[str, Any]) -> dict[str, str]:
    """Returns the logical id of each trigger's queue that has a dead-letter queue, with that of the latter."""
    policies = {name: resources[name]["Properties"].get("RedrivePolicy") for name in _TRIGGERS}
    return {name: policy["deadLetterTargetArn"]["Fn::GetAtt"][0] for name, policy in policies.items() if policy}


def _stalled(queue: str, function: str) -> Alarm:
    """Messages wait, the function does not run, and either nobody polls or the polled messages don't reach it.

    Polls that find nothing are no stall: a lane that waits for its limits, or is paused, hides its first message and
    has SQS keep back the others, which count as visible.
    """
    metrics = {
        "visible": _of_queue(queue, "ApproximateNumberOfMessagesVisible"),
        "received": _of_queue(queue, "NumberOfMessagesReceived", "Sum"),
        "empty": _of_queue(queue, "NumberOfEmptyReceives", "Sum"),
        "invoked": _of_function(function, "Invocations"),
    }
    fails = "((FILL(received, 0) > 0) OR (FILL(empty, 0) == 0))"
    expression = f"IF((visible > 0) AND (FILL(invoked, 0) == 0) AND {fails}, 1, 0)"
    text = f"Messages wait, and the {function} function is not invoked: its trigger is disabled or fails."
    return Alarm(f"{function}-stalled", text, metrics, expression=expression, period=60, periods=5)


def _functions() -> Iterator[Alarm]:
    """Lambda reports errors and throttles only where there were some."""
    texts = {
        "api": "The API function failed or timed out.",
        "worker": "The worker function died or timed out inside a task, which runs again once its message reappears.",
        "scheduled": "The function that admits scheduled tasks and sends callbacks died or timed out.",
    }
    for function, text in texts.items():
        yield Alarm(f"{function}-errors", text, _of_function(function, "Errors"))
        throttled = "The account has no concurrency left for the function."
        yield Alarm(f"{function}-throttles", throttled, _of_function(function, "Throttles"))
    dropped = {name: _of_function(name, "RecursiveInvocationsDropped") for name in _TRIGGERS.values()}
    expression = " + ".join(f"FILL({name}, 0)" for name in dropped)
    text = "Lambda's recursion guard dropped a message of a function that its own message triggered."
    yield Alarm("recursion", text, dropped, expression=expression)


def _api(stage: Stage) -> Iterator[Alarm]:
    """Also answers that API Gateway gives in place of the function, such as for a failed authorizer."""
    failed = Metric("AWS/ApiGateway", "5XXError", {"ApiName": stage.full_name, "Stage": stage.api_gateway_stage})
    if stage.front_door is FrontDoor.FUNCTION_URL:
        failed = _of_function("api", "Url5xxCount")
    yield Alarm("api-5xx", f"{API_FAILURES} requests were answered with a status of 500 or more.", failed, API_FAILURES)


def _table(resources: Mapping[str, Any]) -> Iterator[Alarm]:
    """An index that throttles throttles the table's writes too; DynamoDB has no data where nothing was throttled."""
    table = {"TableName": {"Ref": "Table"}}
    throttled = {
        f"{kind}s": Metric("AWS/DynamoDB", f"{kind.capitalize()}ThrottleEvents", table) for kind in ("read", "write")
    }
    for index in resources["Table"]["Properties"].get("GlobalSecondaryIndexes", ()):
        by_index = {**table, "GlobalSecondaryIndexName": index["IndexName"]}
        throttled[f"index_{index['IndexName']}"] = Metric("AWS/DynamoDB", "WriteThrottleEvents", by_index)
    expression = " + ".join(f"FILL({name}, 0)" for name in throttled)
    text = f"DynamoDB throttled {TABLE_THROTTLES} calls or more."
    yield Alarm("table-throttles", text, throttled, TABLE_THROTTLES, expression)


def _of_queue(logical_id: str, name: str, statistic: str = "Maximum") -> Metric:
    return Metric("AWS/SQS", name, {"QueueName": {"Fn::GetAtt": [logical_id, "QueueName"]}}, statistic)


def _of_function(function: str, name: str) -> Metric:
    suffix = "" if function == "api" else f"-{function}"
    return Metric("AWS/Lambda", name, {"FunctionName": {"Fn::Sub": f"paceline-${{Stage}}{suffix}"}})
