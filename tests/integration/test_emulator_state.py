"""What the embedded emulator answered survives `kill -9` of it, and a full disk."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.stack import ensure_stack, restore_resources
from local.emulator_address import free_port
from tests.integration.conftest import wait_until_up

STAGE = "kept"


class Emulator:
    """An emulator process over one state directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.state_dir = folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.sqs, self.dynamodb = self.client("sqs"), self.client("dynamodb")

    def client(self, service: Any) -> Any:
        config = Config(retries={"total_max_attempts": 1}, read_timeout=10)
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", config=config, **keys)

    def start(self, *command: str, **environment: str) -> None:
        arguments = command or ("-m", "local.emulator", str(self.port), str(self.state_dir))
        output = self._folder / "output.txt"
        with output.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], env={**os.environ, **environment}, stdout=out, stderr=out
            )
        wait_until_up(f"{self.url}/_ministack/health", self.process, output)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def restart(self) -> None:
        """kill -9, and another process on the same port and state."""
        self.kill()
        self.start()

    def limit_files(self, size: int) -> None:
        """No file of the emulator may grow beyond this size, -1: any."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, -1))


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    emulator = Emulator(tmp_path)
    emulator.start()
    yield emulator
    emulator.kill()


class Stack:
    """The template's table and queues."""

    def __init__(self, emulator: Emulator) -> None:
        outputs = ensure_stack(emulator.url, STAGE)
        self.table, self.queue, self.dead = outputs["TableName"], outputs["QueueUrl"], outputs["DeadLetterUrl"]
        self.scheduled = outputs["ScheduledQueueUrl"]
        self._emulator = emulator

    def put(self, user: str, item: str, **values: str) -> None:
        attributes = {name: {"S": value} for name, value in values.items()}
        self._emulator.dynamodb.put_item(
            TableName=self.table, Item={"user_id": {"S": user}, "item": {"S": item}, **attributes}
        )

    def items(self) -> dict[tuple[str, str], Any]:
        found = self._emulator.dynamodb.scan(TableName=self.table)["Items"]
        return {(item["user_id"]["S"], item["item"]["S"]): item for item in found}

    def send(self, group: str, body: str, key: str = "") -> Any:
        return self._emulator.sqs.send_message(
            QueueUrl=self.queue, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=key or body
        )

    def receive(self, url: str = "", **options: Any) -> list[Any]:
        answer = self._emulator.sqs.receive_message(
            QueueUrl=url or self.queue, MaxNumberOfMessages=10, AttributeNames=["All"], **options
        )
        return list(answer.get("Messages", ()))

    def hide(self, message: Any, seconds: int) -> None:
        self._emulator.sqs.change_message_visibility(
            QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=seconds
        )

    def delete(self, message: Any) -> None:
        self._emulator.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture
def stack(emulator: Emulator) -> Stack:
    return Stack(emulator)


def bodies(messages: list[Any]) -> list[str]:
    return [message["Body"] for message in messages]


def test_items_survive(emulator: Emulator, stack: Stack) -> None:
    stack.put("ann", "lane", listed="1")
    stack.put("bob", "lane", listed="1")
    stack.put("bob", "task", text="\ud83d\ude00 \x00 'quoted'")
    emulator.dynamodb.delete_item(TableName=stack.table, Key={"user_id": {"S": "ann"}, "item": {"S": "lane"}})
    emulator.dynamodb.update_item(
        TableName=stack.table,
        Key={"user_id": {"S": "bob"}, "item": {"S": "lane"}},
        UpdateExpression="ADD seq :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
    )
    before = stack.items()
    emulator.restart()
    assert stack.items() == before
    assert before.keys() == {("bob", "lane"), ("bob", "task")}
    by_index = emulator.dynamodb.query(
        TableName=stack.table,
        IndexName="lanes",
        KeyConditionExpression="listed = :one",
        ExpressionAttributeValues={":one": {"S": "1"}},
    )
    assert [item["user_id"]["S"] for item in by_index["Items"]] == ["bob"]


def test_messages_keep_order_visibility_counts_and_receipt_handles(emulator: Emulator, stack: Stack) -> None:
    for body in ("a-1", "a-2", "b-1", "c-1"):
        stack.send(body[0], body)
    (first, _, _, fourth) = stack.receive(VisibilityTimeout=60)
    stack.hide(first, 0)  # its group's second message is in flight, so the group stays blocked
    stack.delete(fourth)
    stack.send("d", "d-1")
    emulator.restart()
    received = stack.receive(VisibilityTimeout=60)
    assert bodies(received) == ["d-1"]
    assert received[0]["Attributes"]["ApproximateReceiveCount"] == "1"
    stack.hide(received[0], 0)
    emulator.restart()
    received = stack.receive()
    assert [message["Attributes"]["ApproximateReceiveCount"] for message in received] == ["2"]
    stack.delete(first)
    emulator.restart()
    with pytest.raises(ClientError, match="receipt handle"):
        stack.delete(first)


