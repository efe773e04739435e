"""The address of a deployed stage, and the wait for its first answer."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from infra.deploy.account import Account
from infra.deploy.errors import DeployError
from infra.deploy.function_url import URL
from infra.deploy.stages import FrontDoor, Stage

#: Seconds to wait for the first answer of a new API with a cold function.
_ANSWER_SECONDS = 60


def address(account: Account, stage: Stage, outputs: Mapping[str, str]) -> str:
    """Returns the URL of the API and its dashboard, whose links need the slash at its end.

    outputs: the stack's. LocalStack has one host name for all REST APIs.
    """
    if stage.front_door is FrontDoor.FUNCTION_URL:
        return outputs[URL]
    if account.endpoint_url:
        path = f"restapis/{outputs['RestAPIId']}/{stage.api_gateway_stage}/_user_request_/"
        return f"{account.endpoint_url.rstrip('/')}/{path}"
    return outputs["EndpointURL"]


def wait_for_answer(url: str, endpoint_url: str | None) -> None:
    """Returns when the API has answered a health check. DeployError if it does not within a minute."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            with urllib.request.urlopen(health_check(url, endpoint_url), timeout=30):  # noqa: S310 - our own URL
                return
        except (urllib.error.URLError, OSError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 401:
                return  # the API answers: with AUTH=jwt, /health needs the admin scope
            if time.monotonic() > deadline:
                raise DeployError(f"{url}health does not answer: {error}", "see the API function's log") from error
        time.sleep(1)


def health_check(url: str, endpoint_url: str | None) -> urllib.request.Request:
    """Returns the request. LocalStack finds a Function URL by its host name, which few machines can resolve."""
    parts = urlsplit(url)
    base = f"{endpoint_url.rstrip('/')}{parts.path}" if endpoint_url else url
    return urllib.request.Request(f"{base}health", headers={"Host": parts.netloc})  # noqa: S310 - our own URL
