"""Reads HTTP header fields: all values of a field, and the preferences of a request (RFC 7240)."""

import re
from collections.abc import Mapping

from chalice.app import Request

from chalicelib.settings import OverLimit

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a part of HTTP's grammar
_QUOTED = r'"(?:[^"\\]|\\.)*"'
#: One element of a list: a comma in a quoted string does not end it, and a string that has no end takes all the rest.
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
#: A preference and its value; its parameters are not used.
_PREFERENCE = re.compile(rf"({_TOKEN})[ \t]*(?:=[ \t]*({_TOKEN}|{_QUOTED})?)?[ \t]*(?:;.*)?", re.DOTALL)
_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
#: The preferences that Paceline knows, as `Preference-Applied` names them.
_APPLIED = {OverLimit.ACCEPT: "respond-async", OverLimit.REJECT: "handling=strict"}


def values(request: Request, name: str) -> list[str]:
    """Returns the field's value of each header line, in order; `request.headers` has only the last line's.

    name: lower case. Local servers join the lines of one field with commas.
    """
    every: Mapping[str, list[str]] = request.to_original_event().get("multiValueHeaders") or {}
    found = [str(value) for field, several in every.items() if field.lower() == name for value in several]
    one = request.headers.get(name)
    return found or ([] if one is None else [str(one)])


def preferences(header: str) -> dict[str, str]:
    """Returns each preference with its value, both in lower case; the first of several with one name counts.

    An empty value is the same as none. Skips elements that are not preferences.

    >>> preferences('Respond-Async=""; x, handling = "strict", handling=lenient, wait="1,2"')
    {'respond-async': '', 'handling': 'strict', 'wait': '1,2'}
    """
    found: dict[str, str] = {}
    for element in _ELEMENT.findall(header):
        if preference := _PREFERENCE.fullmatch(element.strip(" \t")):
            name, value = preference[1], preference[2] or ""
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
            found.setdefault(name.lower(), value.lower())
    return found


def preferred(request: Request) -> OverLimit | None:
    """Returns the Prefer header's choice for a submit over the limit; None without one."""
    found = preferences(", ".join(values(request, "prefer")))
    if found.get("handling") == "strict":
        return OverLimit.REJECT
    return OverLimit.ACCEPT if found.get("respond-async") == "" else None


def preference_applied(choice: OverLimit) -> dict[str, str]:
    """Returns the response header that confirms a preference (RFC 7240, 3)."""
    return {"Preference-Applied": _APPLIED[choice]}


def traceparent(request: Request) -> str:
    """Returns the trace that the request belongs to (W3C Trace Context); empty without a valid one."""
    match = _TRACEPARENT.fullmatch(str(request.headers.get("traceparent", "")).strip())
    is_valid = match and match[1] != "ff" and match[2].strip("0") and match[3].strip("0")
    return match[0] if match and is_valid else ""


def matches(request: Request, entity_tag: str) -> bool:
    """Whether If-None-Match names this entity tag, by weak comparison, or is `*` (RFC 9110, 13.1.2)."""
    header = ", ".join(values(request, "if-none-match")).strip()
    return header == "*" or entity_tag in _ENTITY_TAG.findall(header)
