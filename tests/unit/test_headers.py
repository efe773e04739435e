"""The header fields that a request's reader parses by itself: Prefer, If-None-Match."""

from typing import Any

import pytest
from chalice.app import Request
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.api.headers import matches, preferences, preferred, values
from chalicelib.settings import OverLimit

STRICT, ASYNC = OverLimit.REJECT, OverLimit.ACCEPT


def request_with(*lines: tuple[str, str]) -> Request:
    """As API Gateway passes it: `headers` has the last line of each field."""
    several: dict[str, list[str]] = {}
    for name, value in lines:
        several.setdefault(name, []).append(value)
    event: dict[str, Any] = {
        "requestContext": {"httpMethod": "POST", "resourcePath": "/task", "identity": {}},
        "multiValueQueryStringParameters": None,
        "headers": dict(lines),
        "multiValueHeaders": several,
        "pathParameters": {},
        "stageVariables": {},
        "body": None,
    }
    return Request(event)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("respond-async", ASYNC),
        ("Respond-Async", ASYNC),
        ('respond-async=""', ASYNC),
        ("respond-async=", ASYNC),
        ('respond-async = "" ; x="y"', ASYNC),
        ("respond-async;a=b;c", ASYNC),
        ('foo; bar="", respond-async', ASYNC),
        ('wait="1,2", respond-async', ASYNC),
        ("handling=strict", STRICT),
        ("HANDLING=Strict", STRICT),
        ('handling = "strict"', STRICT),
        ('handling="st\\rict"', STRICT),
        ("handling=strict; respond-async", STRICT),
        ("respond-async, handling=strict", STRICT),
        ("handling=strict, handling=lenient", STRICT),
        (", ,handling=strict,,", STRICT),
        ("\thandling\t=\tstrict\t", STRICT),
        ("handling=lenient, handling=strict", None),
        ("Handling=lenient, hANDLING=strict, respond-async", ASYNC),
        ("respond-async=yes, respond-async", None),
        ('foo="a, respond-async"', None),
        ('foo="handling=strict, respond-async', None),
        ('foo="\\", respond-async, \\""', None),
        ("foo=bar; handling=strict, wait=1", None),
        ("foo; respond-async", None),
        ("handling", None),
        ("handling=", None),
        ('handling=" strict"', None),
        ("handling=strict x", None),
        ("handling strict", None),
        ("respond async", None),
        ("handling='strict'", None),
        ("=strict, =", None),
        ("", None),
    ],
)
def test_prefer_is_read_as_rfc_7240_says(header: str, expected: OverLimit | None) -> None:
    assert preferred(request_with(("Prefer", header))) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["handling=lenient", "handling=strict"], None),
        (["handling=strict", "handling=lenient"], STRICT),
        (["wait=5", "respond-async"], ASYNC),
        (["respond-async", "wait=5"], ASYNC),
    ],
)
def test_several_lines_are_one_list(lines: list[str], expected: OverLimit | None) -> None:
    assert preferred(request_with(*(("prefer", line) for line in lines))) == expected


def test_values_are_those_of_all_lines_whatever_the_case_of_the_name() -> None:
    assert values(request_with(("PREFER", "a"), ("PREFER", "b"), ("X", "c")), "prefer") == ["a", "b"]
    assert values(request_with(), "prefer") == []


TOKENS = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}", fullmatch=True)
WORDS = TOKENS | st.text(st.sampled_from('ab ,;="\\'), max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
SPACES = st.sampled_from(["", " ", "\t "])


@st.composite
def lists_of_preferences(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A header by RFC 7240's grammar, and its meaning."""
    elements: list[str] = []
    meaning: dict[str, str] = {}
    for name, word in draw(st.lists(st.tuples(TOKENS, st.none() | WORDS), max_size=5)):
        equals = "" if word is None else f"{draw(SPACES)}={draw(SPACES)}{word}"
        parameters = [
            f";{draw(SPACES)}{key}={value}" for key, value in draw(st.lists(st.tuples(TOKENS, WORDS), max_size=2))
        ]
        elements.append(f"{draw(SPACES)}{name}{equals}{draw(SPACES)}{''.join(parameters)}{draw(SPACES)}")
        value = word or ""
        if value.startswith('"'):
            value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        meaning.setdefault(name.lower(), value.lower())
    return ",".join(elements), meaning


@given(lists_of_preferences())
def test_every_list_of_the_grammar_is_read(case: tuple[str, dict[str, str]]) -> None:
    header, meaning = case
    assert preferences(header) == meaning


@given(st.text(max_size=200) | st.text(st.sampled_from('a=",;\\ \t'), max_size=200))
def test_no_text_breaks_the_reader(header: str) -> None:
    assert all(name == name.lower() for name in preferences(header))


@pytest.mark.parametrize("part", ['"', "\\", ",", ";", "a=", 'a="', '"\\', "a=b;", '";'])
def test_long_header_is_read_in_time_that_grows_with_its_length(part: str) -> None:
    """Backtracking would take hours."""
    preferences(part * (60_000 // len(part)) + "\x00")


TAG = '"0f3c"'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["*"], True),
        ([" * "], True),
        ([TAG], True),
        ([f"W/{TAG}"], True),
        ([f'"a", W/"b,c", {TAG}'], True),
        ([f'"a",W/{TAG},"b"'], True),
        (['"a"', TAG], True),
        ([TAG, '"a"'], True),
        (['"0f3"', '"0f3c '], False),
        (["0f3c"], False),
        (['"a, "0f3c""'], False),
        (['"*"'], False),
        ([""], False),
        ([], False),
    ],
)
def test_if_none_match_takes_lists_weak_tags_and_a_star(lines: list[str], expected: bool) -> None:
    assert matches(request_with(*(("If-None-Match", line) for line in lines)), TAG) is expected
