"""The client for the hot calls: its signatures, its connections, its errors and its retries."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from chalicelib.aws import client as aws
from chalicelib.aws.signed_client import RETRY_COST, RETRY_TOKENS, Credentials, SignedClient, Signer
from tests.receiver import Got, NoReplyError, Receiver, Reply, raw_server

ROOT = Path(__file__).parents[2]
DATE = "20150830T123600Z"
#: From AWS's own test suite for Signature Version 4: method, headers, body, signature.
VECTORS = {
    "get-vanilla": ("GET", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "post-vanilla": ("POST", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "post-x-www-form-urlencoded": (
        "POST",
        {"content-type": "application/x-www-form-urlencoded"},
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    "get-header-value-trim": (
        "GET",
        {"my-header1": " value1", "my-header2": ' "a   b   c"'},
        b"",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "post-sts-header-before": (
        "POST",
        {
            "x-amz-security-token": "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAe"
            "MicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5V"
            "SXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9K"
            "SYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
        },
        b"",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_signature_is_the_published_one(name: str) -> None:
    method, headers, body, signature = VECTORS[name]
    signer = Signer("service", "us-east-1", Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
    signed = dict(sorted({"host": "example.amazonaws.com", "x-amz-date": DATE, **headers}.items()))
    scope = "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    expected = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders={';'.join(signed)}, Signature={signature}"
    assert signer.authorization(method, "/", signed, body) == expected


@pytest.mark.parametrize("token", ["", "a/temporary+token=="])
@pytest.mark.parametrize(("service", "target"), [("dynamodb", "DynamoDB_20120810.GetItem"), ("sqs", "AmazonSQS.X")])
def test_request_is_signed_as_botocore_signs_it(service: str, target: str, token: str) -> None:
    body, host = b'{"TableName":"t"}', f"{service}.eu-west-1.amazonaws.com"
    head = Signer(service, "eu-west-1", Credentials("AKID", "secret", token)).head(host, target, body, 1_440_938_160)
    first, *lines = head.decode().rstrip().split("\r\n")
    sent = dict(line.split(": ", 1) for line in lines)
    assert first == "POST / HTTP/1.1"
    assert sent["content-length"] == str(len(body))
    names = sent["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest("POST", f"https://{host}/", {name: sent[name] for name in names if name != "host"}, body)
    request.context["timestamp"] = sent["x-amz-date"]
    botocore = SigV4Auth(BotoCredentials("AKID", "secret", token or None), service, "eu-west-1")
    to_sign = botocore.string_to_sign(request, botocore.canonical_request(request))
    assert sent["authorization"].endswith(f"Signature={botocore.signature(to_sign, request)}")
    assert sent.get("x-amz-security-token", "") == token


def test_a_request_of_the_next_day_changes_no_other_ones_key() -> None:
    class Interrupted(Signer):
        """Another thread signs for the next day just when this one has stored its key."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "_key" and value[0] == "20150830":
                self._key_of("20150831")

    made = [kind("sqs", "eu-west-1", Credentials("AKID", "secret")) for kind in (Signer, Interrupted)]
    first, second = (signer.head("h", "AmazonSQS.X", b"{}", 1_440_938_160) for signer in made)
    assert first == second


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SignedClient]:
    """Makes a client of a service at some URL; a pause between two tries takes no time."""

    def make(url: str, service: str = "dynamodb", **options: Any) -> SignedClient:
        made = aws.client(service, url, aws.ClientOptions(**{"read_timeout": 0.5, **options}))
        assert isinstance(made, SignedClient)
        return made

    return make


def answering(*replies: Reply) -> Callable[[Got], Reply]:
    """Gives these replies one after the other, the last one from then on."""
    every = itertools.chain(replies, itertools.repeat(replies[-1]))
    return lambda _: next(every)


def as_json(status: int, value: Any, **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): text for name, text in headers.items()}, json.dumps(value).encode())


