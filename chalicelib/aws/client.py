"""The clients of AWS, with their time-outs, their retries and the meaning of their errors."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from chalicelib.aws.signed_client import Credentials, SignedClient
from chalicelib.core.errors import UnavailableError

#: Seconds.
CONNECT_TIMEOUT = 1
READ_TIMEOUT = 2.5
TRIES = 2
#: Seconds in which a request may begin calls, and then, after a failure, the one that releases its Idempotency-Key.
#: With the last call of each, 17 + 3.5 + 4 + 3.5 = 28, the API answers before API Gateway's time-out of 29 s.
BUDGET_SECONDS = 17
CLEANUP_SECONDS = 4
#: Variables that change how boto3 reaches or signs in to AWS, which only boto3 understands.
FOR_BOTO3 = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_CONFIG_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS"),
)
#: Regions of the partition whose endpoints end with amazonaws.com.
_REGION = re.compile(r"(af|ap|ca|eu|il|me|mx|sa|us|us-gov)-[a-z]+-[0-9]")
#: A fixed text: botocore computes its own anew for every call, twice, which is a quarter of a call's CPU.
USER_AGENT = "paceline"
#: Connections kept for reuse; more are opened when needed.
POOLED_CONNECTIONS = 50

#: Error codes that a retry may pass.
PASSING_ERRORS = {
    "InternalServerError",
    "InternalError",
    "InternalFailure",
    "KmsThrottled",
    "LimitExceededException",
    "OverLimit",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
#: Error codes of an incomplete deployment.
MISSING_ERRORS = {
    "NonExistentQueue",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
}


class _Budget(Struct):
    #: the budget's clock, in seconds
    now: Callable[[], float]
    until: float
    cleanup_seconds: float
    is_failing: bool = False

    def fail(self) -> None:
        """Records a failed call: from now on the thread may only clean up."""
        if not self.is_failing:
            self.is_failing, self.until = True, self.now() + self.cleanup_seconds


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def time_budget(
    seconds: float = BUDGET_SECONDS,
    cleanup_seconds: float = CLEANUP_SECONDS,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Lets this thread begin calls, and second tries, for `seconds`; after a failed call, for `cleanup_seconds`.

    now: the clock that both are counted by, in seconds; it must not be set back.
    """
    token = _budget.set(_Budget(now, now() + seconds, cleanup_seconds))
    try:
        yield
    finally:
        _budget.reset(token)


def _refuse_when_spent(**_: Any) -> None:
    budget = _budget.get()
    if budget and budget.now() > budget.until:
        budget.fail()
        raise UnavailableError("the request's time is spent")


class NotRepeatedError(Exception):
    """A call failed, may have been executed all the same, and must not be repeated: that could undo later writes."""


_once: ContextVar[bool] = ContextVar("once", default=False)


@contextmanager
def tried_once(what: str) -> Iterator[None]:
    """Gives each of the body's calls one try. UnavailableError if that fails: it may have been executed."""
    token = _once.set(True)
    try:
        yield
    except NotRepeatedError as error:
        raise _failed(what, error) from error
    finally:
        _once.reset(token)


def _refuse_second_try(operation: str, attempt: int) -> None:
    if attempt > 1 and (operation == "BatchWriteItem" or _once.get()):
        raise NotRepeatedError("only its caller knows how to go on")


def _refuse_repeat(request: Any, operation_name: str, **_: Any) -> None:
    _refuse_second_try(operation_name, request.context["retries"]["attempt"])


def _before_try(operation: str, attempt: int) -> None:
    """Refuses a try of the signed client as `_refuse_when_spent` and `_refuse_repeat` refuse boto3's."""
    _refuse_when_spent()
    _refuse_second_try(operation, attempt)


class ClientOptions(Struct, frozen=True):
    """Time-outs in seconds."""

    tries: int = TRIES
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT


#: Of requests and tasks.
OPTIONS = ClientOptions()


def client(service: Any, endpoint_url: str | None, options: ClientOptions = OPTIONS, is_boto3: bool = False) -> Any:
    """A client whose calls end within tries x (connect_timeout + read_timeout) seconds, and 1 s between two tries.

    A BatchWriteItem, which can't be conditional, raises NotRepeatedError instead of a second try.

    It is a SignedClient where the environment has credentials and nothing that only boto3 understands; else boto3's.
    """
    credentials, region = _credentials(), os.environ.get("AWS_DEFAULT_REGION", "")
    url = endpoint_url or _regional(service, region)
    make_boto3 = partial(_boto3_client, service, endpoint_url, options)
    if is_boto3 or credentials is None or not region or not url:
        return make_boto3()
    return SignedClient(
        service,
        region,
        url,
        credentials,
        make_boto3,
        _before_try,
        tries=options.tries,
        connect_timeout=options.connect_timeout,
        read_timeout=options.read_timeout,
        kept=POOLED_CONNECTIONS,
    )


def _credentials() -> Credentials | None:
    env = os.environ
    names = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
    access_key, secret_key, token = (env.get(name, "") for name in names)
    is_for_boto3 = any(env.get(name) for name in FOR_BOTO3)
    return Credentials(access_key, secret_key, token) if access_key and secret_key and not is_for_boto3 else None


def _regional(service: str, region: str) -> str:
    """AWS's endpoint; empty if a file may name another one, or the region's endpoints have other names."""
    if os.path.exists(os.path.expanduser("~/.aws/config")) or not _REGION.fullmatch(region):  # noqa: PTH110, PTH111
        return ""
    return f"https://{service}.{region}.amazonaws.com"


def _boto3_client(service: Any, endpoint_url: str | None, options: ClientOptions) -> Any:
    import boto3  # noqa: PLC0415 - half of a cold start
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=options.connect_timeout,
        read_timeout=options.read_timeout,
        retries={"mode": "standard", "total_max_attempts": options.tries},
        max_pool_connections=POOLED_CONNECTIONS,
        tcp_keepalive=True,
        parameter_validation=False,
        user_agent=USER_AGENT,
    )
    with unavailable(f"making a client for {service}"):
        made = boto3.client(service, endpoint_url=endpoint_url, config=config)
    made.meta.events.register("before-send", _refuse_when_spent)
    made.meta.events.register("request-created.dynamodb", _refuse_repeat)
    return made


def error_code(error: ClientError) -> str:
    """Returns the error's code, without the prefix AWS.SimpleQueueService that SQS's older codes have."""
    return str(error.response.get("Error", {}).get("Code", "")).rpartition(".")[2]


@contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Turns errors that a retry may pass into an UnavailableError; other errors propagate."""
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if error_code(error) in PASSING_ERRORS | MISSING_ERRORS or status >= 500:
            raise _failed(what, error) from error
        raise
    except BotoCoreError as error:
        raise _failed(what, error) from error


class Condition(Struct):
    """The outcome of a conditional write."""

    #: False if the condition failed, so nothing was written
    holds: bool = True
    #: the current item, if the write asked for it with ReturnValuesOnConditionCheckFailure
    item: Any = None


@contextmanager
def conditional(what: str) -> Iterator[Condition]:
    """Turns the failed condition of the body's one write into a value; other errors become as in `unavailable`."""
    condition = Condition()
    try:
        with unavailable(what):
            yield condition
    except ClientError as error:
        if error_code(error) != "ConditionalCheckFailedException":
            raise
        condition.holds, condition.item = False, error.response.get("Item")


def _failed(what: str, error: Exception) -> UnavailableError:
    if budget := _budget.get():
        budget.fail()
    return UnavailableError(f"{what}: {error}")
