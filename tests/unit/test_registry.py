"""How a function becomes a task: its types are the payload's, and what can't work is refused early."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from chalicelib.core.errors import PayloadError, RetryAfter, UnitsError
from chalicelib.core.task import Json
from chalicelib.tasks.registry import MAX_UNITS, MAX_USED_UNITS, Context, Registry
from chalicelib.tasks.runner import Failed, Returned, Throttled, run_function

CONTEXT = Context("ann", "0198-0001", "greet", 1, 1, 0, logging.getLogger("test"))


@dataclass
class Address:
    street: str
    number: int = 1


def defined(function: Callable[..., Json], **options: Any) -> Registry:
    registry = Registry()
    registry.task("greet", **options)(function)
    return registry


def greet(name: str, times: int = 1, to: Address | None = None) -> str:
    return f"Hello, {name}" * times


def test_payload_names_become_arguments() -> None:
    greeting = defined(greet)["greet"]
    assert greeting.run({"name": "Ann", "times": 2}, CONTEXT) == "Hello, AnnHello, Ann"
    assert greeting.arguments({"name": "Ann", "to": {"street": "High"}})["to"] == Address("High")


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ({}, ""),
        (None, ""),
        ([], ""),
        ("Ann", ""),
        ({"name": 1}, "/name"),
        ({"name": None}, "/name"),
        ({"name": "Ann", "times": "2"}, "/times"),
        ({"name": "Ann", "times": 2.5}, "/times"),
        ({"name": "Ann", "times": True}, "/times"),
        ({"name": "Ann", "nmae": "x"}, ""),
        ({"name": "Ann", "context": {}}, ""),
        ({"name": "Ann", "to": {"street": 1}}, "/to/street"),
        ({"name": "Ann", "to": {}}, "/to"),
    ],
)
def test_payload_that_does_not_fit_is_refused_with_a_pointer_to_the_fault(payload: Json, pointer: str) -> None:
    with pytest.raises(PayloadError) as refused:
        defined(greet)["greet"].arguments(payload)
    assert refused.value.pointer == pointer


def test_place_in_a_list_is_told() -> None:
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(PayloadError) as refused:
        defined(total)["greet"].arguments({"numbers": [1, "2"]})
    assert refused.value.pointer == "/numbers/1"


def test_types_say_more_than_their_kind() -> None:
    def book(size: Literal["s", "m"], seats: Annotated[int, Meta(ge=1, le=9)], at: datetime) -> Json:
        return [size, seats, at.timestamp()]

    task = defined(book)["greet"]
    fits = {"size": "s", "seats": 9, "at": "2026-11-22T05:20:00Z"}
    assert task.run(fits, CONTEXT) == ["s", 9, datetime(2026, 11, 22, 5, 20, tzinfo=timezone.utc).timestamp()]
    for wrong in ({"size": "l"}, {"seats": 0}, {"seats": 10}, {"at": "tomorrow"}):
        with pytest.raises(PayloadError):
            task.arguments(fits | wrong)


def test_function_can_take_its_payload_whole() -> None:
    def whole(payload: Json) -> Json:
        return payload

    task = defined(whole)["greet"]
    for payload in (None, 1, "x", [1], {"a": {"b": None}}):
        assert task.run(payload, CONTEXT) == payload


def test_whole_payload_can_have_a_type() -> None:
    def total(payload: list[int]) -> int:
        return sum(payload)

    assert defined(total)["greet"].run([1, 2], CONTEXT) == 3
    with pytest.raises(PayloadError):
        defined(total)["greet"].arguments({"a": 1})


def test_function_is_told_about_its_task_if_it_asks() -> None:
    def whoami(greeting: str, *, context: Context) -> str:
        return f"{greeting} {context.user_id} {context.attempt}"

    assert defined(whoami)["greet"].run({"greeting": "Hi"}, CONTEXT) == "Hi ann 1"


def test_function_without_parameters_takes_no_payload() -> None:
    task = defined(lambda: 7)["greet"]
    assert task.run(None, CONTEXT) == task.run({}, CONTEXT) == 7
    with pytest.raises(PayloadError):
        task.arguments({"a": 1})


def test_annotations_may_be_text() -> None:
    def later(count: "int", context: "Context") -> "str":
        return context.user_id * count

    assert defined(later)["greet"].run({"count": 2}, CONTEXT) == "annann"


def test_default_of_one_run_does_not_leak_into_the_next() -> None:
    def collect(item: str, seen: list[str] = []) -> Json:  # noqa: B006 - what is tested
        seen.append(item)
        return seen

    task = defined(collect)["greet"]
    assert [task.run({"item": one}, CONTEXT) for one in "ab"] == [["a"], ["b"]]


def test_what_a_function_makes_of_its_payload_is_not_what_is_noted() -> None:
    def spoil(payload: Any) -> None:
        payload["seen"][None] = object()

    payload = {"seen": {}}
    defined(spoil)["greet"].run(payload, CONTEXT)
    assert payload == {"seen": {}}


def test_options_are_kept_and_default_to_the_deployments() -> None:
    task = defined(greet, attempts=5, backoff_seconds=0.5, deadline_seconds=30)["greet"]
    assert (task.max_attempts, task.backoff_ms, task.deadline_ms) == (5, 500, 30_000)
    task = defined(greet)["greet"]
    assert (task.max_attempts, task.backoff_ms, task.deadline_ms) == (None, None, None)


@pytest.mark.parametrize(
    "options",
    [
        *({"attempts": 0}, {"attempts": -1}, {"attempts": 101}, {"backoff_seconds": -1}, {"backoff_seconds": 3601}),
        *({"deadline_seconds": 0}, {"deadline_seconds": 39_601}, {"backoff_seconds": float("nan")}),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        defined(greet, **options)


def takes_anything(*names: str) -> None: ...
def takes_keywords(**names: str) -> None: ...
def takes_positions(name: str, /) -> None: ...
def takes_a_function(name: Callable[[], int]) -> None: ...
def yields(name: str) -> Iterator[str]:
    yield name


async def yields_later(name: str) -> AsyncIterator[str]:
    yield name


def has_a_full_default(names: list[str] = ["a"]) -> None: ...  # noqa: B006 - what is tested


@pytest.mark.parametrize(
    "function",
    [takes_anything, takes_keywords, takes_positions, takes_a_function, yields, yields_later, has_a_full_default],
)
def test_function_that_json_can_not_call_is_refused_where_it_is_defined(function: Callable[..., Json]) -> None:
    with pytest.raises(ValueError, match="'greet'"):
        defined(function)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ä", "a/b", "a\n"])
def test_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="task name"):
        Registry().task(name)


def test_name_is_taken_once() -> None:
    registry = defined(greet)
    with pytest.raises(ValueError, match="taken"):
        registry.task("greet")(greet)


def test_registry_beside_another_leaves_it_alone() -> None:
    first = defined(greet)
    second = Registry(first)
    second.task("more")(greet)
    assert (first.names, second.names) == (["greet"], ["greet", "more"])


def test_check_says_what_types_can_not() -> None:
    def even(arguments: Mapping[str, Any]) -> None:
        if arguments["times"] % 2:
            raise PayloadError("has to be even", "/times")

    task = defined(greet, check=even)["greet"]
    assert task.arguments({"name": "Ann", "times": 2})
    with pytest.raises(PayloadError, match="even"):
        task.arguments({"name": "Ann", "times": 3})


@pytest.mark.parametrize(
    ("asked", "waits"), [(5, 5.0), (0, 0.0), (-1, 0.0), (1e9, 43_200.0), (float("inf"), 43_200.0), (float("nan"), 0.0)]
)
def test_wait_that_a_task_asks_for_is_bounded(asked: float, waits: float) -> None:
    assert RetryAfter(asked).seconds == waits


def test_integer_parameter_takes_a_whole_number_with_a_fraction_of_zero() -> None:
    registry = Registry()

    @registry.task("count")
    def count(times: int, more: Any = None) -> None:
        pass

    assert registry["count"].arguments({"times": 2.0, "more": None}) == {"times": 2, "more": None}
    with pytest.raises(PayloadError):
        registry["count"].arguments({"times": 2.5})


def chat(prompt: str, max_tokens: int = 40) -> Json:
    return prompt * max_tokens


def units_of(units: Any, payload: Json, function: Callable[..., Json] = chat) -> int:
    definition = defined(function, units=units)["greet"]
    return definition.units_of(definition.arguments(payload))


def test_task_counts_for_one_unit_or_the_number_or_what_its_function_computes() -> None:
    assert defined(chat)["greet"].units_of({}) == 1
    assert units_of(7, {"prompt": "Hi"}) == 7
    assert units_of(lambda payload: len(payload["prompt"]) + payload["max_tokens"], {"prompt": "Hi"}) == 42
    assert units_of(lambda payload: payload["max_tokens"], {"prompt": "Hi", "max_tokens": 5.0}) == 5
    assert units_of(len, [1, 2, 3], lambda payload: None) == 3


def test_units_function_changes_nothing_of_the_payload() -> None:
    payload = {"words": ["a"]}

    def spoil(payload: Any) -> int:
        payload["words"].append("b")
        return 1

    assert units_of(spoil, payload, lambda payload: None) == 1
    assert units_of(spoil, payload, lambda words: None) == 1
    assert payload == {"words": ["a"]}


@pytest.mark.parametrize("units", [0, -1, MAX_UNITS + 1, 2.0, 1.5, True, "1", None])
def test_units_that_are_no_positive_integer_are_refused(units: Any) -> None:
    with pytest.raises(UnitsError, match="allowed: an integer from 1"):
        units_of(lambda payload: units, {"prompt": "Hi"})
    with pytest.raises(ValueError, match="allowed"):
        defined(chat, units=units)


@pytest.mark.parametrize("error", [KeyError, SystemExit, KeyboardInterrupt, RecursionError])
def test_units_function_that_raises_is_a_fault_of_the_request(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(payload: Any) -> int:
        raise error("secret")

    with pytest.raises(UnitsError, match=f"raised {error.__name__}$"):
        units_of(fail, {"prompt": "Hi"})
    assert "the units of the task greet failed" in caplog.text


def test_units_function_that_is_asynchronous_is_refused_where_it_is_defined() -> None:
    async def later(payload: Any) -> int:
        return 1

    with pytest.raises(ValueError, match="plain function"):
        defined(chat, units=later)


@pytest.mark.parametrize(("took_ms", "is_logged"), [(50, False), (51, True)])
def test_units_function_that_takes_long_is_logged(
    took_ms: int, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    times = iter([0, took_ms / 1000])
    assert defined(chat, units=lambda payload: 3)["greet"].units_of({}, lambda: next(times)) == 3
    assert ("the units of the task greet took" in caplog.text) is is_logged


def context() -> Context:
    return Context("ann", "0198-0001", "greet", 1, 1, 0, logging.getLogger("test"))


def test_units_that_a_function_reports_are_part_of_its_outcome() -> None:
    def spend(payload: Json, *, context: Context) -> None:
        context.used(30)
        context.used(12)
        if payload:
            raise {"fail": ValueError("x"), "wait": RetryAfter(1, "busy")}[payload]

    ended = [run_function(defined(spend)["greet"], payload, context()) for payload in (None, "fail", "wait")]
    assert ended == [
        Returned(None, used_units=12),
        Failed("ValueError: x", used_units=12),
        Throttled(1.0, "busy", "RetryAfter: busy", used_units=12),
    ]


def test_function_that_reports_nothing_has_no_used_units_whatever_another_reported() -> None:
    spending = defined(lambda context: context.used(0))["greet"]
    assert run_function(spending, None, context()) == Returned(None, used_units=0)
    assert run_function(defined(chat)["greet"], {"prompt": ""}, context()) == Returned("", used_units=None)


@pytest.mark.parametrize("units", [-1, 1.0, True, "1", None, MAX_USED_UNITS + 1])
def test_report_of_units_that_make_no_sense_fails_the_attempt_and_keeps_the_one_before(units: Any) -> None:
    def spend(context: Context) -> None:
        context.used(5)
        context.used(units)

    ended = run_function(defined(spend)["greet"], None, context())
    assert isinstance(ended, Failed)
    assert "allowed: a whole number from 0" in ended.error
    assert ended.used_units == 5
