"""The answers and errors of DynamoDB's writes."""

from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from tests.facts.fact import EMULATORS, Facts

fact = Facts("DynamoDB", "dynamodb/test_dynamodb.py", EMULATORS)

FRED = {"id": {"S": "fred"}}


class Table:
    """A new table with the key `id`, which holds the item fred."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.name = f"fact-{uuid4().hex[:12]}"
        client.create_table(
            TableName=self.name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
        client.get_waiter("table_exists").wait(TableName=self.name)
        client.put_item(TableName=self.name, Item=FRED | {"price": {"N": "650"}})


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
def a_failed_condition_answers_with_the_item_if_asked_to(client: Any) -> list[str]:
    table = Table(client)
    error = _error(
        client.delete_item,
        TableName=table.name,
        Key=FRED,
        ConditionExpression="price between :low and :high",
        ExpressionAttributeValues={":low": {"N": "500"}, ":high": {"N": "600"}},
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    item = error.get("Item")
    return [_as_text(error), f"{item['id']['S']} at {item['price']['N']}" if item else "no item"]


@fact(["200", "{}"], "test_batch_write_items")
def a_batch_write_lists_the_unprocessed_requests_and_lists_none_when_all_are_written(client: Any) -> list[str]:
    table = Table(client)
    requests = [{"DeleteRequest": {"Key": FRED}}, {"PutRequest": {"Item": {"id": {"S": "bob"}}}}]
    answer = client.batch_write_item(RequestItems={table.name: requests})
    return [str(answer["ResponseMetadata"]["HTTPStatusCode"]), str(answer.get("UnprocessedItems"))]


@fact(
    "ValidationException: The provided key element does not match the schema",
    "test_batch_write_not_matching_schema",
)
def the_error_of_a_batch_write_without_the_key(client: Any) -> str:
    table = Table(client)
    requests = [{"PutRequest": {"Item": {"other": {"S": "hello"}}}}]
    return _as_text(_error(client.batch_write_item, RequestItems={table.name: requests}))


@fact(
    "TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons"
    " [ConditionalCheckFailed, None]",
    "test_transaction_write_canceled",
)
def a_cancelled_transaction_gives_the_reason_of_each_write(client: Any) -> str:
    table = Table(client)
    check = {"TableName": table.name, "Key": FRED, "ConditionExpression": "attribute_not_exists(id)"}
    delete = {"TableName": table.name, "Key": {"id": {"S": "bob"}}}
    writes = [{"ConditionCheck": check}, {"Delete": delete}]
    return _as_text(_error(client.transact_write_items, TransactItems=writes))


@fact("ResourceNotFoundException: Requested resource not found", "test_batch_write_not_existing_table")
def the_error_of_a_write_to_a_table_that_does_not_exist(client: Any) -> str:
    writes = [{"Put": {"TableName": f"none-{uuid4().hex}", "Item": {}}}]
    return _as_text(_error(client.transact_write_items, TransactItems=writes))
