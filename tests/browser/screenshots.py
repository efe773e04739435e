"""`make screenshots`: runs a system, gives it a demo's load for a minute, and takes docs/img/dashboard-*.png of it."""

from __future__ import annotations

import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.browser.chromium import DESKTOP, PHONE, ROOT, chromium, missing
from tests.e2e.running import Paceline, running

IMAGES = ROOT / "docs" / "img"
#: Seconds from the first burst to the pictures.
SHOWN_AFTER = 68
#: When, seconds after the first one; who; how many tasks.
BURSTS = (
    (0, "northwind", 34),
    (3, "ada@lovelace.dev", 7),
    (8, "globex", 26),
    (16, "user-1042", 9),
    (24, "initech", 24),
    (31, "ada@lovelace.dev", 6),
    (38, "user-1042", 8),
    (44, "hooli", 12),
    (60, "ada@lovelace.dev", 9),
)
#: A lane with limits of its own, and one that is throttled.
OWN_LIMITS = ("globex", "2/second; 12/20 seconds")
PAUSED = (50, "hooli")
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"size": DESKTOP, "color_scheme": "light"},
    "dark": {"size": DESKTOP, "color_scheme": "dark"},
    "phone": {"size": PHONE, "color_scheme": "light", "device_scale_factor": 2, "is_mobile": True, "has_touch": True},
}


def main() -> int:
    if reason := missing():
        print(f"No pictures: {reason}", file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, running(Path(directory), LIMITS="1/second; 20/minute") as paceline:
        shoot_all(paceline)
    return 0


def shoot_all(paceline: Paceline) -> None:
    """All pages are open from the start, for a page knows only what it saw."""
    with chromium() as browser, ExitStack() as load:
        pages = {}
        for name, view in VIEWS.items():
            width, height = view["size"]
            more = {option: value for option, value in view.items() if option != "size"}
            page = browser.new_context(viewport={"width": width, "height": height}, **more).new_page()
            page.goto(f"http://127.0.0.1:{paceline.port}/")
            pages[name] = page
        paceline.request("PUT", f"/api/v1/users/{OWN_LIMITS[0]}/limits", {"limits": OWN_LIMITS[1]})
        for timer in timers(paceline):
            load.callback(timer.cancel)
            timer.start()
        next(iter(pages.values())).wait_for_timeout(SHOWN_AFTER * 1000)
        for name, page in pages.items():
            path = IMAGES / f"dashboard-{name}.png"
            page.bring_to_front()
            page.wait_for_timeout(1500)
            page.screenshot(path=path)
            print(f"Took {path.relative_to(ROOT)}")


def timers(paceline: Paceline) -> list[threading.Timer]:
    def burst(user: str, count: int) -> None:
        paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{}] * count})

    def pause(user: str) -> None:
        paceline.request("POST", f"/api/v1/users/{user}/pause", {})

    bursts = [threading.Timer(at, burst, (user, count)) for at, user, count in BURSTS]
    return [*bursts, threading.Timer(PAUSED[0], pause, (PAUSED[1],))]


if __name__ == "__main__":
    sys.exit(main())
