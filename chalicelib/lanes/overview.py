"""The use case of the dashboard: which lanes there are, the busiest first, and what they add up to.

Reads only. What it costs is bounded, and does not grow with the tasks that were ever submitted.
"""

import threading
from collections.abc import Iterable, Sequence

from msgspec import Struct

from chalicelib.core.lane import Lane
from chalicelib.core.ports import Clock, LaneDirectory
from chalicelib.core.task import TaskRecord
from chalicelib.lanes.control import LaneView, view_of_lane
from chalicelib.settings import Settings

#: Lanes that one survey reads; of more, the first by name.
MAX_SURVEYED = 2_000
#: Surveys kept, each for one search.
MAX_SURVEYS = 8
#: A survey is good for so long at least,
SURVEY_KEPT_MS = 2_000
#: and for so many times as long as it took: an overview never takes more than a twentieth of a process.
SURVEY_KEPT_TIMES = 20
#: A page is read anew when its survey is older than this.
PAGE_KEPT_MS = 500
#: A lane's newest task is looked at when it started within this.
RECENT_MS = 60_000
#: Newest tasks that one survey looks at.
MAX_TASKS_SEEN = 300
#: Completions that an overview shows.
MAX_COMPLETIONS = 20
#: The starts of so long make the rate.
RATE_MS = 10_000


class Completion(Struct, frozen=True):
    """A lane's newest task, ended."""

    record: TaskRecord
    #: after its planned start; None when that was planned anew or a retry started it
    late_ms: int | None

    @property
    def at(self) -> int:
        return self.record.outcome.completed_at if self.record.outcome else 0


class Totals(Struct, frozen=True):
    """What the surveyed lanes add up to."""

    lanes: int
    #: no lane was left out
    complete: bool
    waiting: int
    running: int
    paused: int
    starts_per_second: float
    #: of the newest completions, milliseconds after the planned start
    late_ms: int | None
    worst_late_ms: int | None


class LanePage(Struct, frozen=True):
    lanes: Sequence[LaneView]
    totals: Totals
    #: newest first
    completions: Sequence[Completion]
    #: where the next page begins; None on the last
    further: str | None
    now_ms: int


class _Survey(Struct, frozen=True):
    lanes: Sequence[Lane]
    records: dict[str, TaskRecord]
    totals: Totals
    completions: Sequence[Completion]
    taken_at: int
    good_until: int


class Overview:
    """Surveys are kept in the process, so many who look cost little more than one."""

    def __init__(self, directory: LaneDirectory, clock: Clock, settings: Settings) -> None:
        self._directory = directory
        self._clock = clock
        self._settings = settings
        self._surveys: dict[str, _Survey] = {}
        self._lock = threading.Lock()

    def page(self, search: str, skip: int, most: int) -> LanePage:
        """A page of the lanes whose user id begins with `search`, those that move first, and then by name.

        The order is up to some seconds old, the lanes themselves are as they are.
        """
        with self._lock:  # one survey serves all who wait for it
            survey = self._survey(search)
        lanes = survey.lanes[skip : skip + most]
        records = survey.records
        if self._clock.now_ms() - survey.taken_at > PAGE_KEPT_MS:
            lanes = self._read([lane.user_id for lane in lanes])
            records = records | self._records(lanes, self._clock.now_ms())
        now_ms = self._clock.now_ms()
        views = [self._view(lane, records, now_ms) for lane in lanes]
        newest = _newest([*_completions(lanes, records), *survey.completions])
        further = str(skip + most) if skip + most < len(survey.lanes) else None
        return LanePage(views, survey.totals, newest, further, now_ms)

    def _survey(self, search: str) -> _Survey:
        began_at = self._clock.now_ms()
        known = self._surveys.get(search)
        if known and began_at < known.good_until:
            return known
        self._surveys.pop(search, None)
        while len(self._surveys) >= MAX_SURVEYS:
            del self._surveys[next(iter(self._surveys))]
        self._surveys[search] = self._surveyed(search, began_at)
        return self._surveys[search]

    def _surveyed(self, search: str, began_at: int) -> _Survey:
        user_ids = self._directory.user_ids(search, MAX_SURVEYED + 1)
        lanes = self._directory.lanes(user_ids[:MAX_SURVEYED])
        now_ms = self._clock.now_ms()
        records = self._records(lanes, now_ms)
        completions = _newest(_completions(lanes, records))
        totals = _totals(lanes, records, completions, now_ms, complete=len(user_ids) <= MAX_SURVEYED)
        kept_ms = max(SURVEY_KEPT_MS, SURVEY_KEPT_TIMES * (now_ms - began_at))
        ranked = sorted(lanes, key=lambda lane: _rank(lane, now_ms))
        return _Survey(ranked, records, totals, completions, now_ms, now_ms + kept_ms)

    def _read(self, user_ids: Sequence[str]) -> list[Lane]:
        found = {lane.user_id: lane for lane in self._directory.lanes(user_ids)}
        return [found[user_id] for user_id in user_ids if user_id in found]

    def _records(self, lanes: Iterable[Lane], now_ms: int) -> dict[str, TaskRecord]:
        """The newest tasks of the lanes that move, by id."""
        moving = [lane for lane in lanes if _moved_at(lane) > now_ms - RECENT_MS or _is_leased(lane, now_ms)]
        moving.sort(key=_moved_at, reverse=True)
        keys = [(lane.user_id, lane.running.task_id) for lane in moving[:MAX_TASKS_SEEN] if lane.running]
        return {record.task.task_id: record for record in self._directory.tasks(keys)}

    def _view(self, lane: Lane, records: dict[str, TaskRecord], now_ms: int) -> LaneView:
        return view_of_lane(lane, self._settings.limits, now_ms, _running(lane, records, now_ms))


