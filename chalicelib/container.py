"""The composition root: the only place that knows the environment, the clock, chance and the adapters.

Importing it reads no setting: Chalice also imports the app to package and deploy it, without settings.
"""

import importlib
import os
import pkgutil
import random
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from uuid6 import uuid7

from chalicelib import own_tasks
from chalicelib.auth.caller import Authenticator, NoAuthentication
from chalicelib.aws.client import client
from chalicelib.aws.dynamodb_callback_slots import DynamoDBCallbackSlots
from chalicelib.aws.dynamodb_directory import DynamoDBLaneDirectory
from chalicelib.aws.dynamodb_due_tasks import DynamoDBDueTasks
from chalicelib.aws.dynamodb_failed_tasks import DynamoDBFailedTasks
from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.aws.dynamodb_requests import DynamoDBRequestStore
from chalicelib.aws.dynamodb_scheduled_counts import DynamoDBScheduledCounts
from chalicelib.aws.dynamodb_schedules import DynamoDBScheduleStore
from chalicelib.aws.dynamodb_shared_limits import DynamoDBSharedLimitStore
from chalicelib.aws.dynamodb_tasks import DynamoDBTaskStore
from chalicelib.aws.server_time import ServerTime
from chalicelib.aws.sqs_scheduled import SQSScheduledQueue
from chalicelib.aws.sqs_tasks import SQSTaskQueue
from chalicelib.canary import Canary
from chalicelib.core.contention import PerUserLock, RetryWithJitter
from chalicelib.core.errors import SettingError, UnavailableError
from chalicelib.core.ports import (
    CallbackSlots,
    CompletionLog,
    FailedTasks,
    LaneDirectory,
    Presence,
    RequestStore,
    ScheduleStore,
)
from chalicelib.lanes.clearance import Clearance
from chalicelib.lanes.control import Control
from chalicelib.lanes.overview import Overview
from chalicelib.lanes.shared import SharedControl
from chalicelib.scheduled.admission import DueAdmitter
from chalicelib.scheduled.callbacks import BoundedCallbackSender, CallbackSender
from chalicelib.scheduled.cancellations import ScheduledCancellations
from chalicelib.scheduled.dispatcher import ScheduledDispatcher
from chalicelib.schedules.control import ScheduleControl
from chalicelib.schedules.ringing import Ringer
from chalicelib.schedules.ticker import Ticker
from chalicelib.settings import Auth, Settings, auth_of
from chalicelib.submit.daily_cap import DailyCap
from chalicelib.submit.idempotency import Idempotency
from chalicelib.submit.redriver import Redriver
from chalicelib.submit.shared_limits import SharedLimitReader
from chalicelib.submit.submitter import Submitter
from chalicelib.tasks import outside
from chalicelib.tasks.http_task import HttpTask
from chalicelib.tasks.registry import Registry
from chalicelib.tasks.registry import registry as registered
from chalicelib.tasks.runner import TaskRunner
from chalicelib.worker.completion_log import StandardOutputLog
from chalicelib.worker.execution import TaskExecutor
from chalicelib.worker.finalizer import Finalizer
from chalicelib.worker.lease_renewal import LeaseRenewer
from chalicelib.worker.observer import Observer, Observers
from chalicelib.worker.progress import ProgressWriter
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.worker import Worker

if TYPE_CHECKING:
    from chalicelib.api.origins import Origins
    from chalicelib.outbound.client import Answer, Outbound
    from chalicelib.tracing import Tracing

#: From the operating system: environments that Lambda restores from one snapshot share the state of other generators.
RANDOM = random.SystemRandom()
#: Seconds for other tasks to finish before the process ends because one of its tasks passed its deadline.
LEAVING_SECONDS = 5
EXIT_EXPIRED = 70

#: Set when the process is to stop: waits are cut short, and waiting messages go back to the queue.
stopping = threading.Event()


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, milliseconds: int) -> bool:
        return stopping.wait(milliseconds / 1000)

    def sleep_until(self, at: int) -> None:
        """Sleeps until `at`, epoch ms; a clock that is set back meanwhile does not prolong the sleep."""
        patience = time.monotonic() + max(0, at - self.now_ms()) / 1000
        while (left := min(at / 1000 - time.time(), patience - time.monotonic())) > 0:
            time.sleep(left)


class Metrics(Observer, Protocol):
    """The metrics of all processes of a run."""

    def text(self) -> str:
        """In OpenMetrics' text form. UnavailableError if the lanes can't be read."""
        ...


