"""The systems that end-to-end tests share, since starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.running import Paceline, running

#: More than a minute's quota for each of them, submitted at once.
PACED_USERS = ("minute-a", "minute-b", "minute-c")
PACED_TASKS = 22


@pytest.fixture(scope="session")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paceline]:
    """A system with the real limits and more than a minute's work, which goes on while other tests run."""
    with running(tmp_path_factory.mktemp("minute")) as paceline:
        answers = paceline.submit_all([user for user in PACED_USERS for _ in range(PACED_TASKS)])
        assert {answer.status for answer in answers} <= {202, 429}
        yield paceline


@pytest.fixture(scope="session")
def paceline(tmp_path_factory: pytest.TempPathFactory, minute: Paceline) -> Iterator[Paceline]:
    """A system with short limits. Every test brings users of its own."""
    with running(tmp_path_factory.mktemp("e2e"), LIMITS="3/second; 10/4 seconds", ALLOW_KILL="true") as paceline:
        yield paceline
