"""What a running function reports of its progress: at most one write a second, and the last report is never lost."""

import threading
from typing import Any

import pytest

from chalicelib.core.errors import RetryAfter
from chalicelib.core.task import Json, Progress, Task, TaskState
from chalicelib.tasks.registry import MAX_PROGRESS_TEXT, Context, checked_progress
from chalicelib.worker.progress import ProgressWriter
from local.frames import FrameError, FrameReader, frame, progress_frame, read_progress
from tests.factories import NOW, VirtualClock, make_task
from tests.unit.workshop import WorkerDiedError, Workshop

DEADLINE_ERROR = "it did not end within 4 s"


class Pages:
    """Registers a task that reports ten pages a second, and lists each write of progress."""

    def __init__(self, shop: Workshop, pages: int, end: BaseException | None = None) -> None:
        self._shop = shop
        self._pages = pages
        self._end = end
        #: milliseconds since the beginning, and the text
        self.writes: list[tuple[int, str]] = []
        self.contexts: list[Context] = []
        self._store, shop.tasks.report_progress = shop.tasks.report_progress, self._write  # type: ignore[attr-defined]
        shop.registry.task("pages", attempts=2, backoff_seconds=1)(self._run)

    def _write(self, task: Task, progress: Progress) -> bool:
        self.writes.append((self._shop.clock.now_ms() - NOW, progress.text))
        return bool(self._store(task, progress))

    def _run(self, payload: Json, context: Context) -> Json:
        self.contexts.append(context)
        for page in range(self._pages):
            context.progress(page / self._pages, f"page {page}")
            self._shop.progress.write_due()
            self._shop.clock.advance(100)
            self._shop.renewer.renew_due()
        if self._end and len(self.contexts) == 1:
            raise self._end
        return "whole"


def run(shop: Workshop) -> Task:
    task = shop.submit(name="pages")
    shop.run()
    return task


def test_at_most_one_report_a_second_is_written_and_the_last_one_comes_with_the_outcome() -> None:
    shop = Workshop()
    pages = Pages(shop, 35)
    record = shop.record(run(shop))
    assert pages.writes == [(0, "page 0"), (1_000, "page 10"), (2_000, "page 20"), (3_000, "page 30")]
    assert (record.state, record.progress) == (TaskState.SUCCEEDED, Progress(0.971, "page 34", NOW + 3_400))


def test_report_that_waits_is_written_though_no_further_one_comes() -> None:
    shop = Workshop()
    pages = Pages(shop, 3)
    task = shop.submit(name="pages")
    writer, clock = shop.progress, shop.clock
    with writer.reporting(task, NOW) as reports:
        for text in ("first", "second", "third"):
            writer.report(reports, 0.5, text)
            writer.write_due()
        clock.advance(999)
        writer.write_due()
        assert [text for _, text in pages.writes] == ["first"]
        clock.advance(1)
        writer.write_due()
        clock.advance(60_000)
        writer.write_due()
    assert pages.writes == [(0, "first"), (1_000, "third")]


def test_report_that_could_not_be_written_is_tried_again_a_second_later() -> None:
    shop = Workshop()
    pages = Pages(shop, 25)
    shop.tasks.fail("report_progress")
    pages._store = shop.tasks.__getattr__("report_progress")
    run(shop)
    assert pages.writes == [(0, "page 0"), (1_000, "page 10"), (2_000, "page 20")]


def test_report_of_a_task_whose_submit_has_not_stored_it_yet_is_written_a_second_later() -> None:
    """The worker was faster, and the function reports nothing for an hour."""
    shop = Workshop()
    task, store = make_task(1), shop.tasks
    with shop.progress.reporting(task, NOW) as reports:
        shop.progress.report(reports, 0.5, "asleep")
        shop.progress.write_due()
        store.create_if_absent(task)
        shop.clock.advance(1_000)
        shop.progress.write_due()
        assert shop.record(task).progress == Progress(0.5, "asleep", NOW)


def test_an_error_that_nobody_expects_costs_one_report_and_fails_no_task() -> None:
    shop = Workshop()
    pages = Pages(shop, 15)

    def broken(task: Task, progress: Progress) -> bool:
        raise ZeroDivisionError

    pages._store = broken
    record = shop.record(run(shop))
    assert (record.state, record.progress) == (TaskState.SUCCEEDED, Progress(0.933, "page 14", NOW + 1_400))


def test_report_after_the_end_changes_nothing() -> None:
    shop = Workshop()
    pages = Pages(shop, 5)
    task = run(shop)
    before, written = shop.record(task), list(pages.writes)
    shop.clock.advance(5_000)
    pages.contexts[0].progress(0.1, "from a thread that it left")
    shop.progress.write_due()
    shop.tasks.report_progress(task, Progress(0.1, "from a worker that was taken for dead", NOW + 9_000))
    assert shop.record(task) == before
    assert pages.writes[: len(written)] == written


