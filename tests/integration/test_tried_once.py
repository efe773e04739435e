"""Units given back to a shared limit have one try: the list of corrections may not show a second one that it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from chalicelib.aws import client as aws
from chalicelib.aws.dynamodb_shared_limits import DynamoDBSharedLimitStore
from chalicelib.aws.server_time import ServerTime
from chalicelib.core.errors import UnavailableError
from chalicelib.core.ports import Correction, SharedWritten
from tests.factories import NOW
from tests.receiver import Got, NoReplyError, Receiver, Reply

ITEM: Mapping[str, Any] = {"starts": {"L": [{"N": str(NOW)}]}, "corrected": {"L": [{"S": "first"}]}}


class LosesFirstAnswer:
    def __init__(self) -> None:
        self._is_lost = False

    def __call__(self, _: Got) -> Reply:
        if not self._is_lost:
            self._is_lost = True
            raise NoReplyError
        return Reply(200, {}, json.dumps({"Attributes": ITEM}).encode())


def store_at(url: str, is_boto3: bool) -> DynamoDBSharedLimitStore:
    return DynamoDBSharedLimitStore(aws.client("dynamodb", url, is_boto3=is_boto3), "t", ServerTime(lambda: NOW))


@pytest.mark.parametrize("is_boto3", [False, True])
def test_fewer_units_after_a_lost_answer_are_given_back_by_no_second_try(is_boto3: bool) -> None:
    with Receiver(LosesFirstAnswer()) as receiver:
        store, fewer = store_at(receiver.url(""), is_boto3), Correction("openai", "first", NOW, -40)
        with pytest.raises(UnavailableError):
            store.correct_units(fewer, NOW)
        assert len(receiver.got) == 1
        assert isinstance(store.correct_units(fewer, NOW), SharedWritten)


@pytest.mark.parametrize("is_boto3", [False, True])
def test_more_units_after_a_lost_answer_are_counted_by_a_second_try(is_boto3: bool) -> None:
    with Receiver(LosesFirstAnswer()) as receiver:
        more = Correction("openai", "first", NOW, 40)
        assert isinstance(store_at(receiver.url(""), is_boto3).correct_units(more, NOW), SharedWritten)
        assert len(receiver.got) == 2
