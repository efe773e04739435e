"""Lists lanes with the sums over them and the newest finished tasks, for the dashboard.

Only reads: at most MAX_RANKED lanes, the newest task of MAX_TASKS of them, and TASKS_OF_LANE tasks of RECENT_LANES.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.lane import Lane
from chalicelib.core.ports import Backlog, Clock, LaneDirectory, SharedLimitStore
from chalicelib.core.task import TaskRecord, TaskState
from chalicelib.core.views import LaneView, slots_in_use, view_of_lane
from chalicelib.lanes.shared import SharedStates
from chalicelib.settings import Settings

#: Lanes that a request for the busiest ones reads: the first of them by user id.
MAX_RANKED = 500
#: Tasks that a request reads: the newest ones of lanes that started a task lately.
MAX_TASKS = 200
#: A lane's newest task is read if it started within this, milliseconds.
RECENT_MS = 60_000
#: Lanes whose newest tasks a request reads, one query each: those that started a task last, however long ago.
RECENT_LANES = 12
#: Newest tasks that are read of each of them.
TASKS_OF_LANE = 20
#: Newest finished tasks in an answer, and older failed ones beside them.
MAX_COMPLETIONS = 20
MAX_OLDER_FAILURES = 10
#: Period over which starts per second are counted, milliseconds.
RATE_MS = 10_000


class Completion(Struct, frozen=True):
    """A finished task."""

    record: TaskRecord
    #: milliseconds after its planned start; None if that was planned anew or a retry started the task
    late_ms: int | None

    @property
    def at(self) -> int:
        return self.record.outcome.completed_at if self.record.outcome else 0


class Totals(Struct, frozen=True):
    """Sums over the lanes that a request read."""

    lanes: int
    #: the request read all lanes of the search and the newest task of each lane that started one lately
    complete: bool
    waiting: int
    running: int
    paused: int
    starts_per_second: float
    #: the median of the completions of the last minute, milliseconds after the planned start; None without any
    late_ms: int | None
    worst_late_ms: int | None


class LanePage(Struct, frozen=True):
    lanes: Sequence[LaneView]
    totals: Totals
    #: newest first
    completions: Sequence[Completion]
    #: the user id after which the next page begins; None on the last page
    next_cursor: str | None
    now_ms: int


class Overview:
    def __init__(
        self,
        directory: LaneDirectory,
        clock: Clock,
        settings: Settings,
        shared_limits: SharedLimitStore | None = None,
    ) -> None:
        """shared_limits: None in a deployment without any."""
        self._shared_limits = shared_limits
        self._directory = directory
        self._clock = clock
        self._settings = settings

    def page(self, search: str, limit: int, after: str, is_ranked: bool) -> LanePage:
        """Up to `limit` lanes whose user id begins with `search`.

        They are in order of user ids, those after `after`, so that a reader of all pages gets each lane once. With
        is_ranked they are the busiest of the first MAX_RANKED lanes, the longest backlog first, on one page.
        """
        wanted = MAX_RANKED if is_ranked else limit
        user_ids = self._directory.user_ids(search, after, wanted + 1)
        has_more = len(user_ids) > wanted
        now_ms = self._clock.now_ms()
        lanes = sorted(
            self._directory.lanes(user_ids[:wanted]), key=_by_activity if is_ranked else lambda lane: lane.user_id
        )
        moving = [lane for lane in lanes if _moved_at(lane) > now_ms - RECENT_MS or lane.in_use(now_ms)]
        records = self._records(moving[:MAX_TASKS])
        completions = _newest(self._finished(lanes, records))
        shared = SharedStates(self._shared_limits, self._settings.shared_limits) if self._shared_limits else None
        complete = not after and not has_more and len(moving) <= MAX_TASKS
        return LanePage(
            lanes=[self._view(lane, records, now_ms, shared) for lane in lanes[:limit]],
            totals=_totals(lanes, records, completions, now_ms, complete),
            completions=completions,
            next_cursor=user_ids[wanted - 1] if has_more and not is_ranked else None,
            now_ms=now_ms,
        )

    def backlog(self) -> Backlog:
        """Sums over all lanes, one read of each: for a scrape of metrics, not for each request."""
        now_ms, lanes = self._clock.now_ms(), list(self._all_lanes())
        records = self._records([lane for lane in lanes if lane.is_leased(now_ms)])
        return Backlog(
            lanes=len(lanes),
            waiting=sum(lane.waiting for lane in lanes),
            running=sum(slots_in_use(lane, _newest_record(lane, records), now_ms) for lane in lanes),
            paused=sum(lane.is_paused(now_ms) for lane in lanes),
            throttled=sum(lane.is_throttled(now_ms) for lane in lanes),
        )

    def _all_lanes(self) -> Iterable[Lane]:
        after = ""
        while user_ids := self._directory.user_ids("", after, MAX_RANKED):
            yield from self._directory.lanes(user_ids)
            after = user_ids[-1]

    def _records(self, lanes: Iterable[Lane]) -> dict[str, TaskRecord]:
        """The newest started task of each lane, by id."""
        keys = [(lane.user_id, lane.running.task_id) for lane in lanes if lane.running]
        return {record.task.task_id: record for record in self._directory.tasks(keys)}

    def _finished(self, lanes: Sequence[Lane], records: dict[str, TaskRecord]) -> Iterable[Completion]:
        """The newest task of each lane in `records`, and the newest tasks of the lanes that started one last."""
        found = {
            (one.user_id, record.task.task_id): (one, record)
            for one in lanes
            if (record := _newest_record(one, records))
        }
        for lane in sorted(lanes, key=_moved_at, reverse=True)[:RECENT_LANES]:
            started = _newest_started(lane)
            if started or (lane.started and not lane.waiting):
                # Those that wait are newer than the task that started last, and may be many.
                up_to = started if lane.waiting else None
                tasks = self._directory.newest_tasks(lane.user_id, up_to, TASKS_OF_LANE)
                found |= {(lane.user_id, record.task.task_id): (lane, record) for record in tasks}
        return [Completion(record, _late_ms(lane, record)) for lane, record in found.values() if record.outcome]

    def _view(self, lane: Lane, records: dict[str, TaskRecord], now_ms: int, shared: SharedStates | None) -> LaneView:
        view = view_of_lane(lane, self._settings.limits, now_ms, _newest_record(lane, records))
        return replace(view, waits_for=shared.waits_for(lane, now_ms)) if shared and lane.turn else view


def _by_activity(lane: Lane) -> tuple[int, int, str]:
    return -lane.waiting, -_moved_at(lane), lane.user_id


def _moved_at(lane: Lane) -> int:
    return lane.starts[0] if lane.starts else 0


def _newest_record(lane: Lane, records: dict[str, TaskRecord]) -> TaskRecord | None:
    return records.get(lane.running.task_id) if lane.running else None


def _newest_started(lane: Lane) -> str | None:
    """The task of the lane's newest start, as far as a lease shows it."""
    leases = [*([lane.running] if lane.running else []), *(lane.slots or {}).values()]
    started = [lease for lease in leases if lease.starts]
    return max(started, key=lambda lease: lease.starts[-1]).task_id if started else None


