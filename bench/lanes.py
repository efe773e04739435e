"""What each kind of limit costs a lane that is always full: its writes for a task, its item's bytes, write units."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from itertools import count

from bench.emulator import emulator
from bench.figures import Results
from chalicelib.aws.client import client
from chalicelib.aws.dynamodb_expression import LANE_ITEM, key
from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.aws.dynamodb_size import item_bytes, units_of_bytes
from chalicelib.core.admission import admit
from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import LEASE_MS, Lane
from chalicelib.core.limits import Limits, parse_limits
from chalicelib.core.ports import Stale, Write, Written
from chalicelib.submit.idempotency import ids_from

#: Limits, units of each task, tasks submitted at a time, milliseconds between these, and tasks in all.
KINDS = (
    ("1/second; 20/minute", 1, 1, 3_000, 200),
    ("500/minute", 1, 1, 120, 1_500),
    ("10000/day", 1, 100, 864_000, 10_200),
    ("500/minute; 10000/day", 1, 100, 864_000, 10_200),
    ("500/minute; 90000 units/minute", 180, 1, 120, 1_500),
)
#: Share of the tasks that only fill the lane.
FILLING = 0.85
NOW = 1_795_000_000_000
USER = "customer-4711@example.com"
FIRST_ID = "01a201c6-2ed8-78ae-98d6-419040bdc8e3"


def measure(*, quick: bool) -> Results:
    results = Results()
    for text, units, bulk, step_ms, tasks in KINDS[:2] if quick else KINDS:
        with emulator() as aws:
            os.environ.update(aws.environment)
            lane = _FullLane(parse_limits(text), units)
            print(f"Filling a lane with {text}", flush=True)
            lane.run(bulk, step_ms, tasks // 10 if quick else tasks)
        results.add(f"lane writes for a task, {text}", [lane.writes / lane.measured])
        results.add(f"bytes of the full lane, {text}", [statistics.mean(lane.sizes), max(lane.sizes)], "bytes")
        results.add(f"write units of a lane write, {text}", [statistics.mean(map(units_of_bytes, lane.sizes))])
    return results


class _FullLane:
    """One user's lane, driven as API and worker do: the quick write first, the exact one if it is refused."""

    def __init__(self, limits: Limits, units: int) -> None:
        self._client = client("dynamodb", os.environ["AWS_ENDPOINT_URL"])
        self._table = os.environ["TABLE_NAME"]
        self._lanes = DynamoDBLaneStore(self._client, self._table)
        self._limits = limits
        self._units = units
        self._now_ms = NOW
        #: as the last write left it; workers remember it too
        self._lane = Lane(USER)
        self._is_measured = False
        self.writes = 0
        self.measured = 0
        self.sizes: list[int] = []

    def run(self, bulk: int, step_ms: int, tasks: int) -> None:
        ids, seqs = iter(ids_from(FIRST_ID, tasks)), count(1)
        for first in range(0, tasks - bulk + 1, bulk):
            self._is_measured = first >= tasks * FILLING
            batch = [next(ids) for _ in range(bulk)]
            begun_ms = self._now_ms
            for task_id, planned_at in zip(batch, self._submit(batch), strict=True):
                self._start(Candidate(task_id, next(seqs), planned_at, units=self._units))
            self._now_ms = max(self._now_ms, begun_ms + step_ms)

    def _submit(self, ids: Sequence[str]) -> Iterator[int]:
        lane = Lane(USER)
        if len(ids) == 1:
            write = self._written(
                self._lanes.try_fast_admit(USER, self._limits, self._now_ms, ids[0], units=self._units)
            )
            if isinstance(write, Written):
                return iter([self._now_ms])
            lane = write.lane
        units = [self._units] * len(ids)
        while True:
            admission = admit(lane, self._limits, self._now_ms, ids[-1], len(ids), units)
            write = self._written(self._lanes.admit(lane, admission))
            if isinstance(write, Written):
                return iter(admission.planned)
            lane = write.lane

    def _start(self, task: Candidate) -> None:
        start = self._decided(self._lane, task)
        write = self._written(self._lanes.try_fast_claim(start, self._limits))
        if isinstance(write, Stale):
            start = self._decided(write.lane, task)
            write = self._written(self._lanes.claim(write.lane, start))
        assert isinstance(write, Written)
        self._now_ms = max(self._now_ms, start.at)
        self.measured += self._is_measured

    def _decided(self, lane: Lane, task: Candidate) -> Start:
        now_ms = max(self._now_ms, task.planned_at)
        decision = claim(lane, task, self._limits, now_ms, LEASE_MS, f"{task.task_id}-token")
        assert isinstance(decision, Start), decision
        return decision

    def _written(self, write: Write) -> Write:
        self._lane = write.lane
        if self._is_measured:
            self.writes += 1
            item = self._client.get_item(TableName=self._table, Key=key(USER, LANE_ITEM))["Item"]
            self.sizes.append(item_bytes(item))
        return write
