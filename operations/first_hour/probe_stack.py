"""The stack of the probes: for each a queue, a function with inline code and a trigger like those of a stage.

All names begin with `paceline-firsthour-probe`, so that whoever finds one knows where it is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.deploy.package import event_source_mapping

#: The stage that the first hour deploys, and prefix of the names of all that it makes.
STAGE = "firsthour"
PREFIX = f"paceline-{STAGE}"
PROBE_STACK = f"{PREFIX}-probes"
RESULTS = f"{PREFIX}-probe-results"
CODE = Path(__file__).with_name("probe_functions.py")
#: Of the probes' functions; AWS takes no older one for new functions.
RUNTIME = "python3.12"
MEMORY_MB = 256
#: Seconds for which CloudFormation's service limits allow a queue to keep messages that nobody wants any more.
_RETENTION_SECONDS = 3_600

Resource = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    name: str
    #: function of probe_functions.py
    handler: str
    is_fifo: bool
    #: functions at a time: 2 to 1,000, as Lambda allows
    concurrency: int
    #: seconds until the function times out; a message is hidden for as long and a half
    timeout: int
    #: receives after which SQS moves a message to the probe's dead letters; None for a queue without
    max_receives: int | None = None
    #: None for Lambda's default, which stops chains
    recursive_loop: str | None = None

    @property
    def full_name(self) -> str:
        """Name of the function and, with the suffix of its kind, of the queue."""
        return f"{PREFIX}-probe-{self.name}"

    @property
    def logical_id(self) -> str:
        return self.name.title().replace("-", "")


def probes(max_receives: int, concurrency: int) -> tuple[Probe, ...]:
    """Returns the probes. concurrency: functions at a time of the probe for delays."""
    return (
        Probe("prefetch", "stay", is_fifo=True, concurrency=2, timeout=60),
        Probe("delay", "hide_until", is_fifo=True, concurrency=concurrency, timeout=10),
        Probe("early", "delete_early", is_fifo=True, concurrency=10, timeout=60),
        Probe("chain", "send_next", is_fifo=False, concurrency=2, timeout=4, max_receives=3),
        Probe("allowed", "send_next", is_fifo=False, concurrency=2, timeout=4, max_receives=3, recursive_loop="Allow"),
        Probe("failure", "fail", is_fifo=True, concurrency=10, timeout=4, max_receives=max_receives),
    )


def probe_template(wanted: tuple[Probe, ...]) -> dict[str, Any]:
    """Returns the CloudFormation template of the results queue and the probes."""
    resources: Resource = {
        "Results": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": RESULTS}},
        "Role": _role(),
    }
    outputs: Resource = {"ResultsUrl": {"Value": {"Ref": "Results"}}}
    for probe in wanted:
        resources |= _resources(probe)
        outputs[f"{probe.logical_id}Url"] = {"Value": {"Ref": f"{probe.logical_id}Queue"}}
        if probe.max_receives:
            outputs[f"{probe.logical_id}DeadUrl"] = {"Value": {"Ref": f"{probe.logical_id}Dead"}}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Paceline's first hour: probes that measure SQS and Lambda. Delete it when no first hour runs.",
        "Resources": resources,
        "Outputs": outputs,
    }


def _resources(probe: Probe) -> Resource:
    name = probe.logical_id
    found: Resource = {
        f"{name}Logs": _log_group(probe.full_name),
        f"{name}Queue": _queue(probe, probe.full_name, _redrive_policy(probe)),
        f"{name}Function": _function(probe),
        f"{name}Trigger": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {
                "EventSourceArn": {"Fn::GetAtt": [f"{name}Queue", "Arn"]},
                "FunctionName": {"Ref": f"{name}Function"},
                "BatchSize": 1,
                **event_source_mapping(probe.concurrency),
            },
        },
    }
    if probe.max_receives:
        found[f"{name}Dead"] = _queue(probe, f"{probe.full_name}-dead", {})
    return found


def _queue(probe: Probe, name: str, more: Resource) -> Resource:
    fifo = {"FifoQueue": True, "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
    properties = {
        "QueueName": f"{name}.fifo" if probe.is_fifo else name,
        "VisibilityTimeout": probe.timeout * 3 // 2,
        "MessageRetentionPeriod": _RETENTION_SECONDS,
    }
    return {"Type": "AWS::SQS::Queue", "Properties": properties | (fifo if probe.is_fifo else {}) | more}


def _redrive_policy(probe: Probe) -> Resource:
    if not probe.max_receives:
        return {}
    target = {"Fn::GetAtt": [f"{probe.logical_id}Dead", "Arn"]}
    return {"RedrivePolicy": {"deadLetterTargetArn": target, "maxReceiveCount": probe.max_receives}}


def _function(probe: Probe) -> Resource:
    variables = {
        "PROBE": probe.name,
        "QUEUE_URL": {"Ref": f"{probe.logical_id}Queue"},
        "RESULTS_URL": {"Ref": "Results"},
    }
    properties = {
        "FunctionName": probe.full_name,
        "Runtime": RUNTIME,
        "Handler": f"index.{probe.handler}",
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Code": {"ZipFile": CODE.read_text()},
        "Timeout": probe.timeout,
        "MemorySize": MEMORY_MB,
        "Environment": {"Variables": variables},
    }
    if probe.recursive_loop:
        properties["RecursiveLoop"] = probe.recursive_loop
    return {"Type": "AWS::Lambda::Function", "DependsOn": [f"{probe.logical_id}Logs"], "Properties": properties}


def _log_group(function: str) -> Resource:
    properties = {"LogGroupName": f"/aws/lambda/{function}", "RetentionInDays": 1}
    return {"Type": "AWS::Logs::LogGroup", "Properties": properties}


def _role() -> Resource:
    arn = "arn:${AWS::Partition}:%s:${AWS::Region}:${AWS::AccountId}:%s"
    actions = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes", "ChangeMessageVisibility", "SendMessage")
    statements = [
        {
            "Effect": "Allow",
            "Action": [f"sqs:{action}" for action in actions],
            "Resource": {"Fn::Sub": arn % ("sqs", f"{PREFIX}-probe-*")},
        },
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": {"Fn::Sub": arn % ("logs", f"log-group:/aws/lambda/{PREFIX}-probe-*")},
        },
    ]
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [{"PolicyName": "probe", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}],
        },
    }