@pytest.mark.parametrize("end", [ValueError("no"), RetryAfter(2)])
def test_second_attempt_replaces_the_progress_of_the_first(end: Exception) -> None:
    shop = Workshop()
    pages = Pages(shop, 5, end)
    record = shop.record(run(shop))
    assert len(pages.contexts) == 2
    assert record.outcome
    assert record.progress
    assert record.progress.at == record.outcome.completed_at - 100


def test_progress_of_a_worker_that_died_stays_until_the_next_attempt_reports() -> None:
    shop = Workshop()
    pages = Pages(shop, 15, WorkerDiedError())
    task = shop.submit(name="pages")
    with pytest.raises(WorkerDiedError):
        shop.handle_next()
    assert shop.record(task).progress == Progress(0.667, "page 10", NOW + 1_000)
    shop.replace_worker()
    shop.run()
    record = shop.record(task)
    assert record.progress
    assert (record.state, record.progress.text, len(pages.contexts)) == (TaskState.SUCCEEDED, "page 14", 2)


def test_task_that_passes_its_deadline_keeps_its_last_report() -> None:
    shop = Workshop(DEADLINE="4")
    Pages(shop, 45)
    record = shop.record(run(shop))
    assert (record.state, record.error) == (TaskState.FAILED, DEADLINE_ERROR)
    assert record.progress
    assert record.progress.text == "page 39"


def test_report_is_never_older_than_the_start() -> None:
    """A clock may be set back while the function runs."""
    clock, store = VirtualClock(), Workshop().tasks
    writer = ProgressWriter(store, clock, in_background=False)
    with writer.reporting(make_task(1), NOW) as reports:
        clock.step_back(60_000)
        writer.report(reports, 0.5, "")
    assert reports.last == Progress(0.5, "", NOW)


def test_thread_of_its_own_writes_while_the_function_goes_on_without_a_report() -> None:
    written, shop = threading.Event(), Workshop()
    texts = list[str]()

    def write(task: Task, progress: Progress) -> bool:
        texts.append(progress.text)
        written.set()
        return True

    shop.tasks.report_progress = write  # type: ignore[attr-defined]
    writer = ProgressWriter(shop.tasks, shop.clock)
    for text in ("first task", "second task, once the thread has ended"):
        with writer.reporting(make_task(1), NOW) as reports:
            writer.report(reports, 0.5, text)
            assert written.wait(30)
        written.clear()
    assert texts == ["first task", "second task, once the thread has ended"]


@pytest.mark.parametrize(("fraction", "stored"), [(0, 0), (1, 1), (0.33349, 0.333), (1.0000000001, 1), (-0.0001, 0)])
def test_fraction_is_stored_in_thousandths(fraction: float, stored: float) -> None:
    kept, _ = checked_progress(fraction, "")
    assert (kept, type(kept)) == (stored, float)


@pytest.mark.parametrize("fraction", [1.01, -0.01, float("nan"), float("inf"), 10**400, True, "0.5", None])
def test_anything_but_a_number_from_0_to_1_is_an_error(fraction: Any) -> None:
    with pytest.raises(ValueError, match=r"^a progress of .*; allowed: a number from 0 to 1$"):
        checked_progress(fraction, "")


def test_text_is_one_line_of_bounded_length() -> None:
    _, text = checked_progress(0, "page 3\nof\t5 \ud800" + "x" * 500)
    assert text == ("page 3 of 5  " + "x" * 500)[:MAX_PROGRESS_TEXT]
    with pytest.raises(ValueError, match="a progress text of type int"):
        checked_progress(0, 3)


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
def test_reader_makes_the_same_messages_however_the_socket_cuts_them(size: int) -> None:
    sent = [{"n": 1}, {"text": "x" * 50}, {}, {"n": 4}]
    whole, reader = b"".join(map(frame, sent)), FrameReader()
    parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert [message for part in parts for message in reader.feed(part)] == sent


@pytest.mark.parametrize("message", [{"progress": 1}, {"progress": [2, ""]}, {"progress": [0.5, 7]}, {"progress": [1]}])
def test_progress_that_no_child_of_ours_sends_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        read_progress(message)


def test_progress_is_read_as_it_was_sent() -> None:
    [message] = FrameReader().feed(progress_frame(0.4, "page 3"))
    assert read_progress(message) == (0.4, "page 3")
    assert read_progress({"kind": "Returned"}) is None
