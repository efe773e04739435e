"""Measures cold starts of the stage's API function, with its code, role and settings, in two sizes, with SnapStart too.

A stack of its own has four copies of the function. Invocations at the same time each start an environment of their own.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from infra.deploy.account import Account
from infra.stack import deploy_stack
from operations.first_hour.findings import Finding, percentile
from operations.first_hour.probe_stack import PREFIX, RUNTIME, STAGE

COLD_STACK = f"{PREFIX}-cold"
SIZES_MB = (256, 512)
#: Reason why LocalStack's times say nothing about AWS.
ONLY_AWS = "LocalStack runs functions as processes or containers of this machine, whatever their memory size"
NO_SNAPSTART = "LocalStack accepts the setting and makes no snapshots"

_REPORTED = re.compile(r"(?<!Billed )(Init Duration|Restore Duration): ([\d.]+) ms")
_FOUND_WITHIN = 120

Resource = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    #: by the client's clock
    seconds: float
    #: of Lambda's REPORT line; None where it does not say
    init_ms: float | None
    restore_ms: float | None


def function_name(megabytes: int, has_snapstart: bool) -> str:
    return f"{PREFIX}-cold-{megabytes}{'-snapstart' if has_snapstart else ''}"


def cold_template(function: Mapping[str, Any], bucket: str, key: str, *, is_aws: bool) -> Resource:
    """Returns the template of the copies. function: the configuration of the stage's API function."""
    resources: Resource = {}
    for megabytes in SIZES_MB:
        for has_snapstart in (False, True):
            name = f"Cold{megabytes}{'Snap' if has_snapstart else ''}"
            resources[name] = _copy(function, megabytes, has_snapstart, bucket, key, is_aws)
            if has_snapstart:
                # SnapStart works for published versions only.
                version = {"FunctionName": {"Ref": name}}
                resources[f"{name}Version"] = {"Type": "AWS::Lambda::Version", "Properties": version}
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}


def _copy(
    function: Mapping[str, Any], megabytes: int, has_snapstart: bool, bucket: str, key: str, is_aws: bool
) -> Resource:
    properties = {
        "FunctionName": function_name(megabytes, has_snapstart),
        # LocalStack's stage may have an older Python, with which it refuses SnapStart.
        "Runtime": function["Runtime"] if is_aws else RUNTIME,
        "Handler": function["Handler"],
        "Role": function["Role"],
        "Code": {"S3Bucket": bucket, "S3Key": key},
        "Timeout": function["Timeout"],
        "MemorySize": megabytes,
        "Architectures": function.get("Architectures", ["x86_64"]),
        "Environment": {"Variables": function.get("Environment", {}).get("Variables", {})},
        # The role may write to the log group of the stage's function alone.
        "LoggingConfig": {"LogGroup": f"/aws/lambda/{PREFIX}"},
    }
    if has_snapstart:
        properties["SnapStart"] = {"ApplyOn": "PublishedVersions"}
    return {"Type": "AWS::Lambda::Function", "Properties": properties}


def deploy_copies(account: Account, say: Callable[[str], None]) -> None:
    """Deploys the copies of the stage's API function, which must be deployed."""
    function = account.client("lambda").get_function_configuration(FunctionName=PREFIX)
    bucket = f"paceline-{account.number}-{account.region}"
    template = cold_template(function, bucket, _archive(account, bucket), is_aws=not account.endpoint_url)
    body = {"TemplateBody": json.dumps(template)}
    deploy_stack(account.client("cloudformation"), COLD_STACK, body, {}, progress=lambda line: say(f"    {line}"))


def _archive(account: Account, bucket: str) -> str:
    listed = account.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{STAGE}/").get("Contents", [])
    archives = [one for one in listed if one["Key"].endswith(".zip")]
    if not archives:
        raise FileNotFoundError(f"no archive of stage {STAGE} in bucket {bucket}")
    return str(max(archives, key=lambda one: one["LastModified"])["Key"])


