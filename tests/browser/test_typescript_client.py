"""The TypeScript client in a browser: a page loads the ES module as it was built, and submits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.node import built_client
from tests.served import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

PAGE = """<!doctype html>
<title>shop</title>
<link rel="icon" href="data:,">
<script type="module">
  import { Paceline } from "/shop/index.js";

  const paceline = new Paceline(location.origin);
  const submitted = await paceline.submit("ann", { payload: { text: "ü" } });
  const many = await paceline.submitMany("ann", [{}, {}]);
  const task = await paceline.wait(submitted, { timeoutSeconds: 20 });
  const missing = await paceline.task("ann", "unknown").catch((error) => error.kind);
  window.found = [task.state, many.map((one) => one.seq), missing];
</script>
"""


def test_a_page_submits_and_waits(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = built_client() / "dist" / "esm"

    def serve(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        if name == "page.html":
            route.fulfill(body=PAGE, content_type="text/html")
        else:
            route.fulfill(path=build / name, content_type="text/javascript")

    with served(tmp_path, monkeypatch, LIMITS="5/second") as url:
        context = browser.new_context()
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.route("**/shop/*", serve)
        page.goto(f"{url}/shop/page.html")
        page.wait_for_function("window.found", timeout=60_000)
        assert page.evaluate("window.found") == ["succeeded", [2, 3], "not_found"]
        assert complaints == []
        context.close()
