"""The next deployment after one whose creation failed, over moto."""

from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from infra.deploy.account import Account
from infra.deploy.errors import DeployError
from infra.deploy.failed import clear_failed, end_protection, queue_names
from infra.deploy.stages import read_stage

PROD = read_stage("prod")


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Account("123456789012", "us-east-1", None)


def make_table(account: Account) -> Any:
    client = account.client("dynamodb")
    client.create_table(
        TableName=PROD.full_name,
        BillingMode="PAY_PER_REQUEST",
        DeletionProtectionEnabled=True,
        AttributeDefinitions=[{"AttributeName": "user_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "user_id", "KeyType": "HASH"}],
    )
    return client


def is_protected(account: Account) -> bool:
    table = account.client("dynamodb").describe_table(TableName=PROD.full_name)["Table"]
    return bool(table["DeletionProtectionEnabled"])


DEAD = ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "REVIEW_IN_PROGRESS"]


@pytest.mark.parametrize("state", DEAD)
def test_an_empty_table_of_a_failed_creation_may_be_deleted(account: Account, state: str) -> None:
    """Its protection keeps CloudFormation from rolling back: prod could not be deployed again."""
    make_table(account)
    account.client("sqs").create_queue(QueueName="paceline-prod-later")
    clear_failed(account, PROD, state)
    assert not is_protected(account)


@pytest.mark.parametrize("state", DEAD)
def test_a_failed_creation_that_left_nothing_needs_nothing(account: Account, state: str) -> None:
    clear_failed(account, PROD, state)
    assert account.client("dynamodb").list_tables()["TableNames"] == []


def test_a_table_with_items_stays_and_the_error_says_how_to_go_on(account: Account) -> None:
    make_table(account).put_item(TableName=PROD.full_name, Item={"user_id": {"S": "ann"}})
    with pytest.raises(DeployError, match=r"the table paceline-prod holds data.*STAGE=prod DESTROY=prod.*deploy again"):
        clear_failed(account, PROD, "ROLLBACK_FAILED")
    assert is_protected(account)


@pytest.mark.parametrize("queue", queue_names(PROD))
def test_a_queue_with_messages_stays(account: Account, queue: str) -> None:
    make_table(account)
    sqs = account.client("sqs")
    fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if queue.endswith(".fifo") else {}
    url = sqs.create_queue(QueueName=queue, Attributes=fifo)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="a task", **({"MessageGroupId": "ann"} if fifo else {}))
    with pytest.raises(DeployError, match=f"the queue {queue} holds data"):
        clear_failed(account, PROD, "DELETE_FAILED")
    assert is_protected(account)


@pytest.mark.parametrize("state", [None, "CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE"])
def test_a_stack_that_can_be_updated_keeps_its_protection(account: Account, state: str | None) -> None:
    make_table(account)
    clear_failed(account, PROD, state)
    assert is_protected(account)


def test_a_roll_back_that_failed_is_to_be_continued(account: Account) -> None:
    with pytest.raises(DeployError, match="aws cloudformation continue-update-rollback --stack-name paceline-prod"):
        clear_failed(account, PROD, "UPDATE_ROLLBACK_FAILED")


def test_ending_the_protection_of_a_table_that_is_not_there_is_no_error(account: Account) -> None:
    end_protection(account, PROD)