class Container:
    """Builds each part once, when it is first needed."""

    def __init__(
        self,
        settings: Settings,
        log: CompletionLog | None = None,
        presence: Presence | None = None,
        runner: TaskRunner | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """log, presence, runner, metrics: those of `make run`; on Lambda standard output, none, this process, none."""
        self.settings = settings
        self.clock = SystemClock()
        #: the clock of a request's time budget, seconds
        self.monotonic: Callable[[], float] = time.monotonic
        self.log = log or StandardOutputLog()
        self._presence = presence
        self._runner = runner
        self.metrics = metrics
        #: called when a task passed its deadline
        self.end_process: Callable[[], None] = end_process

    @cached_property
    def dynamodb(self) -> object:
        return client("dynamodb", self.settings.endpoint_url, is_boto3=self.settings.is_boto3)

    @cached_property
    def server_time(self) -> ServerTime:
        return ServerTime(self.clock.now_ms)

    @cached_property
    def sqs(self) -> object:
        return client("sqs", self.settings.endpoint_url, is_boto3=self.settings.is_boto3)

    @cached_property
    def lanes(self) -> DynamoDBLaneStore:
        return DynamoDBLaneStore(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def tasks(self) -> DynamoDBTaskStore:
        table_name = self._required("TABLE_NAME", self.settings.table_name)
        return DynamoDBTaskStore(self.dynamodb, table_name, self.settings.keep_finished_ms // 1000)

    @cached_property
    def shared_limits(self) -> DynamoDBSharedLimitStore:
        table_name = self._required("TABLE_NAME", self.settings.table_name)
        return DynamoDBSharedLimitStore(self.dynamodb, table_name, self.server_time)

    @cached_property
    def scheduled_counts(self) -> DynamoDBScheduledCounts:
        return DynamoDBScheduledCounts(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def callback_slots(self) -> CallbackSlots:
        return DynamoDBCallbackSlots(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def due_tasks(self) -> DynamoDBDueTasks:
        return DynamoDBDueTasks(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def schedules(self) -> ScheduleStore:
        return DynamoDBScheduleStore(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def requests(self) -> RequestStore:
        return DynamoDBRequestStore(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def directory(self) -> LaneDirectory:
        return DynamoDBLaneDirectory(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def failed_tasks(self) -> FailedTasks:
        return DynamoDBFailedTasks(self.dynamodb, self._required("TABLE_NAME", self.settings.table_name))

    @cached_property
    def queue(self) -> SQSTaskQueue:
        queue_url = self._required("QUEUE_URL", self.settings.queue_url)
        return SQSTaskQueue(self.sqs, queue_url, self._required("DEAD_LETTER_URL", self.settings.dead_letter_url))

    @cached_property
    def scheduled_queue(self) -> SQSScheduledQueue:
        return SQSScheduledQueue(self.sqs, self._required("SCHEDULED_QUEUE_URL", self.settings.scheduled_queue_url))

    @cached_property
    def authenticator(self) -> Authenticator:
        if self.settings.jwt is None:
            return NoAuthentication()
        # They load PyJWT and cryptography, which takes 0.1 s: AUTH=none does not pay for it.
        from chalicelib.auth.jwks_fetch import fetch_jwks  # noqa: PLC0415
        from chalicelib.auth.jwt_verifier import token_authentication  # noqa: PLC0415

        return token_authentication(self.settings.jwt, fetch_jwks, self.clock.now_ms)

    @cached_property
    def submitter(self) -> Submitter:
        return Submitter(
            self.lanes,
            self.tasks,
            self.queue,
            self._retry,
            self.settings,
            PerUserLock().lock,
            self.scheduled_queue,
            DailyCap(self.scheduled_counts, self.settings.max_scheduled),
            self.due_tasks,
            SharedLimitReader(self.shared_limits, self.settings.shared_limits),
        )

    @cached_property
    def idempotency(self) -> Idempotency:
        return Idempotency(self.requests, self.clock, new_id)

    @cached_property
    def redriver(self) -> Redriver:
        stores, submits = (self.failed_tasks, self.tasks, self.lanes), (self.submitter, self.idempotency)
        return Redriver(*stores, *submits, self.registry.__contains__, self.clock, self.settings)

    @cached_property
    def control(self) -> Control:
        stores = (self.lanes, self.tasks, self.queue)
        queues = (self.scheduled_queue, self.shared_limits)
        return Control(*stores, self.clock, self._retry, self.settings, *queues)

    @cached_property
    def shared_control(self) -> SharedControl:
        stores = (self.shared_limits, self.lanes, self.queue)
        return SharedControl(*stores, self.clock, self._retry, self.settings.shared_limits)

    @cached_property
    def ringer(self) -> Ringer:
        return Ringer(self.schedules, self.scheduled_queue, self.clock, RANDOM.random)

    @cached_property
    def schedule_control(self) -> ScheduleControl:
        most = self.settings.max_schedules
        return ScheduleControl(self.schedules, self.ringer, self.clock, self._retry, new_token, most)

    @cached_property
    def ticker(self) -> Ticker:
        parts = (self.schedules, self.tasks, self.submitter, self.ringer, self.clock)
        report = StandardOutputLog(sys.stdout).write
        return Ticker(*parts, new_token, self.settings.over_limit, self.settings.stage, report)

    @cached_property
    def clearance(self) -> Clearance:
        stores, queues = (self.lanes, self.tasks, self.due_tasks), (self.queue, self.scheduled_queue)
        delete_schedules = self.schedule_control.delete_all
        shared_limits = self.shared_limits
        return Clearance(*stores, *queues, self.clock, self._retry, self.settings, delete_schedules, shared_limits)

    @cached_property
    def canary(self) -> Canary:
        uses = (self.tasks, self.control, self.submitter, self.log, self.clock)
        return Canary(*uses, new_id, self.settings.stage)

    @cached_property
    def overview(self) -> Overview:
        return Overview(self.directory, self.clock, self.settings, self.shared_limits)

    @property
    def _retry(self) -> RetryWithJitter:
        return RetryWithJitter(self.clock, RANDOM.random)

    @cached_property
    def outbound(self) -> "Outbound":
        from chalicelib.outbound.client import Outbound  # noqa: PLC0415 - a submit calls nobody, and need not load urllib3

        return Outbound(self.settings.http_allowed_hosts, self.settings.http_allow_private)

    def _call_out(self, *call: Any) -> "Answer":
        return self.outbound.call(*call)

    @cached_property
    def registry(self) -> Registry:
        """The tasks built in and the project's own. SettingError if one names an unknown shared limit."""
        load_own_tasks(self.settings.tasks_dir)
        registry, settings = Registry(registered), self.settings
        limits = (settings.http_allowed_hosts, settings.deadline_ms)
        http = HttpTask(self._call_out, settings.webhook_key, *limits, shared_hosts=settings.http_shared)
        registry.task("http", check=http.check, shared=http.shared_of, is_built_in=True)(http.__call__)
        if wrong := registry.unknown_shared(settings.shared_limits):
            raise SettingError("SHARED_LIMITS", wrong)
        return registry

    @cached_property
    def renewer(self) -> LeaseRenewer:
        # `make run` has a presence, and its worker processes extend what they received.
        return LeaseRenewer(self.lanes, self.clock, hide=self.queue.defer if self._presence is None else None)

    @cached_property
    def progress_writer(self) -> ProgressWriter:
        return ProgressWriter(self.tasks, self.clock)

    @cached_property
    def finalizer(self) -> Finalizer:
        stage, queues = self.settings.stage, self.scheduled_queue
        return Finalizer(self.tasks, self.queue, self.log, self.clock, self.renewer, stage, queues, self.observer)

    @cached_property
    def tracing(self) -> "Tracing | None":
        if not self.settings.otlp_endpoint:
            return None
        try:
            from chalicelib.tracing import tracing_to_collector  # noqa: PLC0415 - nobody else pays for its import
        except ImportError as error:
            reason = f"needs the packages of requirements-tracing.txt: {error}"
            raise SettingError("OTEL_EXPORTER_OTLP_ENDPOINT", reason) from error
        return tracing_to_collector(self.settings.stage)

    def submitting(self, traceparent: str) -> AbstractContextManager[str]:
        """Traces a submit, if at all; its value is the traceparent that its tasks keep."""
        return self.tracing.submitting(traceparent) if self.tracing else nullcontext(traceparent)

    @cached_property
    def observer(self) -> Observer:
        return Observers([one for one in (self.tracing, self.metrics) if one is not None])

    @cached_property
    def executor(self) -> TaskExecutor:
        return TaskExecutor(
            self.lanes,
            self.tasks,
            self.registry,
            self.clock,
            self.settings,
            self.renewer,
            self.finalizer,
            self.end_process,
            self._runner,
            self.shared_claims,
            self.observer,
            self.progress_writer,
        )

    @cached_property
    def shared_claims(self) -> SharedClaims:
        stores = (self.shared_limits, self.lanes, self.queue)
        return SharedClaims(*stores, self.clock, self.settings, self.server_time.is_off, self._presence)

    @cached_property
    def worker(self) -> Worker:
        stores, runs = (self.lanes, self.tasks, self.queue), (self.executor, self.finalizer)
        shared = self.shared_claims
        return Worker(*stores, *runs, self.clock, new_token, self.settings, self._presence, shared=shared)

    @cached_property
    def dispatcher(self) -> ScheduledDispatcher:
        send = CallbackSender(self.outbound.call, self.settings.webhook_key)
        send_callback = BoundedCallbackSender(send, self.callback_slots, self.clock, RANDOM.random)
        stores = (self.due_tasks, self.tasks, self.queue)
        cancellations = ScheduledCancellations(self.due_tasks, self.tasks, self.finalizer, self.clock)
        admitter = DueAdmitter(*stores, self.submitter, self.clock, new_token, cancellations, self.lanes)
        queues = (self.scheduled_queue, self.tasks, self.queue)
        late_up_to_ms = self.settings.late_up_to_ms
        handlers = (admitter, cancellations, send_callback)
        return ScheduledDispatcher(*queues, *handlers, self.clock, late_up_to_ms, self.ticker)

    def check_health(self) -> Iterable[tuple[str, str | None]]:
        """Each service with its error; None if it answers."""
        yield "dynamodb", _wrong_with(lambda: self.lanes)
        yield "sqs", _wrong_with(lambda: self.queue)

    @staticmethod
    def _required(variable: str, value: str) -> str:
        if not value:
            raise SettingError(variable, "is not set; `make run` and `make deploy` set it")
        return value


def _wrong_with(service: Callable[[], DynamoDBLaneStore | SQSTaskQueue]) -> str | None:
    try:
        service().check()
    except (UnavailableError, SettingError) as error:
        return str(error)
    return None


def end_process() -> None:
    """Ends this process within seconds, on Lambda at once; its messages reappear in the queue."""
    if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LEAVING_SECONDS)
    os._exit(EXIT_EXPIRED)


def load_own_tasks(tasks_dir: str = "") -> None:
    """Loads each module of chalicelib/own_tasks and of TASKS_DIR, which registers its tasks. Raises OwnTasksError."""
    outside.expose_sdk()
    for module in pkgutil.iter_modules(own_tasks.__path__, f"{own_tasks.__name__}."):
        importlib.import_module(module.name)
    if tasks_dir:
        outside.load(tasks_dir)


def queue_name() -> str:
    """The queue that triggers the worker. Chalice sets STAGE from its configuration before it loads the app."""
    return f"paceline-{os.environ.get('STAGE') or 'dev'}.fifo"


def scheduled_queue_name() -> str:
    """The queue that triggers the function `scheduled`. It keeps its first name: a renamed queue loses its messages."""
    return f"paceline-{os.environ.get('STAGE') or 'dev'}-later"


def authenticates() -> bool:
    """True if callers need a token. Chalice knows AUTH from its own configuration before it loads the app."""
    return auth_of(os.environ) is Auth.JWT


def has_canary() -> bool:
    """True if the stage's configuration asks for a canary. Chalice knows CANARY before it loads the app."""
    return os.environ.get("CANARY") == "true"


def page_origins() -> "Origins":
    """Read at each request, and without the container, so that public routes answer whatever else is set."""
    from chalicelib.api.origins import origins  # noqa: PLC0415 - paceline.testing does without Chalice

    return origins(os.environ.get("AUTH") or "", os.environ.get("CORS_ORIGINS") or "")


def new_id() -> str:
    """A UUID of version 7: ids sort by the time at which they were made."""
    return str(uuid7())


def new_token() -> str:
    return secrets.token_hex(8)


def _from_environment() -> Container:
    return Container(Settings.from_env(os.environ))


_make_container: Callable[[], Container] = _from_environment


def use(make: Callable[[], Container]) -> Callable[[], Container]:
    """Lets `make` build what `container()` returns, for programs with parts of their own. Returns the previous one."""
    global _make_container
    before, _make_container = _make_container, make
    container.cache_clear()
    return before


@lru_cache(maxsize=1)
def container() -> Container:
    """Returns this process's container, built on the first call. SettingError when the environment is wrong."""
    return _make_container()
