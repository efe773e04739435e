"""MiniStack answers the same with its parts tuned as without: random calls to two copies of its modules."""

import asyncio
import functools
import importlib.util
import json
import random
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from local.ministack_expressions import tune_expressions
from local.ministack_items import Partitions
from local.ministack_queues import index_groups, narrow_cleaning
from local.ministack_writes import tune_writes
from tests.integration.test_emulator_state import Emulator

Call = dict[str, Any]
SEEDS = range(12)
TABLE = "table"
QUEUE = "http://localhost:4566/000000000000/lanes.fifo"


def module(service: str) -> Any:
    """A new copy of one of MiniStack's modules."""
    spec = importlib.util.find_spec(f"ministack.services.{service}")
    assert spec is not None
    assert spec.loader is not None
    made: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def databases() -> tuple[Any, Any]:
    plain, tuned = module("dynamodb"), module("dynamodb")
    tune_expressions(tuned)
    tune_writes(tuned)
    return plain, tuned


def database(dynamodb: Any, items: Any) -> Any:
    keys = [{"AttributeName": "user", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    types = [{"AttributeName": name, "AttributeType": "S"} for name in ("user", "item", "listed")]
    listed = [{"AttributeName": "listed", "KeyType": "HASH"}, keys[0]]
    index = {"IndexName": "lists", "KeySchema": listed, "Projection": {"ProjectionType": "KEYS_ONLY"}}
    table = {"TableName": TABLE, "BillingMode": "PAY_PER_REQUEST", "KeySchema": keys, "AttributeDefinitions": types}
    dynamodb.reset()
    dynamodb._create_table({**table, "GlobalSecondaryIndexes": [index]})
    dynamodb._tables[TABLE]["items"] = items
    return dynamodb


def value(chance: random.Random, depth: int = 2) -> Call:
    kinds: list[Callable[[], Call]] = [
        lambda: {"N": str(chance.randint(-2, 3))},
        lambda: {"N": chance.choice(["1795900651000", "007", "1.0"])},
        lambda: {"N": f"{chance.random():.3f}e{chance.randint(-3, 3)}"},
        lambda: {"S": chance.choice(["", "a", "b", "é\u2028"])},
        lambda: {"BOOL": chance.random() < 0.5},
        lambda: {"SS": chance.sample(["x", "y", "z"], 2)},
        lambda: {"L": [value(chance, depth - 1) for _ in range(chance.randint(0, 3))]},
        lambda: {"M": {name: value(chance, depth - 1) for name in chance.sample("abc", 2)}},
    ]
    return chance.choice(kinds if depth else kinds[:5])()


def path(chance: random.Random) -> str:
    return chance.choice(["#a", "#b", "#c", "plain", "#a.#b", "#b[0]", "#b[1].#c", "#c.plain", "listed"])


def condition(chance: random.Random, depth: int = 3) -> str:
    if depth and chance.random() < 0.6:
        parts = [condition(chance, depth - 1) for _ in range(chance.randint(2, 3))]
        return chance.choice(["({})", "{}", "NOT ({})"]).format(chance.choice([" AND ", " OR "]).join(parts))
    left, right, sign = path(chance), f":v{chance.randint(0, 2)}", chance.choice(["=", "<>", "<", "<=", ">", ">="])
    usual = [
        f"attribute_exists({left})",
        f"attribute_not_exists({left})",
        f"{left} {sign} {chance.choice([right, path(chance)])}",
    ]
    return chance.choice(
        usual * 10
        + [
            f"begins_with({left}, {right})",
            f"size({left}) > {right}",
            f"{left} BETWEEN :v0 AND :v1",
            f"{left} IN ({right}, :v0)",
            f"(({left} = {right}))",
            f"{left} = size",
        ]
    )


def update(chance: random.Random) -> str:
    given = [f":v{n}" for n in range(3)]
    rights = [*given, "if_not_exists(#a, :v0)", "list_append(:v1, if_not_exists(#b, :v2))", "#a + :v0", path(chance)]
    texts = [f"SET {path(chance)} = {chance.choice(rights)}, #c = {chance.choice(rights)}"]
    texts.append(chance.choice([f"ADD {path(chance)} :v0", f"REMOVE {path(chance)}", "DELETE #b :v1", ""]))
    return " ".join(chance.sample(texts, 2)).strip()


def used(call: Call, names: Call, values: Call) -> Call:
    """The call, with most of the names and values that its texts have."""
    text = " ".join(str(call.get(field, "")) for field in ("ConditionExpression", "UpdateExpression"))
    found = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    chosen = {field: {name: one for name, one in given.items() if name in text} for field, given in found.items()}
    return call | {field: given for field, given in chosen.items() if given}


def calls(chance: random.Random) -> Iterator[tuple[str, Call]]:
    conditions, updates = [condition(chance) for _ in range(15)], [update(chance) for _ in range(15)]
    names = {"#a": "alpha", "#b": "beta", "#c": "gamma"}
    for _ in range(150):
        key = {"user": {"S": chance.choice("uv")}, "item": {"S": chance.choice("xy")}}
        values = {f":v{n}": value(chance) for n in range(3)}
        call: Call = {"TableName": TABLE, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if chance.random() < 0.6:
            call["ConditionExpression"] = chance.choice(conditions)
        kind = chance.choice(["_update_item", "_update_item", "_put_item", "_delete_item", "_get_item"])
        if kind == "_put_item":
            call["Item"] = {**key, **{name: value(chance) for name in chance.sample([*names.values(), "plain"], 3)}}
        elif kind == "_get_item":
            call = {"TableName": TABLE}
        if kind == "_update_item":
            call |= {"UpdateExpression": chance.choice(updates), "ReturnValues": chance.choice(["ALL_NEW", "ALL_OLD"])}
        call = used(call if "Item" in call else {**call, "Key": key}, names, values)
        yield kind, {**call, **spoiled(chance, call)} if chance.random() < 0.1 else call
    yield (
        "_query",
        {"TableName": TABLE, "IndexName": "lists", "KeyConditionExpression": "listed = :a"}
        | {"ExpressionAttributeValues": {":a": {"S": "a"}}},
    )


def spoiled(chance: random.Random, call: Call) -> Call:
    """A field that makes the call unusual or wrong."""
    field = chance.choice([*call, "ReturnConsumedCapacity", "Expected"])
    deep = functools.reduce(lambda inner, _: {"L": [inner]}, range(chance.choice([19, 30, 40, 70])), {"S": "a"})
    large = {"S": "a" * chance.choice([200_000, 300_000, 410_000])}
    keys = [{"S": ""}, {"S": "a" * 1_025}, {"N": "1"}, {"S": "a", "N": "1"}]
    parts: list[Any] = [deep, large, *keys, {"N": "x"}, {"S": 1}, {"SS": []}, {"S": "\ud83d\ude00"}, {}, None]
    if field == "ExpressionAttributeNames":
        parts = ["alpha", "user", ""]
    given = call.get(field)
    if isinstance(given, dict) and given and chance.random() < 0.8:
        return {field: {**given, chance.choice([*given, "more"]): chance.choice(parts)}}
    return {field: chance.choice(["", " ", "WRONG", "TOTAL", "ALL_OLD", "SET", {}, None])}


def answer(dynamodb: Any, kind: str, call: Call) -> Any:
    try:
        status, _, body = getattr(dynamodb, kind)(json.loads(json.dumps(call)))
    except Exception as error:  # noqa: BLE001 - the emulator's 500
        return type(error), str(error)
    return status, json.loads(body)


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_of_items(databases: tuple[Any, Any], seed: int) -> None:
    plain, tuned = database(databases[0], {}), database(databases[1], Partitions())
    statuses = set()
    for kind, call in calls(random.Random(seed)):
        expected = answer(plain, kind, call)
        assert answer(tuned, kind, call) == expected, (kind, call)
        statuses.add(expected[0])
    assert statuses >= {200, 400}
    kept = plain._tables[TABLE]["items"]
    assert {user: dict(items) for user, items in kept.items() if items} == {
        user: dict(items.items()) for user, items in tuned._tables[TABLE]["items"].items() if items
    }


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


def queues(dead: str, *, is_tuned: bool) -> tuple[Any, Clock]:
    sqs, clock, handles = module("sqs"), Clock(), count()
    sqs.time, sqs.new_uuid = SimpleNamespace(time=clock.time), lambda: f"handle-{next(handles)}"
    if is_tuned:
        index_groups(sqs)
        narrow_cleaning(sqs)
    create = sqs._HANDLERS["CreateQueue"]
    create({"QueueName": dead, "Attributes": {"MessageRetentionPeriod": "60"}}, "")
    target = {"deadLetterTargetArn": f"arn:aws:sqs:us-east-1:000000000000:{dead}", "maxReceiveCount": 3}
    create(
        {
            "QueueName": "lanes.fifo",
            "Attributes": {"RedrivePolicy": json.dumps(target), "MessageRetentionPeriod": "600"},
        },
        "",
    )
    return sqs, clock


def ask(sqs: Any, action: str, call: Call) -> Any:
    try:
        found = sqs._HANDLERS[action](call, QUEUE)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found
    except sqs._Err as error:
        return error.code, error.message


def message_calls(chance: random.Random, handles: list[str], dead: str) -> tuple[str, Call]:
    def handle() -> str:
        return chance.choice(handles[-12:]) if handles and chance.random() < 0.9 else "handle-unknown"

    entries = [{"Id": str(n), "ReceiptHandle": handle(), "VisibilityTimeout": chance.randint(0, 9)} for n in range(3)]
    group = {"MessageBody": "body", "MessageGroupId": chance.choice("abcd")}
    kinds: list[tuple[str, Call]] = [
        ("SendMessage", {**group, "MessageDeduplicationId": str(chance.randint(0, 300))}),
        ("SendMessage", {**group, "MessageDeduplicationId": str(chance.randint(0, 3_000))}),
        ("ReceiveMessage", {"MaxNumberOfMessages": chance.randint(1, 10), "VisibilityTimeout": chance.randint(0, 9)}),
        ("ReceiveMessage", {"AttributeNames": ["All"]}),
        ("DeleteMessage", entries[0]),
        ("DeleteMessageBatch", {"Entries": entries}),
        ("ChangeMessageVisibility", entries[0]),
        ("ChangeMessageVisibilityBatch", {"Entries": entries}),
        ("GetQueueAttributes", {"AttributeNames": ["All"]}),
        ("GetQueueAttributes", {"AttributeNames": ["All"], "QueueUrl": QUEUE.replace("lanes.fifo", dead)}),
        ("ReceiveMessage", {"QueueUrl": QUEUE.replace("lanes.fifo", dead)}),
        ("SetQueueAttributes", {"Attributes": {"DelaySeconds": str(chance.choice([0, 0, 0, 2]))}}),
    ]
    weights = [6, 6, 6, 6, 3, 1, 2, 1, 1, 1, 1, 0.2]
    return chance.choices(kinds, weights)[0]


@pytest.mark.parametrize("dead", ["dead", "dead.fifo"])
@pytest.mark.parametrize("seed", SEEDS)
def test_calls_of_messages(seed: int, dead: str) -> None:
    (plain, plain_clock), (tuned, tuned_clock) = (queues(dead, is_tuned=is_tuned) for is_tuned in (False, True))
    chance, handles, received = random.Random(seed), list[str](), 0
    for _ in range(600):
        plain_clock.now = tuned_clock.now = plain_clock.now + chance.choice(
            [0, 0, 0.5, 1, 4, 30 * (chance.random() < 0.05)]
        )
        action, call = message_calls(chance, handles, dead)
        found = ask(plain, action, call)
        assert ask(tuned, action, call) == found, (action, call)
        messages = found.get("Messages", ()) if isinstance(found, dict) else ()
        handles += [message["ReceiptHandle"] for message in messages]
        received += len(messages)
    assert received > 100
    for url in (QUEUE, QUEUE.replace("lanes.fifo", dead)):
        assert [dict(one) for one in tuned._get_q(url)["messages"]] == plain._get_q(url)["messages"]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    emulator = Emulator(tmp_path_factory.mktemp("emulator"))
    emulator.start()
    emulator.sqs.create_queue(QueueName="lanes.fifo", Attributes={"FifoQueue": "true"})
    emulator.dynamodb.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "user", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "user", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield emulator
    emulator.kill()


KEY = {"user": {"S": "ann"}}
SEND: Call = {"QueueUrl": QUEUE, "MessageBody": "é\u2028", "MessageGroupId": "ann"}


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("DynamoDB_20120810.PutItem", {"TableName": TABLE, "Item": {**KEY, "text": {"S": "é\ud83d\ude00\u2028"}}}),
        ("DynamoDB_20120810.GetItem", {"TableName": TABLE, "Key": KEY}),
        ("DynamoDB_20120810.GetItem", {"TableName": TABLE, "Key": {}}),
        ("DynamoDB_20120810.GetItem", {"TableName": "absent", "Key": KEY}),
        ("DynamoDB_20120810.UpdateItem", {"TableName": TABLE, "Key": KEY, "UpdateExpression": "WRONG"}),
        ("DynamoDB_20120810.Scan", {"TableName": TABLE, "ReturnConsumedCapacity": "TOTAL"}),
        ("DynamoDB_20120810.Query", "{"),
        ("DynamoDB_20120810.GetItem", "[]"),
        ("AmazonSQS.SendMessage", SEND),
        ("AmazonSQS.SendMessage", {**SEND, "QueueUrl": QUEUE + "-absent"}),
        ("AmazonSQS.DeleteMessage", {"QueueUrl": QUEUE, "ReceiptHandle": "unknown"}),
        ("AmazonSQS.DeleteMessageBatch", {"QueueUrl": QUEUE, "Entries": []}),
        ("AmazonSQS.ReceiveMessage", {"QueueUrl": QUEUE, "MaxNumberOfMessages": 11}),
        ("AmazonSQS.GetQueueAttributes", "{"),
    ],
)
def test_short_way_of_a_call_and_the_usual_one(emulator: Emulator, target: str, body: Any) -> None:
    """A request that says how it is encoded takes MiniStack's usual way."""
    short, usual = (send(emulator, target, body, headers) for headers in ({}, {"Content-Encoding": "identity"}))
    assert "access-control-allow-origin" not in short.headers
    assert short.status == usual.status
    assert short.json == usual.json
    for name in ("content-type", "x-amz-crc32", "x-amzn-errortype", "x-amzn-query-error", "date"):
        assert (name in short.headers) == (name in usual.headers), name
    assert short.headers["content-type"] == usual.headers["content-type"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin", "Host": "localhost"},
        {"Host": "evil.example"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("OPTIONS", "/"),
        ("POST", "/"),
        ("GET", "/?Action=ListQueues"),
        ("GET", "/2015-03-31/functions/"),
    ],
)
def test_a_web_page_may_call_nothing(emulator: Emulator, method: str, path: str, headers: Mapping[str, str]) -> None:
    connection = HTTPConnection("127.0.0.1", emulator.port)
    connection.request(method, path, "Action=ListQueues" if method == "POST" else None, dict(headers))
    with closing(connection):
        answer = connection.getresponse()
        assert answer.status == 403
        assert answer.getheader("Access-Control-Allow-Origin") is None


def test_a_web_page_may_make_no_call_that_takes_the_short_way(emulator: Emulator) -> None:
    connection = HTTPConnection("127.0.0.1", emulator.port)
    credential = "AWS4-HMAC-SHA256 Credential=test/20261128/us-east-1/any/aws4_request, Signature=0"
    headers = {"X-Amz-Target": "AmazonSQS.SendMessage", "Authorization": credential, "Sec-Fetch-Site": "cross-site"}
    connection.request("POST", "/", json.dumps(SEND), headers)
    with closing(connection):
        assert connection.getresponse().status == 403


class Sent:
    def __init__(self, answer: HTTPResponse) -> None:
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        self.json = json.loads(answer.read())


def send(emulator: Emulator, target: str, body: Any, headers: Mapping[str, str]) -> Sent:
    if isinstance(body, dict) and "MessageGroupId" in body:
        body = {**body, "MessageDeduplicationId": "1"}  # the second call gets the first one's id
    text = body if isinstance(body, str) else json.dumps(body)
    credential = "AWS4-HMAC-SHA256 Credential=test/20261128/us-east-1/any/aws4_request, Signature=0"
    connection = HTTPConnection("127.0.0.1", emulator.port)
    connection.request("POST", "/", text, {"X-Amz-Target": target, "Authorization": credential, **headers})
    with closing(connection):
        return Sent(connection.getresponse())


def test_short_call_in_parts(emulator: Emulator) -> None:
    body = json.dumps({"TableName": TABLE, "Key": KEY})
    head = (
        "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\nAuthorization: AWS4-HMAC-SHA256 "
        "Credential=test/20261128/us-east-1/any/aws4_request, Signature=0\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    text = head + "".join(f"{len(part):x}\r\n{part}\r\n" for part in (body[:7], body[7:])) + "0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", emulator.port)) as connection:
        for part in (text[:40], text[40:300], text[300:]):
            connection.sendall(part.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