def _rank(lane: Lane, now_ms: int) -> tuple[int, bool, str]:
    """By the digits of the backlog rather than by the backlog: lanes that change places all the time can't be read."""
    is_recent = _moved_at(lane) > now_ms - 5 * RECENT_MS
    return -len(str(lane.waiting)) if lane.waiting else 0, not is_recent, lane.user_id


def _moved_at(lane: Lane) -> int:
    return lane.starts[0] if lane.starts else 0


def _is_leased(lane: Lane, now_ms: int) -> bool:
    return lane.running is not None and lane.running.until > now_ms


def _running(lane: Lane, records: dict[str, TaskRecord], now_ms: int) -> str | None:
    """The task that runs; a lease outlives its task by some seconds, so the task has a say."""
    if lane.running is None or not _is_leased(lane, now_ms):
        return None
    record = records.get(lane.running.task_id)
    is_open = record is not None and record.outcome is None and record.attempts < lane.running.attempt
    return lane.running.task_id if is_open else None


def _completions(lanes: Iterable[Lane], records: dict[str, TaskRecord]) -> Iterable[Completion]:
    for lane in lanes:
        record = records.get(lane.running.task_id) if lane.running else None
        if record and record.outcome:
            yield Completion(record, _late_ms(lane, record))


def _late_ms(lane: Lane, record: TaskRecord) -> int | None:
    outcome, task = record.outcome, record.task
    is_first = outcome is not None and outcome.attempts == 1
    if outcome is None or outcome.started_at is None or not is_first or task.seq <= lane.replanned_seq:
        return None
    return outcome.started_at - task.planned_at


def _newest(completions: Iterable[Completion]) -> list[Completion]:
    by_id = {completion.record.task.task_id: completion for completion in completions}
    return sorted(by_id.values(), key=lambda completion: completion.at, reverse=True)[:MAX_COMPLETIONS]


def _totals(
    lanes: Sequence[Lane],
    records: dict[str, TaskRecord],
    completions: Sequence[Completion],
    now_ms: int,
    complete: bool,
) -> Totals:
    late = sorted(one.late_ms for one in completions if one.late_ms is not None)
    return Totals(
        lanes=len(lanes),
        complete=complete,
        waiting=sum(lane.waiting for lane in lanes),
        running=sum(_running(lane, records, now_ms) is not None for lane in lanes),
        paused=sum(lane.is_paused(now_ms) for lane in lanes),
        starts_per_second=round(sum(_rate(lane, now_ms) for lane in lanes), 2),
        late_ms=late[len(late) // 2] if late else None,
        worst_late_ms=late[-1] if late else None,
    )


def _rate(lane: Lane, now_ms: int) -> float:
    """Starts a second, lately. A lane remembers few starts: when all are recent, they alone make the rate."""
    recent = [at for at in lane.starts if now_ms - RATE_MS < at <= now_ms]
    is_cut = len(recent) == len(lane.starts) < lane.started
    spell_ms = max(1, now_ms - recent[-1]) if is_cut and recent else RATE_MS
    return len(recent) * 1000 / spell_ms
