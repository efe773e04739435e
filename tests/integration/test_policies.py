"""The functions' policies against MiniStack, which enforces them: enough for all that a function does, and no action
more. Each function's part is played as Lambda plays it, its role's credentials being all it has.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from chalice.test import Client

from chalicelib import container as wiring
from chalicelib.aws.dynamodb_schedules import SEARCH_KEY
from chalicelib.canary import CANARY_METRIC, CANARY_USER
from chalicelib.core.errors import UnavailableError
from chalicelib.core.schedule import OVERDUE_MS, Order, Schedule
from chalicelib.core.scheduled import MAX_AHEAD_MS, Callback, ScheduleBell, ScheduledTask, to_message
from chalicelib.core.task import Task
from chalicelib.core.ticks import Timing
from chalicelib.worker.completion_log import StandardOutputLog
from chalicelib.worker.hiding import SEND_AGAIN_AFTER_MS
from infra.deploy.stages import ROOT
from infra.stack import ensure_stack
from tests.integration.conftest import wait_until_up

FUNCTIONS = ("api", "canary", "worker", "scheduled")
ACCOUNT, REGION = "000000000000", "us-east-1"
NAMES = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "Stage": "dev"}
#: Used by Lambda itself, outside of what an emulator of the other services can see.
BY_LAMBDA = {"logs:CreateLogStream", "logs:PutLogEvents"}
ROOT_KEY = {"aws_access_key_id": "root", "aws_secret_access_key": "rootsecret"}
#: With these a second task waits for longer than a worker sleeps, and does not run out of time here.
SETTINGS = {"LIMITS": "100/second; 2/minute", "MAX_DELAY": "1h", "STAGE": "dev", "AUTH": "none", "OVER_LIMIT": "queue"}
SETTINGS["HTTP_ALLOWED_HOSTS"] = "receiver.invalid"


def read_policy(function: str) -> dict[str, Any]:
    policy = json.loads((ROOT / ".chalice" / f"policy-{function}.json").read_text())
    return {**policy, "Statement": [{**one, "Resource": _named(one["Resource"])} for one in policy["Statement"]]}


def _named(resource: str) -> str:
    return re.sub(r"\$\{([^}]+)\}", lambda match: NAMES[match[1]], resource)


def granted() -> list[tuple[str, str, str]]:
    """Each function with each statement and action of its policy."""
    return [
        (function, statement["Sid"], action)
        for function in FUNCTIONS
        for statement in read_policy(function)["Statement"]
        for action in statement["Action"]
    ]


def as_ministack_asks(policy: Mapping[str, Any]) -> dict[str, Any]:
    """For a batch AWS asks for sqs:SendMessage, MiniStack for sqs:SendMessageBatch, which AWS does not know."""
    statements = [
        {**part, "Action": [name for action in part["Action"] for name in {action, f"{action}{_batch(action)}"}]}
        for part in policy["Statement"]
    ]
    return {**policy, "Statement": statements}


def _batch(action: str) -> str:
    return "Batch" if action.startswith("sqs:") else ""


def without(policy: Mapping[str, Any], sid: str, action: str) -> dict[str, Any]:
    kept = [
        {**part, "Action": [name for name in part["Action"] if (part["Sid"], name) != (sid, action)]}
        for part in policy["Statement"]
    ]
    return {**policy, "Statement": [part for part in kept if part["Action"]]}


@dataclass(frozen=True)
class Enforcing:
    """A MiniStack that enforces policies for all callers but its root."""

    url: str
    outputs: Mapping[str, str]

    def client(self, service: str, **key: str) -> Any:
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **(key or ROOT_KEY))  # type: ignore[call-overload]

    def role(self, name: str, policy: Mapping[str, Any]) -> dict[str, str]:
        """Credentials of a role that has this policy alone."""
        iam = self.client("iam")
        trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="policy", PolicyDocument=json.dumps(as_ministack_asks(policy)))
        key = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_SESSION_TOKEN": key["SessionToken"],
        }

    @contextmanager
    def app(self, monkeypatch: pytest.MonkeyPatch, credentials: Mapping[str, str]) -> Iterator[Client]:
        """The app as it finds itself on Lambda, with these credentials."""
        names = {"TABLE_NAME": "TableName", "QUEUE_URL": "QueueUrl", "DEAD_LETTER_URL": "DeadLetterUrl"}
        names["SCHEDULED_QUEUE_URL"] = "ScheduledQueueUrl"
        env = {name: self.outputs[output] for name, output in names.items()} | SETTINGS | credentials
        with monkeypatch.context() as patch:
            for name, value in (env | {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": REGION}).items():
                patch.setenv(name, value)
            patch.delenv("LOG_DIR", raising=False)
            patch.setattr(boto3, "DEFAULT_SESSION", None)
            wiring.container.cache_clear()
            import app

            with Client(app.app, project_dir=str(ROOT)) as client:
                yield client
            wiring.container.cache_clear()


@pytest.fixture(scope="module")
def enforcing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enforcing]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("enforcing")
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "WARNING", "SFTP_ENABLED": "0"}
    env |= {"AUTH": "true", "AWS_ACCESS_KEY_ID": "root", "AWS_SECRET_ACCESS_KEY": "rootsecret"}
    output = folder / "output.txt"
    with output.open("wb") as out, pytest.MonkeyPatch.context() as patch:
        command = [sys.executable, "-m", "ministack"]
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(f"{url}/_ministack/health", process, output)
            for name, value in (("AWS_ACCESS_KEY_ID", "root"), ("AWS_SECRET_ACCESS_KEY", "rootsecret")):
                patch.setenv(name, value)
            patch.delenv("AWS_SESSION_TOKEN", raising=False)
            patch.setattr(boto3, "DEFAULT_SESSION", None)
            yield Enforcing(url, ensure_stack(url, "dev"))
        finally:
            process.terminate()
            process.wait(10)


class BreaksError(Exception):
    """The part could not be played to its end."""


def played(answer: Any, *expected: int) -> Any:
    if answer.status_code not in expected:
        raise BreaksError(f"{answer.status_code}: {answer.body!r:.300}")
    return answer.json_body


def post(client: Client, path: str, body: Any, **headers: str) -> Any:
    content = {"Content-Type": "application/json", **headers}
    return client.http.post(path, body=json.dumps(body).encode(), headers=content)


def play_api(system: Enforcing, client: Client, user: str) -> None:
    """Every route, and those of their branches that ask something else of AWS."""
    http = client.http
    played(http.get("/health"), 200)
    task = played(post(client, "/api/v1/task", {"user_id": user}), 202)
    played(post(client, "/api/v1/tasks", {"user_id": user, "tasks": [{}, {}, {}]}), 202, 429)
    played(http.get(f"/api/v1/users/{user}/tasks/{task['task_id']}"), 200)
    listed = played(http.get(f"/api/v1/users/{user}/tasks"), 200)
    assert len(listed["tasks"]) == 4
    played(http.get(f"/api/v1/lanes?search={user}"), 200)
    played(http.get("/api/v1/tasks?state=failed"), 200)
    # A refused submit leaves its key free.
    refused = {"Idempotency-Key": "again", "Prefer": "handling=strict"}
    played(post(client, "/api/v1/task", {"user_id": user}, **refused), 429)
    played(post(client, "/api/v1/task", {"user_id": user}, **{"Idempotency-Key": "again"}), 429)
    played(http.delete(f"/api/v1/users/{user}/tasks/{listed['tasks'][0]['task_id']}"), 200)
    late = played(post(client, "/api/v1/task", {"user_id": user, "delay_seconds": 60}), 202)
    played(http.delete(f"/api/v1/users/{user}/tasks/{late['task_id']}"), 200)
    save_head_receipt(system, user)
    play_schedules(client, f"/api/v1/users/{user}/schedules")
    played(post(client, f"/api/v1/users/{user}/pause", {}), 200)
    played(post(client, f"/api/v1/users/{user}/resume", {}), 200)


def play_schedules(client: Client, path: str) -> None:
    json_body = {"Content-Type": "application/json"}
    for status in (201, 200):
        played(client.http.put(f"{path}/s", body=b'{"every_seconds": 60}', headers=json_body), status)
    assert len(played(client.http.get(path), 200)["schedules"]) == 1
    played(client.http.get(f"{path}/s"), 200)
    played(client.http.delete(f"{path}/s"), 200)


def save_head_receipt(system: Enforcing, user: str) -> None:
    """Stores the head's receipt in the lane, as a worker does that deferred it for long."""
    sqs = system.client("sqs")
    received = sqs.receive_message(QueueUrl=system.outputs["QueueUrl"], VisibilityTimeout=600)
    system.client("dynamodb").update_item(
        TableName=system.outputs["TableName"],
        Key={"user_id": {"S": user}, "item": {"S": "lane"}},
        UpdateExpression="SET head_receipt = :receipt",
        ExpressionAttributeValues={":receipt": {"S": received["Messages"][0]["ReceiptHandle"]}},
    )


