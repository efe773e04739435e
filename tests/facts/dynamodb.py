"""The answers and errors of DynamoDB's writes."""

from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from tests.facts.fact import EMULATORS, Facts

fact = Facts("DynamoDB", "dynamodb/test_dynamodb.py", EMULATORS)

FRED = {"id": {"S": "fred"}}
KINDS = ("HASH", "RANGE")


class Tables:
    def __init__(self, client: Any) -> None:
        self.client = client
        self._names: list[str] = []

    def make(self, *keys: str) -> str:
        """The name of a new table."""
        name = f"fact-{uuid4().hex[:12]}"
        self.client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, KINDS, strict=False)],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        )
        self._names.append(name)
        self.client.get_waiter("table_exists").wait(TableName=name)
        return name

    def with_fred(self) -> str:
        name = self.make("id")
        self.client.put_item(TableName=name, Item=FRED | {"price": {"N": "650"}})
        return name

    def remove(self) -> None:
        for name in self._names:
            self.client.delete_table(TableName=name)


def _error(call: Any, **parameters: Any) -> dict[str, Any]:
    try:
        call(**parameters)
    except ClientError as error:
        return dict(error.response)
    raise AssertionError("the call was accepted")


def _as_text(error: dict[str, Any]) -> str:
    return f"{error['Error']['Code']}: {error['Error']['Message']}"


@fact(
    ["ConditionalCheckFailedException: The conditional request failed", "fred at 650"],
    "test_return_values_on_conditions_check_failure",
)
def a_failed_condition_answers_with_the_item_if_asked_to(tables: Tables) -> list[str]:
    table = tables.with_fred()
    error = _error(
        tables.client.delete_item,
        TableName=table,
        Key=FRED,
        ConditionExpression="price between :low and :high",
        ExpressionAttributeValues={":low": {"N": "500"}, ":high": {"N": "600"}},
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    item = error.get("Item")
    return [_as_text(error), f"{item['id']['S']} at {item['price']['N']}" if item else "no item"]


@fact(["200", "{}"], "test_batch_write_items")
def a_batch_write_lists_the_unprocessed_requests_and_lists_none_when_all_are_written(tables: Tables) -> list[str]:
    table = tables.with_fred()
    requests = [{"DeleteRequest": {"Key": FRED}}, {"PutRequest": {"Item": {"id": {"S": "bob"}}}}]
    answer = tables.client.batch_write_item(RequestItems={table: requests})
    return [str(answer["ResponseMetadata"]["HTTPStatusCode"]), str(answer.get("UnprocessedItems"))]


@fact(
    "ValidationException: The provided key element does not match the schema",
    "test_batch_write_not_matching_schema",
)
def the_error_of_a_batch_write_without_the_key(tables: Tables) -> str:
    table = tables.make("id", "sort")
    requests = [{"PutRequest": {"Item": {"other": {"S": "hello"}}}}]
    return _as_text(_error(tables.client.batch_write_item, RequestItems={table: requests}))


@fact(
    "TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons"
    " [ConditionalCheckFailed, None]",
    "test_transaction_write_canceled",
)
def a_cancelled_transaction_gives_the_reason_of_each_write(tables: Tables) -> str:
    table = tables.with_fred()
    check = {"TableName": table, "Key": FRED, "ConditionExpression": "attribute_not_exists(id)"}
    delete = {"TableName": table, "Key": {"id": {"S": "bob"}}}
    writes = [{"ConditionCheck": check}, {"Delete": delete}]
    return _as_text(_error(tables.client.transact_write_items, TransactItems=writes))


@fact("ResourceNotFoundException: Requested resource not found", "test_batch_write_not_existing_table")
def the_error_of_a_write_to_a_table_that_does_not_exist(tables: Tables) -> str:
    writes = [{"Put": {"TableName": f"none-{uuid4().hex}", "Item": {}}}]
    return _as_text(_error(tables.client.transact_write_items, TransactItems=writes))