def test_answer_is_as_botocore_gives_it(make: Callable[..., SignedClient]) -> None:
    with Receiver(answering(as_json(200, {"Item": {"a": {"S": "é"}}}, x_amzn_RequestId="r1"))) as receiver:
        answer = make(receiver.url("")).get_item(TableName="t", Key={"user_id": {"S": "ü"}})
    assert answer["Item"] == {"a": {"S": "é"}}
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    [got] = receiver.got
    assert got.headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert json.loads(got.body) == {"TableName": "t", "Key": {"user_id": {"S": "ü"}}}


def test_failed_condition_gives_the_item(make: Callable[..., SignedClient]) -> None:
    value = {"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "message": "no", "Item": {}}
    with Receiver(answering(as_json(400, value))) as receiver, pytest.raises(ClientError) as caught:
        make(receiver.url("")).update_item(TableName="t")
    assert aws.error_code(caught.value) == "ConditionalCheckFailedException"
    assert caught.value.response["Item"] == {}  # type: ignore[typeddict-item]
    assert len(receiver.got) == 1, "it is an answer, no fault"


def test_sqs_gives_the_error_code_of_its_older_protocol(make: Callable[..., SignedClient]) -> None:
    value = {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no"}
    reply = as_json(400, value, x_amzn_query_error="AWS.SimpleQueueService.NonExistentQueue;Sender")
    with Receiver(answering(reply)) as receiver, pytest.raises(ClientError) as caught:
        make(receiver.url(""), "sqs").send_message(QueueUrl="q", MessageBody="x")
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert receiver.got[0].headers["x-amzn-query-mode"] == "true"


@pytest.mark.parametrize(
    "reply",
    [
        as_json(500, {"__type": "InternalServerError"}),
        Reply(503, {}, b"<html>not JSON</html>"),
        as_json(400, {"__type": "x#ThrottlingException"}),
        as_json(400, {"__type": "x#ProvisionedThroughputExceededException"}),
    ],
)
def test_passing_error_is_tried_once_more(make: Callable[..., SignedClient], reply: Reply) -> None:
    with Receiver(answering(reply, as_json(200, {"ok": 1}))) as receiver:
        assert make(receiver.url("")).put_item(TableName="t")["ok"] == 1
    assert len(receiver.got) == 2
    with Receiver(answering(reply)) as receiver, pytest.raises(ClientError):
        make(receiver.url("")).put_item(TableName="t")
    assert len(receiver.got) == aws.TRIES


def test_other_errors_are_not_tried_again(make: Callable[..., SignedClient]) -> None:
    reply = as_json(400, {"__type": "x#ValidationException", "message": "wrong"})
    with Receiver(answering(reply)) as receiver, pytest.raises(ClientError, match="wrong"):
        make(receiver.url("")).put_item(TableName="t")
    assert len(receiver.got) == 1


def test_lost_answer_is_tried_again_but_a_batch_of_writes_is_not(make: Callable[..., SignedClient]) -> None:
    lost = itertools.chain([True], itertools.repeat(False))

    def lose_one(_: Got) -> Reply:
        if next(lost):
            raise NoReplyError
        return as_json(200, {"ok": 1})

    with Receiver(lose_one) as receiver:
        assert make(receiver.url("")).update_item(TableName="t")["ok"] == 1
    lost = itertools.repeat(True)
    with Receiver(lose_one) as receiver:
        client = make(receiver.url(""))
        with pytest.raises(aws.NotRepeatedError):
            client.batch_write_item(RequestItems={})
        assert len(receiver.got) == 1
        with pytest.raises(ConnectionClosedError):
            client.update_item(TableName="t")


@contextmanager
def closing_after_each(body: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server that keeps the connection open by its answer, and closes it all the same; counts connections."""
    import socket
    import threading

    server, accepted = socket.create_server(("127.0.0.1", 0)), list[int]()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            accepted.append(1)
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", accepted
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_connection_that_the_server_closed_is_not_used_again(make: Callable[..., SignedClient]) -> None:
    with closing_after_each(b'{"ok":1}') as (url, accepted):
        client = make(url, tries=1)
        for _ in range(3):
            assert client.get_item(TableName="t")["ok"] == 1
            time.sleep(0.05)  # the server's close arrives
    assert len(accepted) == 3


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b'5;x=y\r\n{"ok"\r\n', b"3\r\n:1}\r\n", b"0\r\n\r\n"


@pytest.mark.parametrize("chunks", [CHUNKED, (b"".join(CHUNKED),), tuple(bytes([c]) for c in b"".join(CHUNKED))])
def test_answer_in_chunks_is_read_whole(make: Callable[..., SignedClient], chunks: tuple[bytes, ...]) -> None:
    with raw_server(*chunks) as port:
        assert make(f"http://127.0.0.1:{port}", read_timeout=5).get_item(TableName="t")["ok"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 abc OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n<html>hello</>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
    ],
)
def test_broken_answer_is_a_passing_fault(make: Callable[..., SignedClient], answer: bytes) -> None:
    with raw_server(answer) as port, pytest.raises(HTTPClientError):
        make(f"http://127.0.0.1:{port}", tries=1).get_item(TableName="t")


def test_refused_and_silent_servers_are_told_apart(make: Callable[..., SignedClient]) -> None:
    with pytest.raises(EndpointConnectionError):
        make("http://127.0.0.1:1", tries=1).get_item(TableName="t")
    with raw_server(pause_seconds=5) as port, pytest.raises((ReadTimeoutError, ConnectionClosedError)):
        make(f"http://127.0.0.1:{port}", tries=1, read_timeout=0.1).get_item(TableName="t")


def test_outage_spends_the_second_tries(make: Callable[..., SignedClient]) -> None:
    from chalicelib.aws.signed_client import RetryQuota

    quota, error = RetryQuota(), EndpointConnectionError(endpoint_url="x")
    taken = sum(quota.take(error) for _ in range(1_000))
    assert taken == RETRY_TOKENS // RETRY_COST
    for _ in range(RETRY_COST):
        quota.give_back(attempt=1)
    assert quota.take(error)
    assert not quota.take(error)


def test_other_operations_are_left_to_boto3(make: Callable[..., SignedClient]) -> None:
    with Receiver(answering(as_json(200, {"TableNames": ["a"]}))) as receiver:
        assert make(receiver.url("")).list_tables()["TableNames"] == ["a"]
    assert receiver.got[0].headers["user-agent"].startswith("paceline")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "mine"),
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("HTTPS_PROXY", "http://127.0.0.1:3128"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9"),
        ("AWS_DEFAULT_REGION", "cn-north-1"),
    ],
)
def test_what_only_boto3_understands_is_left_to_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "")
    monkeypatch.setenv("HOME", "/nonexistent")
    made = aws.client("sqs", None)
    assert isinstance(made, SignedClient)
    assert made._connections.authority == "sqs.us-east-1.amazonaws.com"
    if name == "AWS_PROFILE":
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv(name, value)
        with pytest.raises(aws.UnavailableError, match="mine"):
            aws.client("sqs", None)
        return
    monkeypatch.setenv(name, value)
    assert not isinstance(aws.client("sqs", None), SignedClient)


def test_boto3_is_not_imported_for_a_submit_and_a_health_check() -> None:
    code = (
        "import sys, app; from chalicelib.container import container; parts = container(); "
        "_ = (parts.submitter, parts.idempotency, parts.worker, *parts.check_health()); "
        "sys.exit('boto3' in sys.modules)"
    )
    urls = ("QUEUE_URL", "DEAD_LETTER_URL", "SCHEDULED_QUEUE_URL")
    env = {**os.environ, "TABLE_NAME": "t", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", **dict.fromkeys(urls, "http://q")}
    assert subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=False).returncode == 0
