"""Tasks that take seconds: one that can be cancelled, one whose worker dies, one that does not end."""

import os
import signal
import time

from paceline import Context, task


@task("nap")
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task("count-pages")
def count_pages(pages: int, *, context: Context) -> int:
    """Takes a second for each page; stops when it is asked to."""
    for page in range(pages):
        if context.cancelled:
            raise InterruptedError(f"stopped before page {page}")
        context.progress(page / pages, f"page {page}")
        time.sleep(1)
    return pages


@task("lose-worker")
def lose_worker(seconds: float, *, context: Context) -> int:
    """Ends its process after so many seconds, as a lack of memory does; the second attempt succeeds."""
    if context.attempt == 1:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
    return context.attempt


@task("overrun", deadline_seconds=8)
def overrun() -> None:
    time.sleep(600)
