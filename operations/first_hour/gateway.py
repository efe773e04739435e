"""Compares the answers of API Gateway and of the app behind it with the contract."""

from __future__ import annotations

from typing import Any

from operations.first_hour.contract import Check, checks
from operations.first_hour.findings import Finding
from operations.first_hour.stage import Answer, Api

#: Reason why LocalStack's answers say nothing about those that API Gateway itself makes.
ONLY_AWS = "LocalStack ignores gateway responses and keeps the names of headers"


def gateway(api: Api, run: str, *, is_aws: bool) -> list[Finding]:
    """Makes each check's request and compares the answer."""
    findings = []
    for check in checks(api, run):
        answer = api.call(check.method, check.path, check.body, check.sent)
        found = compared(check, answer)
        findings.append(found.elsewhere(ONLY_AWS) if check.is_gateways and not is_aws else found)
    return findings


def compared(check: Check, answer: Answer) -> Finding:
    """Returns the finding of one answer: the whole expectation, and each part that differs."""
    differences = [] if answer.status == check.status else [f"status {answer.status}"]
    for name, part in check.headers.items():
        value = answer.headers.get(name)
        if (value is not None) if part is None else (value is None or part not in value):
            differences.append(f"{name}: {value}")
    if check.field and (found := _field(answer, check.field[0])) != check.field[1]:
        differences.append(f"{check.field[0]} {found!r}")
    value = "; ".join(differences) or f"{answer.status}, as the contract says"
    return Finding(check.label, value, _expectation(check), not differences)


def _field(answer: Answer, name: str) -> Any:
    try:
        return answer.body.get(name)
    except ValueError:
        return answer.text[:60]


def _expectation(check: Check) -> str:
    headers = [f"{name}: {'absent' if part is None else part or 'any'}" for name, part in check.headers.items()]
    fields = [f"{check.field[0]} {check.field[1]!r}"] if check.field else []
    return "; ".join([str(check.status), *headers, *fields])
