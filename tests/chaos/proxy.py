"""Injects AWS faults as clients see them: microburst between the processes and the emulator."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

Rule = dict[str, Any]

CALLS = {
    "dynamodb": ("UpdateItem", "PutItem", "GetItem", "Query", "BatchWriteItem"),
    "sqs": (
        *("SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch"),
        *("ChangeMessageVisibility", "ChangeMessageVisibilityBatch"),
    ),
}
THROTTLED = {"dynamodb": "ProvisionedThroughputExceededException", "sqs": "RequestThrottled"}
BROKEN = {"dynamodb": ("InternalServerError", 500), "sqs": ("ServiceUnavailable", 503)}

#: Probability of each kind of fault; `_effect` defines its effect.
KINDS = {"throttled": 0.4, "server error": 0.4, "slow": 0.4, "reset": 0.3, "time-out": 0.15, "answer lost": 0.3}


def rules(kind: str, random: Random) -> list[Rule]:
    """Returns rules that apply the fault to all calls, or with a higher probability to one of them."""
    if random.random() < 0.5:
        return [_rule(kind, service, None, KINDS[kind]) for service in CALLS]
    service = random.choice(list(CALLS))
    return [_rule(kind, service, random.choice(CALLS[service]), 0.8)]


def _rule(kind: str, service: str, operation: str | None, probability: float) -> Rule:
    where = {"service": service, "probability": probability}
    return {**where, **({"operation": operation} if operation else {}), **_effect(kind, service)}


def _effect(kind: str, service: str) -> Rule:
    code, status = BROKEN[service]
    effects: dict[str, Rule] = {
        "throttled": {"error": {"code": THROTTLED[service], "status": 400}},
        "server error": {"error": {"code": code, "status": status}},
        "slow": {"latency": {"min": 300, "max": 2300}},
        "reset": {"reset": True},
        # Longer than any of our read timeouts.
        "time-out": {"timeout_ms": 15_000},
        "answer lost": {"response": {"abort_bytes": 0}},
    }
    return effects[kind]


class FaultProxy:
    def __init__(self, upstream: str, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "microburst", "--upstream", upstream, "--port", str(port)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self._wait()

    def set(self, new: list[Rule]) -> None:
        """Replaces all faults by these."""
        self._ask("POST", "rules", new)

    def fired(self) -> Counter[tuple[str, str]]:
        """Counts the injected faults by call and effect."""
        with urllib.request.urlopen(f"{self.url}/_microburst/metrics", timeout=60) as answer:
            text = answer.read().decode()
        count: Counter[tuple[str, str]] = Counter()
        for labels, number in re.findall(r"^microburst_faults_total\{(.*)\} (\S+)$", text, re.MULTILINE):
            label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            effect = label["action"].partition(":")[0] if label["action"].startswith("latency") else label["action"]
            count[label["operation"], effect] += int(float(number))
        return count

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, method: str, path: str, body: Any) -> None:
        request = urllib.request.Request(
            f"{self.url}/_microburst/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        request.method = method
        urllib.request.urlopen(request, timeout=60).close()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/_microburst/health", timeout=5).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.1)
