"""How AWS is called: the clients, their time-outs and retries, and what their errors mean here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import UnavailableError

#: Seconds. A submit makes four calls at most and has to be answered within API Gateway's 29 s: 4 x 2 x (1 + 2.5) = 28.
CONNECT_TIMEOUT = 1
READ_TIMEOUT = 2.5
TRIES = 2
#: Connections kept for reuse; more are opened when needed.
POOLED_CONNECTIONS = 50

#: Answers that trying later may change.
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
#: Answers that mean that the deployment is not complete (yet).
MISSING_ERRORS = {
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
}


def client(service: Any, endpoint_url: str | None, read_timeout: float = READ_TIMEOUT) -> Any:
    """A client whose calls end within TRIES x (CONNECT_TIMEOUT + read_timeout) seconds."""
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=POOLED_CONNECTIONS,
        tcp_keepalive=True,
        parameter_validation=False,
    )
    with unavailable(f"making a client for {service}"):
        return boto3.client(service, endpoint_url=endpoint_url, config=config)


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Turns what trying later may change into an UnavailableError; anything else passes."""
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if error_code(error) in PASSING_ERRORS | MISSING_ERRORS or status >= 500:
            raise UnavailableError(f"{what}: {error}") from error
        raise
    except BotoCoreError as error:
        raise UnavailableError(f"{what}: {error}") from error
