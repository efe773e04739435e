"""The outcomes of the facts that are not as on AWS, by port."""

from typing import Any

DIFFERENCES: dict[str, dict[str, Any]] = {"own": {}, "moto": {}, "ministack": {}, "localstack": {}}
