"""Reads all pages of a query."""

from collections.abc import Iterator
from typing import Any

from chalicelib.aws.client import unavailable
from chalicelib.aws.dynamodb_expression import Item


def items_of(client: Any, query: Item, doing: str) -> Iterator[Item]:
    """Yields the items of every page, and reads a page when it is needed. doing: for the error where AWS is away."""
    start: Item = {}
    while True:
        with unavailable(doing):
            answer = client.query(**query, **start)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
