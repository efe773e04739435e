"""The documentation: its links, its make targets, its pictures, and one version everywhere."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.api import openapi
from demo.diagrams import FOLDER, PICTURES
from paceline_client import __version__
from tests.facts import table

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "client").glob("*.md"),
        *(ROOT / "clients").glob("*/*.md"),
    ]
)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
#: `make X` in code, inline or at the beginning of a line of a block.
TARGET = re.compile(r"(?:`|^)make ([a-z][a-z0-9-]*)", re.MULTILINE)
PATH = re.compile(
    r"`((?:chalicelib|tests|infra|local|operations|completions|demo|client|clients|docs|bench)/[\w./-]*\.\w+)`"
)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            if not re.match(r"[a-z]+:", link):
                yield page, link


def anchors(page: Path) -> set[str]:
    """The anchors that Markdown's headings get: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_merge_left_a_conflict(page: Path) -> None:
    assert not re.findall(r"^(?:<<<<<<<|>>>>>>>) .*", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_point_to_files_and_anchors_that_exist(page: Path) -> None:
    for origin, link in links():
        if origin != page:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            todo += [
                target
                for origin, link in links()
                if origin == page and (target := (page.parent / link.partition("#")[0]).resolve()).suffix == ".md"
            ]
    assert set(PAGES) <= reached


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_that_the_docs_name_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGET.findall(page.read_text())) <= targets


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_the_docs_name_exists(page: Path) -> None:
    missing = [path for path in PATH.findall(page.read_text()) if not (ROOT / path).exists()]
    assert missing == []


def test_the_own_task_of_the_readme_is_the_one_that_a_test_runs() -> None:
    example = re.compile(r"```python\n# \.\./shop/tasks/greetings\.py\n.*?```", re.DOTALL)
    [first], [tested] = (
        example.findall((ROOT / path).read_text()) for path in ("README.md", "docs/how-to/own-tasks.md")
    )
    assert first == tested


def test_the_settings_page_names_the_settings_of_the_example_file() -> None:
    settings = re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert [setting for setting in settings if f"`{setting}`" not in page] == []


def test_the_example_file_has_the_settings_of_the_page() -> None:
    """Those of tasks and of `make run`: all but those of a deployment, whose tables come after them."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text().partition("| `STAGE`")[0]
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) ", page, re.MULTILINE)
    example = (ROOT / ".env.example").read_text()
    assert [one for row in rows for one in re.findall("[A-Z_]+", row) if f"\n#{one}=" not in example] == []


@pytest.mark.parametrize("name", PICTURES)
def test_the_diagrams_are_as_the_command_draws_them(name: str) -> None:
    assert (FOLDER / name).read_text() == PICTURES[name](), "run `make diagrams`"


def test_api_clients_and_changelog_have_one_version() -> None:
    package = json.loads((ROOT / "clients" / "typescript" / "package.json").read_text())
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert openapi.VERSION == __version__ == package["version"] == newest[1]


def test_the_page_about_emulators_is_as_the_facts_say() -> None:
    page = table.PAGE.read_text()
    assert page == table.with_tables(page), "python -m tests.facts.table writes it anew"


def test_what_ci_imports_is_there() -> None:
    """`.ci/run` runs Python after an hour of tests, so a moved name would show late."""
    script = (ROOT / ".ci" / "run").read_text()
    found = re.findall(r"from ([\w.]+) import (\w+)", script)
    assert [one for one in found if not hasattr(importlib.import_module(one[0]), one[1])] == []
    assert found
