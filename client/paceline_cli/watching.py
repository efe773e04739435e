"""Watches submitted tasks until all are finished; shows a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from paceline_cli.rendering import duration
from paceline_client import Clock, Paceline, SubmittedTask, Task

#: Seconds between two polls; each poll is one request, whatever the number of tasks.
LOOK_SECONDS = 0.5
#: Longest time between two polls of a scheduled task, which may be due in a week, in seconds.
MAX_LOOK_SECONDS = 10.0


def begun(last: Task, total: int) -> int:
    """The number of tasks that no longer wait, from the position of the last one, which is not finished."""
    return 0 if last.is_scheduled else max(0, total - max(1, last.position))


class Watching:
    """One wait for many tasks of one user, who starts them in order: the position of the last one shows the progress.

    Scheduled ones are admitted in any order; when the last one has ended, the wait goes on with what has not.
    """

    def __init__(self, paceline: Paceline, clock: Clock, out: Console) -> None:
        self._paceline = paceline
        self._clock = clock
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=out,
            disable=not out.is_terminal,
            transient=True,
        )

    def ended(self, submitted_tasks: Sequence[SubmittedTask]) -> list[Task]:
        """Returns the finished tasks in submit order."""
        user_id = submitted_tasks[0].user_id
        self._bar = self._progress.add_task(
            user_id, total=len(submitted_tasks), left=duration(submitted_tasks[-1].delay_ms) + " left"
        )
        with self._progress:
            last = submitted_tasks[-1].task_id
            while True:
                self._wait_for(user_id, last, len(submitted_tasks))
                tasks = self._tasks(user_id, submitted_tasks)
                # A cancelled task finishes before the tasks ahead of it.
                going_on = [task for task in tasks if not task.has_ended]
                if not going_on:
                    return tasks
                last = going_on[-1].task_id

    def _wait_for(self, user_id: str, task_id: str, total: int) -> None:
        while not (task := self._paceline.task(user_id, task_id)).has_ended:
            self._progress.update(self._bar, completed=begun(task, total), left=self._time_left(task))
            self._clock.sleep(self._pause(task))
        self._progress.update(self._bar, completed=total, left="")

    def _pause(self, task: Task) -> float:
        """Seconds until the next poll."""
        if not task.is_scheduled:
            return LOOK_SECONDS
        return min(max(LOOK_SECONDS, task.planned_at / 1000 - self._clock.now()), MAX_LOOK_SECONDS)

    def _time_left(self, task: Task) -> str:
        if task.estimated_at is None:
            return "paused" if task.state == "queued" else "running"
        left = duration(task.estimated_at - self._clock.now() * 1000)
        return f"scheduled in {left}" if task.is_scheduled else f"{left} left"

    def _tasks(self, user_id: str, submitted_tasks: Sequence[SubmittedTask]) -> list[Task]:
        if len(submitted_tasks) == 1:
            return [self._paceline.task(user_id, submitted_tasks[0].task_id)]
        wanted = {submitted.task_id for submitted in submitted_tasks}
        first = min(wanted)
        found: list[Task] = []
        for task in self._paceline.tasks(user_id):
            if task.task_id in wanted:
                found.append(task)
            # Ids sort by the time of their submit; numbers don't, since a scheduled task gets its own late.
            if len(found) == len(wanted) or task.task_id < first:
                break
        return sorted(found, key=lambda task: task.seq)
