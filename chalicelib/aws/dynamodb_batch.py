"""Writes many items at once, in DynamoDB's batches."""

from collections.abc import Sequence
from typing import Any

from chalicelib.aws.client import NotRepeatedError, unavailable
from chalicelib.aws.dynamodb_expression import Item
from chalicelib.core.errors import UnavailableError

#: Items that one BatchWriteItem takes.
BATCH_WRITE = 25
#: Tries to write the items that a batch left unprocessed.
BATCH_TRIES = 4


def put_batch(client: Any, table_name: str, items: Sequence[Item], what: str) -> None:
    """Puts up to BATCH_WRITE items, not atomically. NotRepeatedError: some or all of them may be written."""
    _write_batch(client, table_name, [{"PutRequest": {"Item": item}} for item in items], what)


def delete_batch(client: Any, table_name: str, keys: Sequence[Item], what: str) -> None:
    """Deletes up to BATCH_WRITE items, not atomically. UnavailableError: some or all of them may be deleted."""
    try:
        _write_batch(client, table_name, [{"DeleteRequest": {"Key": key}} for key in keys], what)
    except NotRepeatedError as error:
        raise UnavailableError(f"{what}: {error}") from error


def _write_batch(client: Any, table_name: str, requests: Sequence[Item], what: str) -> None:
    for _ in range(BATCH_TRIES):
        with unavailable(what):
            answer = client.batch_write_item(RequestItems={table_name: requests})
        requests = answer.get("UnprocessedItems", {}).get(table_name, [])
        if not requests:
            return
    raise UnavailableError(f"{what}: {len(requests)} were not stored")
