"""The examples of docs/how-to/own-tasks.md and limits.md, run as they stand there."""

import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chalicelib import own_tasks
from chalicelib.core.errors import PayloadError
from chalicelib.core.task import TaskState
from chalicelib.tasks.registry import Registry, registry
from tests.unit.workshop import Workshop

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "how-to"
DOCUMENT = GUIDES / "own-tasks.md"


def run_examples(*documents: Path) -> Registry:
    """The tasks of the documents' examples alone, whatever this project's own tasks are called."""
    before = dict(registry._definitions)
    registry._definitions.clear()
    try:
        for document in documents:
            for example in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
                exec(compile(example, str(document), "exec"), {"__name__": "example"})
        return Registry(registry)
    finally:
        registry._definitions.clear()
        registry._definitions.update(before)


@pytest.fixture(scope="module")
def documented() -> Registry:
    return run_examples(DOCUMENT, GUIDES / "limits.md")


class Shop(Workshop):
    def __init__(self, documented: Registry, **env: str) -> None:
        super().__init__(**env)
        self.registry._definitions |= documented._definitions

    def outcome(self, name: str, payload: Any) -> Any:
        task = self.submit(name=name, payload=payload)
        self.run()
        return self.record(task).outcome


def test_the_task_in_five_lines_runs(documented: Registry) -> None:
    outcome = Shop(documented).outcome("greet", {"name": "Ann", "times": 2})
    assert (outcome.state, outcome.result) == (TaskState.SUCCEEDED, "Hello, Ann! Hello, Ann! ")
    with pytest.raises(PayloadError) as refused:
        documented["greet"].arguments({"name": 1})
    assert refused.value.pointer == "/name"


def test_the_five_lines_are_five() -> None:
    [example] = re.findall(r"shop/tasks/greetings\.py\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 5


def test_options_context_and_what_it_may_say_work_as_written(documented: Registry) -> None:
    definition = documented["charge"]
    assert (definition.max_attempts, definition.backoff_ms, definition.deadline_ms) == (5, 2_000, 20_000)
    shop = Shop(documented)
    paid = shop.outcome("charge", {"card": "4242", "cents": 5})
    assert paid.result.endswith(": 5")
    refused = shop.outcome("charge", {"card": "4242", "cents": 0})
    assert (refused.state, refused.attempts, refused.error) == (
        TaskState.FAILED,
        1,
        "PermanentError: no such amount",
    )
    shop.submit(name="charge", payload={"card": "busy", "cents": 5})
    shop.run(until_ms=20_000)
    lane = shop.lanes.get("ann")
    assert (lane.throttled_reason, lane.throttled_until > shop.clock.now_ms()) == ("the bank asked for a pause", True)


def test_who_is_always_told_to_slow_down_fails_in_the_end(documented: Registry) -> None:
    shop = Shop(documented)
    outcome = shop.outcome("charge", {"card": "busy", "cents": 5})
    assert outcome.state is TaskState.FAILED
    assert "throttled 200 times" in outcome.error
    assert outcome.attempts == 1


def test_a_task_of_the_project_may_have_the_name_of_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    own = registry["log"]
    monkeypatch.setitem(registry._definitions, "greet", own)
    assert run_examples(DOCUMENT)["greet"] is not own
    assert registry["greet"] is own


def test_no_test_loads_what_the_project_has_in_its_own_tasks() -> None:
    assert list(pkgutil.iter_modules(own_tasks.__path__)) == []


def test_the_task_that_counts_tokens_estimates_and_reports_them(documented: Registry) -> None:
    payload = {"prompt": "x" * 400, "max_tokens": 50}
    chat = documented["chat"]
    assert chat.units_of(chat.arguments(payload)) == 150
    assert chat.units_of(chat.arguments({"prompt": "x" * 400})) == 1_100
    outcome = Shop(documented).outcome("chat", payload)
    assert (outcome.state, outcome.result, outcome.used_units) == (TaskState.SUCCEEDED, "x" * 50, 112)


def test_the_tests_of_the_page_about_testing_pass() -> None:
    """They are run as pytest runs them: each function, in a process of its own."""
    [example] = re.findall(r"```python\n(.*?)```", (GUIDES / "testing.md").read_text(), re.DOTALL)
    calls = "".join(f"\n{name}()" for name in re.findall(r"^def (test_\w+)", example, re.MULTILINE))
    assert calls.count("()") == 4
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"}
    ran = subprocess.run(
        [sys.executable, "-c", example + calls], env=environment, check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_the_program_of_the_page_for_newcomers_does_what_the_page_says() -> None:
    page = (ROOT / "docs" / "coming-from.md").read_text()
    [body] = re.findall(r"-d '(\{.*?\})'", page)
    submitted = json.loads(body)
    program = run_examples(ROOT / "docs" / "coming-from.md")
    shop = Shop(program)
    paid = shop.outcome(submitted["task"], submitted["payload"])
    assert (paid.state, paid.result) == (TaskState.SUCCEEDED, "ann paid 250 for A-1")
    shop.submit(name="charge", payload={"order": "busy", "cents": 250})
    shop.submit("bob", {"order": "A-2", "cents": 250}, "charge")
    shop.run(until_ms=20_000)
    lanes = {user: shop.lanes.get(user).throttled_reason for user in ("ann", "bob")}
    assert lanes == {"ann": "the bank asked for a pause", "bob": ""}
