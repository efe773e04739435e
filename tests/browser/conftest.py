"""A browser, two running systems, and pages that fail their test when they complain or call elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.browser.chromium import DESKTOP, SCREENSHOTS, chromium, missing
from tests.e2e.running import Paceline
from tests.tokens import SECRET

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

#: Milliseconds that anything may take on a busy machine.
PATIENCE_MS = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := missing():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Paceline]]]:
    """Both; the second one starts while the first is used."""
    limits = {"LIMITS": "2/second; 20/minute"}
    settings = {"open": limits, "closed": limits | {"AUTH": "jwt", "JWT_SECRET": SECRET}}
    made = {name: Paceline(tmp_path_factory.mktemp(name), **env) for name, env in settings.items()}
    with ThreadPoolExecutor(1) as pool:
        yield {name: pool.submit(started, one) for name, one in made.items()}
    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(Paceline.stop, made.values()))


def started(paceline: Paceline) -> Paceline:
    paceline.start()
    return paceline


@pytest.fixture(scope="session")
def open_system(systems: dict[str, Future[Paceline]]) -> Paceline:
    """One where everybody may do everything."""
    return systems["open"].result()


@pytest.fixture(scope="session")
def closed_system(systems: dict[str, Future[Paceline]]) -> Paceline:
    """One that wants tokens."""
    return systems["closed"].result()


class Window:
    """One page in a context of its own, and what it said and asked."""

    def __init__(self, context: BrowserContext, paceline: Paceline) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.origin = f"http://127.0.0.1:{paceline.port}"
        self.complaints: list[str] = []
        self.requests: list[Request] = []
        self.under_way: set[Request] = set()
        #: what may be complained about
        self.expected = re.compile("(?!)")
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("requestfinished", self._answered)
        self.page.on("requestfailed", self._answered)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def _request(self, request: Request) -> None:
        self.requests.append(request)
        self.under_way.add(request)

    def _answered(self, request: Request) -> None:
        self.under_way.discard(request)

    def go(self, path: str = "/") -> Page:
        self.page.goto(self.origin + path)
        return self.page

    def lane(self, user: str) -> Page:
        return self.go(f"/#/lane/{quote(user, safe='')}")

    def shoot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def stop_time(self) -> None:
        """From now on the page's clock stands still, but for `api_calls`. It has to be a page of `with_clock`."""
        self.page.clock.pause_at(self.page.evaluate("Date.now()") / 1000 + 5)  # never in its past

    def with_clock(self) -> Window:
        self.page.clock.install()
        return self

    def api_calls(self, seconds: float) -> int:
        """How often the page asks the API while its stopped clock goes on by so much: to it, answers take no time."""
        before = len(self.requests)
        for _ in range(round(seconds * 2)):
            self.page.clock.run_for(500)
            wait_until(lambda: not self.page.wait_for_timeout(10) and not self.under_way, "all is answered")
        return sum("/api/" in request.url for request in self.requests[before:])

    def check(self) -> None:
        assert [one for one in self.complaints if not self.expected.search(one)] == []
        assert {request.url for request in self.requests if not request.url.startswith(self.origin)} == set()


Open = Callable[..., Window]


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Open]:
    """Opens windows on a system; `scheme` light or dark, `size` in CSS pixels."""
    windows: list[Window] = []
    contexts: list[BrowserContext] = []

    def open_one(paceline: Paceline, size: tuple[int, int] = DESKTOP, scheme: str = "light", **more: Any) -> Window:
        viewport = {"width": size[0], "height": size[1]}
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme, **more))  # type: ignore[arg-type]
        windows.append(Window(contexts[-1], paceline))
        return windows[-1]

    yield open_one
    for context in contexts:
        context.close()
    for window in windows:
        window.check()


@pytest.fixture
def window(open_window: Open, open_system: Paceline) -> Window:
    return open_window(open_system)


@pytest.fixture
def user() -> str:
    return f"ann-{uuid4().hex[:8]}"


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