def _newest(finished: Iterable[Completion]) -> list[Completion]:
    """The newest ones; failed ones stay in sight when others have finished since."""
    ordered = sorted(finished, key=lambda completion: completion.at, reverse=True)
    older = [one for one in ordered[MAX_COMPLETIONS:] if one.record.state is TaskState.FAILED]
    return [*ordered[:MAX_COMPLETIONS], *older[:MAX_OLDER_FAILURES]]


def _late_ms(lane: Lane, record: TaskRecord) -> int | None:
    outcome, task = record.outcome, record.task
    is_first = outcome is not None and outcome.attempts == 1
    if outcome is None or outcome.started_at is None or not is_first or task.seq <= lane.replanned_seq:
        return None
    return outcome.started_at - task.planned_at


def _totals(
    lanes: Sequence[Lane],
    records: dict[str, TaskRecord],
    completions: Sequence[Completion],
    now_ms: int,
    complete: bool,
) -> Totals:
    late = sorted(one.late_ms for one in completions if one.late_ms is not None and one.at > now_ms - RECENT_MS)
    return Totals(
        lanes=len(lanes),
        complete=complete,
        waiting=sum(lane.waiting for lane in lanes),
        running=sum(slots_in_use(lane, _newest_record(lane, records), now_ms) for lane in lanes),
        paused=sum(lane.is_paused(now_ms) for lane in lanes),
        starts_per_second=round(sum(_starts_per_second(lane, now_ms) for lane in lanes), 2),
        late_ms=late[len(late) // 2] if late else None,
        worst_late_ms=late[-1] if late else None,
    )


def _starts_per_second(lane: Lane, now_ms: int) -> float:
    """Over RATE_MS; a lane remembers few starts, so if all of them are newer, over the time since the oldest."""
    recent = [at for at in lane.starts if now_ms - RATE_MS < at <= now_ms]
    is_cut = len(recent) == len(lane.starts) < lane.started
    period_ms = max(1, now_ms - recent[-1]) if is_cut and recent else RATE_MS
    return len(recent) * 1000 / period_ms
