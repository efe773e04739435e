"""Connects a command to a Paceline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx
import typer

from paceline_cli.failures import NotReachableError
from paceline_client import Clock, Paceline
from paceline_client.client import SystemClock

#: Longer than the 35 s after which a submit whose API process died can be taken up again.
TOTAL_SECONDS = 40.0
#: Where `make run` answers.
DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class World:
    """The network and the clock of a command; tests replace both."""

    #: None for the network.
    transport: httpx.BaseTransport | None = None
    clock: Clock = field(default_factory=SystemClock)
    #: for commands without --url
    default_url: str = DEFAULT_URL
    #: names of tasks that are known without a request, for completion in the shell
    task_names: Callable[[], Iterable[str]] = tuple


def world_of(context: typer.Context) -> World:
    return context.obj if isinstance(context.obj, World) else World()


def connect(context: typer.Context, url: str | None, token: str | None) -> Paceline:
    """A client of the Paceline at `url`, by default on this machine; its calls raise NotReachableError if none answers.

    BadParameter for an invalid URL or token.
    """
    world = world_of(context)
    base_url = (url or world.default_url).rstrip("/")
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise typer.BadParameter("the token is empty, or has characters that no header can hold", param_hint="--token")
    try:
        transport = FirstContact(world.transport or httpx.HTTPTransport(), base_url)
        return Paceline(
            base_url, token, total_seconds=TOTAL_SECONDS, fail_fast=False, transport=transport, clock=world.clock
        )
    except (ValueError, httpx.InvalidURL) as error:
        raise typer.BadParameter(str(error), param_hint="--url") from error


class FirstContact(httpx.BaseTransport):
    """Retries only servers that have answered before; a first connection fails at once."""

    def __init__(self, inner: httpx.BaseTransport, url: str) -> None:
        self._inner = inner
        self._url = url
        self._reached = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._inner.handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if self._reached:
                raise
            raise NotReachableError(self._url, str(error) or type(error).__name__) from error
        self._reached = True
        return response

    def close(self) -> None:
        self._inner.close()
