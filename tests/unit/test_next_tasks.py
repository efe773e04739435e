"""The tasks that a lane starts next: found behind the one that started last, so a long backlog is not read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chalicelib.core.lane import Lane, Lease
from chalicelib.core.task import TaskRecord
from chalicelib.lanes.next_tasks import next_to_start
from paceline.testing.memory.stores import MemoryTaskStore
from tests.factories import make_task, task_id_of


class CountedStore(MemoryTaskStore):
    def __init__(self) -> None:
        super().__init__()
        self.searches = 0

    def between(self, user_id: str, first_seq: int, last_seq: int, newest_seq: int | None) -> Sequence[TaskRecord]:
        self.searches += 1
        return super().between(user_id, first_seq, last_seq, newest_seq)


def seqs(lane: Lane, store: MemoryTaskStore, most: int = 3) -> list[int]:
    return [record.task.seq for record in next_to_start(lane, store, most)]


@pytest.fixture
def store() -> CountedStore:
    store = CountedStore()
    store.create_many([make_task(seq) for seq in range(1, 1_001)])
    return store


def lane_after(started: int) -> Lane:
    lease = Lease(task_id_of(started), 1, until=0, token="t")
    return Lane("ann", admitted=1_000, started_seq=started, running=lease)


def test_backlog_behind_the_newest_start_is_not_searched(store: CountedStore) -> None:
    assert seqs(lane_after(5), store) == [6, 7, 8]
    assert seqs(lane_after(999), store) == [1_000]
    assert seqs(lane_after(1_000), store) == []
    assert store.searches == 0


def test_task_with_an_older_id_is_found_by_a_search() -> None:
    """One that was scheduled has the id of its submit, and the seq of its time."""
    store = CountedStore()
    store.create_many([make_task(201, task_id="0197-0001"), *(make_task(seq) for seq in range(1, 201))])
    lane = Lane("ann", admitted=201, started_seq=200, running=Lease(task_id_of(200), 1, until=0, token="t"))
    assert seqs(lane, store) == [201]
    assert store.searches == 1


def test_lane_whose_newest_start_is_not_known_is_searched(store: CountedStore) -> None:
    assert seqs(Lane("ann", admitted=1_000, started_seq=990), store) == [991, 992, 993]
    assert store.searches == 1
