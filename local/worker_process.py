"""One worker process: polls the queue and calls the Chalice function, as Lambda's SQS event source mapping does.

One message per call (BatchSize 1), lanes in parallel, each lane in order, partial batch responses respected.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chalicelib.core.errors import UnavailableError
from local.child_runner import ChildRunner
from local.children import ForkServerClient
from local.deletions import Deletions
from local.health import heartbeat_files
from local.invocation import Context, sqs_event
from local.lane_threads import Lanes
from local.parent import end_with_parent
from local.queue_source import BATCH, VISIBILITY_SECONDS, Message, Source, SourceError
from local.running_calls import WatchedRunner, reporting
from local.signals import StopSignals

#: Threads that receive. A receive takes up to ten messages of one lane before another lane's first one, so in a rush
#: of bulks the first starts of many users would wait for each other's receives.
RECEIVERS = 4
#: Seconds of a long poll. Short, because a stop waits for it: aborting the call could leave messages hidden.
_WAIT_SECONDS = 1
_EXTEND_SECONDS = 3.0
_BUSY_SECONDS = 0.02
_BACKOFF_SECONDS = 0.2
_BACKOFF_SECONDS_LIMIT = 3.0
#: Bytes of virtual memory per thread; a lane's thread mostly sleeps.
_STACK_BYTES = 1024 * 1024

log = logging.getLogger("worker")

#: The Chalice function: takes event and context, returns the answer.
Function = Callable[[dict[str, Any], Context], Any]


class Poller:
    """The threads that receive messages for the lanes and extend their visibility.

    One always receives. The others do so while receives return as many messages as they ask for.
    """

    def __init__(
        self,
        source: Source,
        lanes: Lanes,
        heartbeat: Path,
        batch: int,
        pause_seconds: float = _BACKOFF_SECONDS_LIMIT,
        helpers: Sequence[threading.Thread] = (),
    ) -> None:
        """pause_seconds: after an unexpected error. helpers: further threads that a healthy worker needs."""
        self._pause_seconds = pause_seconds
        self._source = source
        self._lanes = lanes
        self._heartbeat = heartbeat
        self._batch = batch
        self._stopping = threading.Event()
        self._are_more_waiting = threading.Event()
        self._receivers = [threading.Thread(target=self._poll, args=[n > 0]) for n in range(RECEIVERS)]
        self._extender = threading.Thread(target=self._extend, daemon=True)
        self._helpers = (self._extender, *helpers)

    def start(self) -> None:
        self._extender.start()
        for receiver in self._receivers:
            receiver.start()

    def stop(self) -> None:
        """Starts no further receive; `join` waits for the running ones."""
        self._stopping.set()
        self._are_more_waiting.set()

    def join(self) -> None:
        for receiver in self._receivers:
            receiver.join()

    def _poll(self, only_more: bool) -> None:
        backoff = _Backoff()
        while not self._stopping.is_set():
            try:
                if not only_more:
                    self._beat()
                    self._receive(_WAIT_SECONDS)
                elif self._are_more_waiting.wait(_WAIT_SECONDS) and not self._stopping.is_set():
                    self._receive(0)
                backoff.succeeded()
            except SourceError as error:
                self._stopping.wait(backoff.failed(error))
            except BaseException:  # a SystemExit would end the thread
                log.exception("receiving failed")
                self._stopping.wait(self._pause_seconds)

    def _beat(self) -> None:
        if all(thread.is_alive() for thread in self._helpers):
            self._heartbeat.touch()

    def _receive(self, wait_seconds: int) -> None:
        if not (count := min(self._batch, self._lanes.room)):
            self._stopping.wait(_BUSY_SECONDS)
            return
        messages = self._source.receive(count, wait_seconds)
        if len(messages) == count:
            self._are_more_waiting.set()
        elif not self._stopping.is_set():
            self._are_more_waiting.clear()
        self._lanes.add(messages)

    def _extend(self) -> None:
        while True:
            time.sleep(_EXTEND_SECONDS / 3)
            try:
                self._lanes.extend(_EXTEND_SECONDS, VISIBILITY_SECONDS)
            except SourceError as error:
                log.warning("received messages may be redelivered to another worker: %s", error)
            except BaseException:  # a SystemExit would end the thread
                log.exception("received messages may be redelivered to another worker")


class _Backoff:
    """Growing pauses while the queue is unreachable; logs the begin and the end."""

    def __init__(self) -> None:
        self._pause = 0.0

    def failed(self, error: Exception) -> float:
        if not self._pause:
            log.warning("the queue is unreachable, retrying: %s", error)
        self._pause = min(self._pause * 2 or _BACKOFF_SECONDS, _BACKOFF_SECONDS_LIMIT)
        return self._pause

    def succeeded(self) -> None:
        if self._pause:
            log.warning("the queue is reachable again")
        self._pause = 0.0


def handler(function: Function, name: str, queue_arn: str, timeout_seconds: float) -> Callable[[Message], bool]:
    """Returns a handler that calls the function with one message; it returns True if the message may be deleted."""

    def handle(message: Message) -> bool:
        context = Context(name, os.environ.get("PROCESS_NAME", "worker"), timeout_seconds)
        answer = function(sqs_event(message, queue_arn), context)
        failures = (answer or {}).get("batchItemFailures") or []
        return not any(failure.get("itemIdentifier") == message.id for failure in failures)

    return handle


def main() -> None:
    server = ForkServerClient()
    server.start()  # it loads the tasks while this process does
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    threading.stack_size(_STACK_BYTES)
    signals = StopSignals()
    # Import after logging is configured, since loading the app can fail.
    import app  # noqa: PLC0415
    from chalicelib import container as wiring  # noqa: PLC0415
    from local.parts import warm_up  # noqa: PLC0415

    children = ChildRunner(server)
    runner = WatchedRunner(children)
    warm_up(runner)
    run_dir, name = Path(os.environ["RUN_DIR"]), os.environ["PROCESS_NAME"]
    batch = int(os.environ.get("RECEIVE_BATCH") or BATCH)
    work = handler(app.worker, _function_name("worker"), os.environ["QUEUE_ARN"], _timeout_seconds())
    messages = handler(
        app.scheduled, _function_name("scheduled"), os.environ["SCHEDULED_QUEUE_ARN"], _timeout_seconds()
    )
    heartbeat, scheduled_heartbeat = heartbeat_files(run_dir, name)
    triggers = [
        Trigger(os.environ["QUEUE_URL"], work, heartbeat, batch),
        Trigger(os.environ["SCHEDULED_QUEUE_URL"], messages, scheduled_heartbeat, batch),
    ]
    for trigger in triggers:
        trigger.start()
    threading.Thread(target=_search_lost_messages, daemon=True).start()
    while not signals.wait(60.0):
        pass
    for trigger in triggers:
        trigger.stop()
    # Handlers that wait for a start make their message visible again; those running a task finish it.
    wiring.stopping.set()
    with reporting(runner, run_dir, name):
        for trigger in triggers:
            trigger.join()
    children.end_idle()
    server.close()


def _search_lost_messages() -> None:
    """Sends messages of schedules again that are lost: when the worker starts, and now and then.

    On AWS the functions search while they handle schedules, so that a deployment without schedules pays nothing.
    """
    from chalicelib import container as wiring  # noqa: PLC0415 - as above
    from chalicelib.schedules.ringing import SEARCH_EVERY_MS  # noqa: PLC0415

    pause_seconds, is_start = _BACKOFF_SECONDS_LIMIT, True
    while not wiring.stopping.wait(pause_seconds):
        try:
            wiring.container().ringer.search(is_start)
            pause_seconds, is_start = SEARCH_EVERY_MS / 1000, False
        except UnavailableError as error:
            log.info("looking for lost messages is tried again: %s", error)
        except BaseException:  # a SystemExit would end the thread
            log.exception("looking for lost messages failed")


class Trigger:
    """One queue and the function that it triggers."""

    def __init__(self, queue_url: str, handle: Callable[[Message], bool], heartbeat: Path, batch: int) -> None:
        source = Source(queue_url)
        self._deletions = Deletions(source)
        self._lanes = Lanes(source, handle, self._deletions.add)
        self._poller = Poller(source, self._lanes, heartbeat, batch, helpers=[self._deletions.thread])

    def start(self) -> None:
        self._deletions.start(self._lanes.is_quiet)
        self._poller.start()

    def stop(self) -> None:
        self._poller.stop()
        self._lanes.stop()

    def join(self) -> None:
        self._poller.join()
        self._lanes.join()
        self._deletions.close()


def _function_name(function: str) -> str:
    return f"paceline-{os.environ.get('STAGE') or 'dev'}-{function}"


def _timeout_seconds() -> float:
    return float(os.environ.get("WORKER_TIMEOUT") or 60)


if __name__ == "__main__":
    main()
