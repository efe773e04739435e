"""Where the Paceline is that a command talks to, and how it is reached."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx
import typer

from completions.options import setting
from infra.cli.failures import NotReachableError
from local.run_settings import DEFAULT_PORT
from paceline_client import Clock, Paceline
from paceline_client.sender import SystemClock

#: Longer than the 35 s after which a submit whose API process died can be taken up again.
TOTAL_SECONDS = 40.0


@dataclass(frozen=True)
class World:
    """What a command meets outside; tests bring their own."""

    #: None for the network.
    transport: httpx.BaseTransport | None = None
    clock: Clock = field(default_factory=SystemClock)


def world_of(context: typer.Context) -> World:
    return context.obj if isinstance(context.obj, World) else World()


def local_url() -> str:
    """Where `make run` listens, by HOST and PORT from the environment or `.env`."""
    return f"http://{setting('HOST', '127.0.0.1')}:{setting('PORT', str(DEFAULT_PORT))}"


def connect(context: typer.Context, url: str | None, token: str | None) -> Paceline:
    """A client for the Paceline at url, None for this machine's; its calls raise NotReachableError when none is there.

    Raises BadParameter for what is no URL or can be no token.
    """
    world, base_url = world_of(context), (url or local_url()).rstrip("/")
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise typer.BadParameter("the token is empty, or has characters that no header can hold", param_hint="--token")
    try:
        transport = FirstContact(world.transport or httpx.HTTPTransport(), base_url)
        return Paceline(base_url, token, total_seconds=TOTAL_SECONDS, transport=transport, clock=world.clock)
    except (ValueError, httpx.InvalidURL) as error:
        raise typer.BadParameter(str(error), param_hint="--url") from error


class FirstContact(httpx.BaseTransport):
    """Does not try again where nothing has ever answered; what answered once may come back, and is waited for."""

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