def test_a_hidden_message_comes_back_at_its_time(emulator: Emulator, stack: Stack) -> None:
    stack.send("a", "a-1")
    (message,) = stack.receive()
    stack.hide(message, 4)
    hidden_at = time.monotonic()
    emulator.restart()
    while not (received := stack.receive(WaitTimeSeconds=1)):
        assert time.monotonic() - hidden_at < 30
    assert time.monotonic() - hidden_at >= 3.9
    assert bodies(received) == ["a-1"]


def test_deduplication_and_sequence_numbers_go_on(emulator: Emulator, stack: Stack) -> None:
    sent = [stack.send("a", "one", "key-1"), stack.send("a", "two", "key-2")]
    for message in stack.receive():
        stack.delete(message)
    emulator.restart()
    assert stack.send("a", "one again", "key-1")["MessageId"] == sent[0]["MessageId"]
    assert stack.send("b", "other group", "key-1")["MessageId"] != sent[0]["MessageId"]
    third = stack.send("a", "three", "key-3")
    assert int(third["SequenceNumber"]) > int(sent[1]["SequenceNumber"])
    assert sorted(bodies(stack.receive())) == ["other group", "three"]


def test_dead_letters_move_once(emulator: Emulator, stack: Stack) -> None:
    arn = emulator.sqs.get_queue_attributes(QueueUrl=stack.dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    emulator.sqs.set_queue_attributes(QueueUrl=stack.queue, Attributes={"RedrivePolicy": policy})
    stack.send("a", "a-1")
    stack.send("b", "b-1")
    assert bodies(stack.receive(VisibilityTimeout=0)) == ["a-1", "b-1"]
    deadline = time.monotonic() + 30
    while stack.receive(VisibilityTimeout=0):  # a queue is cleaned once a second
        assert time.monotonic() < deadline
    emulator.restart()
    assert stack.receive() == []
    assert bodies(stack.receive(stack.dead)) == ["a-1", "b-1"]


def test_batches_and_standard_queues_survive(emulator: Emulator, stack: Stack) -> None:
    entries = [{"Id": str(n), "MessageBody": f"m-{n}", "DelaySeconds": 0} for n in range(4)]
    emulator.sqs.send_message_batch(QueueUrl=stack.scheduled, Entries=entries)
    received = stack.receive(stack.scheduled, VisibilityTimeout=60)
    handles = {message["Body"]: message["ReceiptHandle"] for message in received}
    emulator.sqs.delete_message_batch(
        QueueUrl=stack.scheduled,
        Entries=[{"Id": "a", "ReceiptHandle": handles["m-0"]}, {"Id": "b", "ReceiptHandle": "unknown"}],
    )
    shown = [{"Id": "a", "ReceiptHandle": handles["m-1"], "VisibilityTimeout": 0}]
    emulator.sqs.change_message_visibility_batch(QueueUrl=stack.scheduled, Entries=shown)
    emulator.restart()
    assert bodies(stack.receive(stack.scheduled, VisibilityTimeout=60)) == ["m-1"]
    emulator.sqs.purge_queue(QueueUrl=stack.scheduled)
    emulator.restart()
    counts = emulator.sqs.get_queue_attributes(QueueUrl=stack.scheduled, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_deleted_tables_and_queues_leave_nothing_to_their_successors(emulator: Emulator, stack: Stack) -> None:
    stack.put("ann", "lane")
    stack.send("a", "a-1", "key")
    table = emulator.dynamodb.describe_table(TableName=stack.table)["Table"]
    emulator.dynamodb.delete_table(TableName=stack.table)
    emulator.sqs.delete_queue(QueueUrl=stack.queue)
    emulator.restart()
    with pytest.raises(ClientError, match="not found"):
        stack.items()
    keys = {one["AttributeName"] for one in table["KeySchema"]}
    emulator.dynamodb.create_table(
        TableName=stack.table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[one for one in table["AttributeDefinitions"] if one["AttributeName"] in keys],
        KeySchema=table["KeySchema"],
    )
    emulator.sqs.create_queue(QueueName=stack.queue.rpartition("/")[2], Attributes={"FifoQueue": "true"})
    emulator.restart()
    assert stack.items() == {}
    assert stack.receive() == []
    assert stack.send("a", "a-1", "key")["MessageId"]
    assert bodies(stack.receive()) == ["a-1"]


def test_a_stack_whose_creation_was_killed_is_created_anew(emulator: Emulator) -> None:
    from infra.stack import TEMPLATE, stack_name

    parameters = [{"ParameterKey": "Stage", "ParameterValue": STAGE}]
    cloudformation = emulator.client("cloudformation")
    cloudformation.create_stack(StackName=stack_name(STAGE), TemplateBody=TEMPLATE.read_text(), Parameters=parameters)
    emulator.restart()
    stack = Stack(emulator)
    stack.put("ann", "lane")
    assert stack.items()


def test_the_state_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path)
    serve = f"import uvicorn; from ministack.app import app; uvicorn.run(app, port={emulator.port}, log_level='error')"
    settings = {"PERSIST_STATE": "1", "STATE_DIR": str(emulator.state_dir), "GATEWAY_PORT": str(emulator.port)}
    emulator.start("-c", serve, **settings, SFTP_ENABLED="0", IOT_MTLS_ENABLED="0")
    try:
        stack = Stack(emulator)
        stack.put("ann", "lane", listed="1")
        sent = [stack.send(body[0], body) for body in ("a-1", "a-2", "b-1")]
        held = stack.receive(VisibilityTimeout=60)[0]
        stack.send("c", "c-1")
        items = stack.items()
        emulator.stop()
        assert (emulator.state_dir / "sqs.json").exists()
        for _ in range(2):
            emulator.start()
            assert stack.items() == items
            assert bodies(stack.receive(VisibilityTimeout=0)) == ["c-1"]
            assert stack.send("a", "again", "a-1")["MessageId"] == sent[0]["MessageId"]
            stack.hide(held, 60)
            assert not list(emulator.state_dir.glob("*.json"))
            emulator.kill()
    finally:
        emulator.kill()


def test_a_full_disk_answers_503_and_loses_nothing(emulator: Emulator, stack: Stack) -> None:
    stack.put("ann", "lane", text="before")
    stack.send("a", "a-1")
    emulator.limit_files(0)
    for call in (
        lambda: stack.put("ann", "lane", text="refused"),
        lambda: stack.send("a", "refused"),
        stack.items,
        stack.receive,
        lambda: stack.receive(WaitTimeSeconds=1),
        lambda: ensure_stack(emulator.url, STAGE),
    ):
        with pytest.raises(Exception, match=r"ServiceUnavailable|503") as refused:
            call()
        if isinstance(refused.value, ClientError):
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"
    emulator.kill()
    emulator.start()  # the limit was the other process's
    assert stack.items()["ann", "lane"]["text"] == {"S": "before"}
    assert bodies(stack.receive()) == ["a-1"]


def test_calls_go_on_by_themselves_once_there_is_room(emulator: Emulator, stack: Stack) -> None:
    emulator.limit_files(0)
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        stack.put("ann", "lane", text="in doubt")
    emulator.limit_files(-1)
    stack.send("a", "a-1")
    emulator.restart()
    # A call that was answered 503 may have been done, as with AWS.
    assert stack.items()["ann", "lane"]["text"] == {"S": "in doubt"}
    assert bodies(stack.receive()) == ["a-1"]


@pytest.mark.parametrize("bring_back", [ensure_stack, restore_resources])
def test_a_missing_table_or_queue_is_created_as_in_the_template(
    emulator: Emulator, stack: Stack, bring_back: Callable[[str, str], object]
) -> None:
    stack.send("a", "a-1")
    before = described(emulator, stack)
    emulator.dynamodb.delete_table(TableName=stack.table)
    for url in (stack.dead, stack.scheduled):
        emulator.sqs.delete_queue(QueueUrl=url)
    bring_back(emulator.url, STAGE)
    assert described(emulator, stack) == before
    assert bodies(stack.receive()) == ["a-1"]
    stack.put("ann", "lane")
    emulator.restart()
    assert stack.items()


def test_what_is_there_stays_as_it_is(emulator: Emulator, stack: Stack) -> None:
    stack.put("ann", "lane")
    stack.send("a", "a-1")
    said: list[str] = []
    restore_resources(emulator.url, STAGE, said.append)
    assert said == []
    assert stack.items()
    assert bodies(stack.receive()) == ["a-1"]


#: What differs between a resource and its successor.
OF_ITS_OWN = {"CreationDateTime", "TableId", "CreatedTimestamp", "LastModifiedTimestamp"}
OF_ITS_OWN |= {"ItemCount", "TableSizeBytes", "ProvisionedThroughput"}
#: A default that CreateQueue shows, and MiniStack's CloudFormation does not.
OF_ITS_OWN |= {"ContentBasedDeduplication"}


def described(emulator: Emulator, stack: Stack) -> list[dict[str, Any]]:
    found = [emulator.dynamodb.describe_table(TableName=stack.table)["Table"]]
    for url in (stack.queue, stack.dead, stack.scheduled):
        answer = emulator.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        found.append(answer["Attributes"])
    described = [{key: one[key] for key in one.keys() - OF_ITS_OWN if "Approximate" not in key} for one in found]
    for index in described[0]["GlobalSecondaryIndexes"]:  # CreateTable says more of an index than CloudFormation
        for key in index.keys() - {"IndexName", "KeySchema", "Projection"}:
            del index[key]
    return described


class Load:
    """One client that counts up an item and sends the count, each by one call, and knows what was answered."""

    def __init__(self, emulator: Emulator, stack: Stack, user: str) -> None:
        self._emulator, self._stack, self.user = emulator, stack, user
        self.counted: list[int] = []
        self.sent: list[str] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.stopping.is_set():
            with suppress(ClientError, BotoCoreError):
                count = int(self._count()["count"]["N"])
                self.counted.append(count)
                body = f"{self.user}-{count}"
                self._stack.send(self.user, body)
                self.sent.append(body)

    def _count(self) -> Any:
        return self._emulator.dynamodb.update_item(
            TableName=self._stack.table,
            Key={"user_id": {"S": self.user}, "item": {"S": "count"}},
            UpdateExpression="ADD #count :one",
            ExpressionAttributeNames={"#count": "count"},
            ExpressionAttributeValues={":one": {"N": "1"}},
            ReturnValues="ALL_NEW",
        )["Attributes"]


def test_kills_under_load_lose_nothing(emulator: Emulator, stack: Stack) -> None:
    random = Random(20261128)
    loads = [Load(emulator, stack, f"user{number}") for number in range(4)]
    for load in loads:
        load.thread.start()
    for _ in range(4):
        time.sleep(random.uniform(0.2, 0.8))
        os.kill(emulator.process.pid, signal.SIGKILL)
        emulator.process.wait()
        emulator.start()
    time.sleep(0.3)
    for load in loads:
        load.stopping.set()
    for load in loads:
        load.thread.join(30)
    received: list[str] = []
    while messages := stack.receive():
        received += bodies(messages)
        for message in messages:
            stack.delete(message)
    items = stack.items()
    for load in loads:
        # Every count was given once, in order, and the last one is stored.
        assert load.counted == sorted(set(load.counted))
        assert int(items[load.user, "count"]["count"]["N"]) >= load.counted[-1]
        of_user = [body for body in received if body.startswith(f"{load.user}-")]
        assert len(set(of_user)) == len(of_user)
        assert [body for body in of_user if body in set(load.sent)] == load.sent
    assert sum(len(load.sent) for load in loads) > 100


#: Two items expire: MiniStack's own thread removes both, while a call changes one of them.
EXPIRY = """
import asyncio, sys, threading
from pathlib import Path
from local.emulator import _set_environment
_set_environment("1")
from ministack.services import dynamodb
from local.ministack_state import MinistackState
from local.state_file import StateFile

async def main():
    file = StateFile(Path(sys.argv[1]))
    state = MinistackState(file)
    state.restore(Path(sys.argv[1]).parent)
    table = {"TableName": "table", "pk_name": "user", "sk_name": None, "items": {}}
    dynamodb._tables["table"] = table
    for user in ("expired", "changed"):
        dynamodb._set_item(table, user, "-", {"user": {"S": user}})
    def expire():
        for user in ("expired", "changed"):
            dynamodb._remove_item(table, user, "-")
    thread = threading.Thread(target=expire)
    thread.start()
    thread.join()
    dynamodb._set_item(table, "changed", "-", {"user": {"S": "changed"}, "again": {"S": "yes"}})
    await asyncio.sleep(0)
    assert state.is_call_stored("")
    print(*table["items"], *(key for (key,) in file.rows("SELECT key FROM items")))

asyncio.run(main())
"""


def test_an_item_that_changes_while_it_expires_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EXPIRY, str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == 'changed ["changed", "-"]'