def play_canary(system: Enforcing, output: Callable[[], str]) -> None:
    """The first tick, which sets limits and submits, and a second one, which looks at the unfinished task."""
    try:
        for _ in range(2):
            wiring.container().canary.tick()
    except UnavailableError as error:
        raise BreaksError(str(error)) from error
    sent = system.client("sqs").receive_message(QueueUrl=system.outputs["QueueUrl"]).get("Messages", [])
    found = (task_states(system, CANARY_USER), len(sent), f'"{CANARY_METRIC}"' in output())
    if found != (["queued"], 1, True):
        raise BreaksError(f"states, sent, reported: {found}")


def forget(system: Enforcing, user: str) -> None:
    """Deletes the user's items, since the canary has one user only."""
    table, key = system.outputs["TableName"], {":user": {"S": user}}
    found = system.client("dynamodb").query(
        TableName=table, KeyConditionExpression="user_id = :user", ExpressionAttributeValues=key
    )
    for item in found["Items"]:
        system.client("dynamodb").delete_item(TableName=table, Key={name: item[name] for name in ("user_id", "item")})


def put_messages(system: Enforcing, client: Client, user: str) -> None:
    """A lane whose first two messages come in the other order and whose third has to wait, and one message of none."""
    sqs, queue_url = system.client("sqs"), system.outputs["QueueUrl"]
    tasks = [{}, {"callback_url": "http://receiver.invalid/"}]
    played(post(client, "/api/v1/tasks", {"user_id": user, "tasks": tasks}), 202, 429)
    first = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=1)["Messages"][0]
    sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=first["ReceiptHandle"])
    send = {"QueueUrl": queue_url, "MessageDeduplicationId": f"again-{user}"}
    sqs.send_message(MessageBody=first["Body"], MessageGroupId=user, **send)
    played(post(client, "/api/v1/task", {"user_id": user}), 429)
    sqs.send_message(MessageBody="no task", MessageGroupId=f"stranger-of-{user}", **send)


