"""Paceline's own parts over ports in memory and virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from chalicelib.container import Container
from chalicelib.core.contention import RetryWithJitter
from chalicelib.settings import Settings
from chalicelib.tasks import outside
from chalicelib.tasks.registry import Registry
from chalicelib.tasks.registry import registry as registered
from chalicelib.tasks.runner import Call, Ended, InProcess
from chalicelib.worker.lease_renewal import LeaseRenewer
from paceline.testing.memory.directory import MemoryLaneDirectory
from paceline.testing.memory.failed_tasks import MemoryFailedTasks
from paceline.testing.memory.requests import MemoryRequestStore
from paceline.testing.memory.scheduled_queue import MemoryScheduledQueue
from paceline.testing.memory.schedules import MemoryScheduleStore
from paceline.testing.memory.shared_limits import MemorySharedLimitStore
from paceline.testing.memory.stores import (
    MemoryCallbackSlots,
    MemoryCompletionLog,
    MemoryDueTasks,
    MemoryLaneStore,
    MemoryScheduledCounts,
    MemoryTaskStore,
)
from paceline.testing.memory.task_queue import MemoryTaskQueue
from paceline.testing.timeline import ProcessEndedError, Timeline

#: Milliseconds after a task's deadline at which its process has ended.
_ENDED_AFTER_MS = 1_000


class VirtualRenewer(LeaseRenewer):
    """Renews leases in a process of virtual time, where the real one has a thread."""

    def __init__(self, lanes: Any, timeline: Timeline, hide: Callable[[str, int], bool]) -> None:
        super().__init__(lanes, timeline, hide=hide)
        self._timeline = timeline
        self._is_started = False

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._timeline.spawn(self._run)

    def _run(self) -> None:
        while self._running:
            self._clock.sleep(self._pause_ms())
            self.renew_due()
        self._is_started = False


class VirtualRunner(InProcess):
    """Records each start, lets the time pass that the task takes, then calls its function."""

    def __init__(self, timeline: Timeline, takes: Mapping[str, float], started: Callable[[Call], None]) -> None:
        """takes: virtual seconds of each run, by task. started: called at each start."""
        self._timeline = timeline
        self._takes = takes
        self._started = started

    def run(self, call: Call) -> Ended:
        self._started(call)
        if takes_ms := round(self._takes.get(call.definition.name, 0) * 1000):
            self._timeline.sleep(min(takes_ms, call.deadline_ms + _ENDED_AFTER_MS))
        if takes_ms > call.deadline_ms:
            raise ProcessEndedError  # Paceline ends the process of a task that passes its deadline
        return super().run(call)


class MemoryContainer(Container):
    """Builds Paceline over memory. Its tasks are those that were registered before, and those of TASKS_DIR."""

    def __init__(self, settings: Settings, timeline: Timeline, runner: VirtualRunner) -> None:
        super().__init__(settings, log=MemoryCompletionLog(), runner=runner)
        self._timeline = timeline
        self.clock = timeline  # type: ignore[assignment]
        self.monotonic = lambda: timeline.now / 1000
        self.end_process = lambda: None
        lanes, tasks = MemoryLaneStore(), MemoryTaskStore()
        self.memory_queue = MemoryTaskQueue(timeline.now_ms)
        self.memory_scheduled_queue = MemoryScheduledQueue(timeline.now_ms)
        ports = {
            "lanes": lanes,
            "tasks": tasks,
            "queue": self.memory_queue,
            "scheduled_queue": self.memory_scheduled_queue,
            "scheduled_counts": MemoryScheduledCounts(),
            "due_tasks": MemoryDueTasks(),
            "callback_slots": MemoryCallbackSlots(),
            "requests": MemoryRequestStore(),
            "directory": MemoryLaneDirectory(lanes, tasks),
            "failed_tasks": MemoryFailedTasks(tasks),
            "schedules": MemoryScheduleStore(),
            "shared_limits": MemorySharedLimitStore(),
        }
        for name, port in ports.items():
            setattr(self, name, port)

    @cached_property
    def registry(self) -> Registry:
        if self.settings.tasks_dir:
            outside.load(str(Path(self.settings.tasks_dir).absolute()))
        return registered

    @cached_property
    def renewer(self) -> LeaseRenewer:
        return VirtualRenewer(self.lanes, self._timeline, self.queue.defer)

    @property
    def _retry(self) -> RetryWithJitter:
        return RetryWithJitter(self.clock, random.Random(0).random)
