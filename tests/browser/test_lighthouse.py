"""Lighthouse's audits of accessibility, best practices and layout shifts, on a desktop and a phone.

Its performance score is left out: it depends on how busy the machine is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import ROOT, find_chromium
from tests.browser.seeded import Api, fill
from tests.node import packages, run
from tests.served import served

PACKAGES = Path(__file__).parent / "lighthouse" / "package.json"
#: Pages with every part: shared limits, lanes, failed tasks and completions; a lane with waiting and failed tasks.
PAGES = {"no lanes": "/", "all lanes": "/", "a lane": "/#/lane/northwind"}


@dataclass(frozen=True)
class Report:
    accessibility: int
    best_practices: int
    layout_shift: float
    #: audits that were not passed, with the elements
    faults: tuple[str, ...]


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder with Lighthouse; the test is skipped where npm can't install it."""
    return packages(PACKAGES, ROOT / "build" / "lighthouse")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    settings = {"LIMITS": "2/second; 20/minute", "MAX_ATTEMPTS": "1"}
    with served(tmp_path, monkeypatch, HTTP_ALLOWED_HOSTS="*", HTTP_ALLOW_PRIVATE="true", **settings) as url:
        yield Api(url)


def audit(modules: Path, url: str, form: str) -> Report:
    script = PACKAGES.with_name("audit.mjs")
    text = run(ROOT, "node", str(script), str(modules), url, form, CHROME_PATH=find_chromium() or "")
    return read(json.loads(text))


def read(report: dict[str, Any]) -> Report:
    assert "runtimeError" not in report, report["runtimeError"]
    audits, scores = report["audits"], report["categories"]
    failed = [name for name, one in audits.items() if one["score"] is not None and one["score"] < 0.9]
    return Report(
        round(scores["accessibility"]["score"] * 100),
        round(scores["best-practices"]["score"] * 100),
        audits["cumulative-layout-shift"]["numericValue"],
        tuple(f"{name}: {json.dumps(audits[name].get('details'))[:600]}" for name in failed),
    )


@pytest.mark.parametrize("form", ["desktop", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_lighthouse_finds_no_fault(modules: Path, api: Api, page: str, form: str) -> None:
    if page != "no lanes":
        fill(api)
    report = audit(modules, api.url + PAGES[page], form)
    print(f"{page}, {form}: {report}")
    assert report.accessibility == 100, report.faults
    assert report.best_practices == 100, report.faults
    assert report.layout_shift < 0.1, report.faults