def play_worker(system: Enforcing, client: Client, user: str, source: Any, output: Callable[[], str]) -> None:
    """Everything in the queue, once. `source` stands for the event source mapping, which has the same role."""
    queue_url = system.outputs["QueueUrl"]
    source.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
    deferred = []
    while message := source.receive_message(QueueUrl=queue_url, AttributeNames=["All"]).get("Messages"):
        record = as_record(message[0], SEND_AGAIN_AFTER_MS)  # so old that a younger one has to be sent
        answer = client.lambda_.invoke("worker", {"Records": [record]}).payload
        deferred += answer["batchItemFailures"]
        if not answer["batchItemFailures"]:
            source.delete_message(QueueUrl=queue_url, ReceiptHandle=record["receiptHandle"])
    dead = system.client("sqs").receive_message(QueueUrl=system.outputs["DeadLetterUrl"]).get("Messages", [])
    found = (task_states(system, user), len(deferred), len(dead))
    if found != (["queued", "succeeded", "succeeded"], 1, 1) or "task_unavailable" in output():
        raise BreaksError(f"states, deferred, dead: {found}")


def put_scheduled_messages(system: Enforcing, client: Client, user: str) -> None:
    """A task that is due, one that has to wait for long, one that is refused at its time, and a malformed message.

    And a schedule whose tick is due, and one whose message is lost.
    """
    put_schedules(system, user)
    for late in ({"delay_seconds": 1}, {"delay_seconds": 1, "callback_url": "http://receiver.invalid/"}):
        played(post(client, "/api/v1/task", {"user_id": user, **late}), 202)
    system.client("sqs").send_message(QueueUrl=system.outputs["ScheduledQueueUrl"], MessageBody="no message")
    event = {"event": "task_completed"}
    now_ms = time.time_ns() // 1_000_000
    callback = Callback(user, "0198", "http://receiver.invalid/", event, now_ms)
    full = Task(f"full-{user}", "0199", 0, "log", None, now_ms, now_ms, run_at=now_ms)
    for message in (callback, ScheduledTask(full)):
        system.client("sqs").send_message(QueueUrl=system.outputs["ScheduledQueueUrl"], MessageBody=to_message(message))
    # Of this user's next minutes nothing is left, so what comes for it is put off.
    system.client("dynamodb").put_item(
        TableName=system.outputs["TableName"],
        Item={
            "user_id": {"S": full.user_id},
            "item": {"S": "lane"},
            "admitted": {"N": "1"},
            "planned": {"L": [{"N": str(now_ms + 7_200_000)}]},
        },
    )