def cold_starts(client: Any, token: str, count: int, *, is_aws: bool) -> list[Finding]:
    """Measures `count` cold starts of each copy, which must be new."""
    findings: list[Finding] = []
    init_ms: dict[tuple[int, bool], float | None] = {}
    for megabytes in SIZES_MB:
        for has_snapstart in (False, True):
            samples, warm = _sampled(client, function_name(megabytes, has_snapstart), has_snapstart, token, count)
            found = _variant(megabytes, has_snapstart, samples, warm)
            reason = "" if is_aws else NO_SNAPSTART if has_snapstart else ONLY_AWS
            findings += [finding.elsewhere(reason) for finding in found] if reason else found
            init_ms[megabytes, has_snapstart] = _median([one.restore_ms or one.init_ms for one in samples])
    return findings + [_compared(megabytes, init_ms, is_aws) for megabytes in SIZES_MB]


def _sampled(client: Any, name: str, has_snapstart: bool, token: str, count: int) -> tuple[list[Sample], Sample]:
    qualifier = {"Qualifier": _version(client, name)} if has_snapstart else {}
    event = json.dumps(_event(token)).encode()
    with ThreadPoolExecutor(count) as pool:
        cold = list(pool.map(lambda _: invoked(client, name, event, qualifier), range(count)))
    return cold, invoked(client, name, event, qualifier)


def _version(client: Any, name: str) -> str:
    versions = [one["Version"] for one in client.list_versions_by_function(FunctionName=name)["Versions"]]
    version = max((one for one in versions if one != "$LATEST"), key=int)
    deadline = time.monotonic() + _FOUND_WITHIN
    while client.get_function_configuration(FunctionName=name, Qualifier=version).get("State") == "Pending":
        if time.monotonic() > deadline:
            raise TimeoutError(f"version {version} of {name} has no snapshot after {_FOUND_WITHIN} s")
        time.sleep(1)
    return str(version)


def invoked(client: Any, name: str, event: bytes, qualifier: Mapping[str, str]) -> Sample:
    """Invokes the function once. Raises RuntimeError if it fails."""
    begun = time.monotonic()
    answer = client.invoke(FunctionName=name, Payload=event, LogType="Tail", **qualifier)
    payload = json.loads(answer["Payload"].read())
    seconds = time.monotonic() - begun
    if answer.get("FunctionError") or payload.get("statusCode") != 200:
        raise RuntimeError(f"{name} answered {json.dumps(payload)[:300]}")
    reported = dict(_REPORTED.findall(base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")))
    return Sample(seconds, _number(reported, "Init Duration"), _number(reported, "Restore Duration"))


def _number(reported: Mapping[str, str], name: str) -> float | None:
    return float(reported[name]) if name in reported else None


def _variant(megabytes: int, has_snapstart: bool, samples: Sequence[Sample], warm: Sample) -> list[Finding]:
    label = f"{megabytes} MB, {'with' if has_snapstart else 'without'} SnapStart"
    kind = "restore" if has_snapstart else "init"
    reported = [one.restore_ms or one.init_ms for one in samples]
    cold = sum(one is not None for one in reported)
    return [
        Finding(f"{label}: cold starts among the invocations", f"{cold} of {len(samples)}"),
        Finding(f"{label}: ms of {kind} by Lambda's report, median", _median(reported)),
        Finding(
            f"{label}: seconds of the first answer, median", round(percentile([one.seconds for one in samples], 50), 3)
        ),
        Finding(f"{label}: seconds of a warm answer", round(warm.seconds, 3)),
    ]


def _compared(megabytes: int, init_ms: Mapping[tuple[int, bool], float | None], is_aws: bool) -> Finding:
    without, with_it = init_ms[megabytes, False], init_ms[megabytes, True]
    label = f"{megabytes} MB: ms that SnapStart saves"
    if without is None or with_it is None:
        return Finding(label, None, "more than 0", not_measured="Lambda reported no init" if is_aws else NO_SNAPSTART)
    return Finding(label, round(without - with_it), "more than 0", with_it < without)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(percentile(known, 50), 1) if known else None


def _event(token: str) -> Resource:
    """API Gateway's event of a request that reads a lane: it makes the container and calls DynamoDB once."""
    headers = {"Authorization": f"Bearer {token}"}
    resource, path = "/api/v1/users/{user}", "/api/v1/users/first-hour"
    return {
        "resource": resource,
        "path": path,
        "httpMethod": "GET",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "multiValueQueryStringParameters": None,
        "pathParameters": {"user": "first-hour"},
        "stageVariables": None,
        "requestContext": {"resourcePath": resource, "httpMethod": "GET", "path": path, "identity": {}},
        "body": None,
        "isBase64Encoded": False,
    }
