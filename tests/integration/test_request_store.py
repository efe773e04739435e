"""The contract of request records, over every adapter."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.ports import RequestRecord, RequestStore
from tests.factories import NOW
from tests.integration.ports import Ports


@pytest.fixture
def requests(ports: Ports) -> RequestStore:
    return ports.requests


@pytest.fixture
def first(user: str) -> RequestRecord:
    return RequestRecord(user, "key", "fingerprint", "id-1", NOW, "owner-1")


def a_repeat(first: RequestRecord, **changed: Any) -> RequestRecord:
    return replace(first, first_id="id-2", begun_at=NOW + 60_000, owner="owner-2", **changed)


def test_first_request_is_served_under_its_own_ids(requests: RequestStore, first: RequestRecord) -> None:
    assert requests.begin(first, NOW - 30_000) == first


def test_repeat_of_a_request_under_way_is_not_served(requests: RequestStore, first: RequestRecord) -> None:
    requests.begin(first, NOW - 30_000)
    assert requests.begin(a_repeat(first), NOW) == first


def test_repeat_of_a_request_that_died_is_served_under_the_first_ids(
    requests: RequestStore, first: RequestRecord
) -> None:
    requests.begin(first, NOW - 30_000)
    taken_over = replace(a_repeat(first), first_id="id-1", is_repeat=True)
    assert requests.begin(a_repeat(first), NOW + 1) == taken_over


def test_another_request_with_the_key_takes_nothing_over(requests: RequestStore, first: RequestRecord) -> None:
    requests.begin(first, NOW - 30_000)
    assert requests.begin(a_repeat(first, fingerprint="other"), NOW + 1) == first


def test_answer_is_kept_and_nobody_serves_the_request_again(requests: RequestStore, first: RequestRecord) -> None:
    answer = {"status": 202, "body": {"task_ids": ["id-1"], "title": "é"}}
    requests.begin(first, NOW - 30_000)
    requests.finish(first, answer)
    assert requests.begin(a_repeat(first), NOW + 1) == replace(first, answer=answer)


def test_abandoned_request_is_served_at_once_under_the_first_ids(requests: RequestStore, first: RequestRecord) -> None:
    requests.begin(first, NOW - 30_000)
    requests.abandon(first)
    served = requests.begin(a_repeat(first), NOW - 30_000)
    assert (served.owner, served.first_id, served.is_repeat) == ("owner-2", "id-1", True)


def test_forgotten_request_is_as_good_as_new(requests: RequestStore, first: RequestRecord) -> None:
    requests.begin(first, NOW - 30_000)
    requests.forget(first)
    assert requests.begin(a_repeat(first), NOW) == a_repeat(first)


@pytest.mark.parametrize("how", ["finish", "abandon", "forget"])
def test_who_lost_the_request_changes_nothing_of_it(requests: RequestStore, first: RequestRecord, how: str) -> None:
    requests.begin(first, NOW - 30_000)
    served = requests.begin(a_repeat(first), NOW + 1)
    getattr(requests, how)(first, *([{"status": 202}] if how == "finish" else []))
    assert requests.begin(replace(first, owner="owner-3"), NOW) == served


def test_keys_and_users_are_apart(requests: RequestStore, first: RequestRecord) -> None:
    others = [replace(first, key="other"), replace(first, user_id=f"{first.user_id}-2")]
    assert [requests.begin(one, NOW - 30_000) for one in (first, *others)] == [first, *others]