def put_schedules(system: Enforcing, user: str) -> None:
    parts, now_ms = wiring.container(), time.time_ns() // 1_000_000
    system.client("dynamodb").delete_item(TableName=system.outputs["TableName"], Key=SEARCH_KEY)
    for user_id, late_ms in ((f"due-{user}", 1_000), (f"lost-{user}", 2 * OVERDUE_MS)):
        timing = Timing(every_seconds=86_400, anchor=now_ms - late_ms - 86_400_000)
        due = Schedule(user_id, "s", Order(), timing, False, now_ms, "g", now_ms - late_ms, bell=1, revision=1)
        assert parts.schedules.add_name(user_id, "s", 1)
        assert parts.schedules.save(due, 0)
    parts.scheduled_queue.send([(ScheduleBell(f"due-{user}", "s", 1), 0)])


def play_later(system: Enforcing, client: Client, user: str, source: Any, output: Callable[[], str]) -> None:
    """Everything in the queue, once, as the event source mapping would."""
    queue_url = system.outputs["ScheduledQueueUrl"]
    source.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
    deferred, done, give_up_at = 0, 0, time.monotonic() + 10
    while (deferred, done) != (3, 4) and time.monotonic() < give_up_at:
        received = source.receive_message(QueueUrl=queue_url, AttributeNames=["All"], WaitTimeSeconds=1)
        for message in received.get("Messages", []):
            # So old that a new one takes the place of the message that is put off.
            record = as_record(message, MAX_AHEAD_MS if "full-" in message["Body"] else 0)
            if client.lambda_.invoke("scheduled", {"Records": [record]}).payload["batchItemFailures"]:
                deferred += 1
            else:
                done += 1
                source.delete_message(QueueUrl=queue_url, ReceiptHandle=record["receiptHandle"])
        if "scheduled_message_unavailable" in output():
            raise BreaksError("AWS was not allowed to handle a scheduled message")
    sqs = system.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
    put_off = int(attributes["ApproximateNumberOfMessagesDelayed"])
    dead = len(sqs.receive_message(QueueUrl=system.outputs["DeadLetterUrl"]).get("Messages", []))
    sent = len(sqs.receive_message(QueueUrl=system.outputs["QueueUrl"], MaxNumberOfMessages=10).get("Messages", []))
    found = (deferred, done, put_off, dead, sent)
    if found != (3, 4, 1, 1, 4):
        raise BreaksError(f"deferred, done, put off, dead, sent: {found}")


def as_record(message: Mapping[str, Any], age_ms: int) -> dict[str, Any]:
    sent_at = time.time_ns() // 1_000_000 - age_ms
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {**message["Attributes"], "SentTimestamp": str(sent_at)},
    }


def task_states(system: Enforcing, user: str) -> list[str]:
    answer = system.client("dynamodb").query(
        TableName=system.outputs["TableName"],
        KeyConditionExpression="user_id = :user",
        ExpressionAttributeValues={":user": {"S": user}},
    )
    return sorted(item["state"]["S"] for item in answer["Items"] if "state" in item)


@pytest.fixture
def play(
    enforcing: Enforcing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, Mapping[str, Any]], None]:
    """Plays a function's part with a policy; BreaksError or ClientError when the policy is not enough."""

    def play(function: str, policy: Mapping[str, Any]) -> None:
        for queue in ("QueueUrl", "DeadLetterUrl", "ScheduledQueueUrl"):
            enforcing.client("sqs").purge_queue(QueueUrl=enforcing.outputs[queue])
        user = f"{function}-{uuid4().hex[:8]}"
        key = enforcing.role(user, policy)
        if function == "api":
            with enforcing.app(monkeypatch, key) as client:
                play_api(enforcing, client, user)
            return
        if function == "canary":
            forget(enforcing, CANARY_USER)
            with enforcing.app(monkeypatch, key):
                out = io.StringIO()
                wiring.container().log = StandardOutputLog(out)
                play_canary(enforcing, out.getvalue)
            return
        with enforcing.app(monkeypatch, {name.upper(): value for name, value in ROOT_KEY.items()}) as client:
            (put_messages if function == "worker" else put_scheduled_messages)(enforcing, client, user)
        source = enforcing.client("sqs", **{name.lower(): value for name, value in key.items()})
        with enforcing.app(monkeypatch, key) as client:
            part = play_worker if function == "worker" else play_later
            part(enforcing, client, user, source, lambda: capsys.readouterr().out)

    return play


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_does_all_it_does_with_its_policy(
    play: Callable[[str, Mapping[str, Any]], None], function: str
) -> None:
    play(function, read_policy(function))


@pytest.mark.parametrize(("function", "sid", "action"), [c for c in granted() if c[2] not in BY_LAMBDA])
def test_without_any_one_action_something_breaks(
    play: Callable[[str, Mapping[str, Any]], None], function: str, sid: str, action: str
) -> None:
    with pytest.raises((BreaksError, ClientError)):
        play(function, without(read_policy(function), sid, action))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_lambda_itself_needs_is_granted(function: str) -> None:
    assert {action for named, _, action in granted() if named == function} >= BY_LAMBDA


@pytest.mark.parametrize("function", FUNCTIONS)
def test_resources_are_the_stages_own(function: str) -> None:
    for statement in read_policy(function)["Statement"]:
        assert "*" not in statement["Resource"].removesuffix(":*")
        assert "paceline-dev" in statement["Resource"]


def test_every_call_in_the_adapters_is_granted_to_a_function() -> None:
    calls = {
        node.func.attr
        for path in (ROOT / "chalicelib" / "aws").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_client(node.func.value)
    }
    assert calls
    known = {action.partition(":")[2].lower() for _, _, action in granted()}
    assert {call.replace("_", "").removesuffix("batch") for call in calls} <= known


def is_client(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "_client"
