"""The account and region that a stage is deployed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import boto3


@dataclass(frozen=True)
class Account:
    number: str
    region: str
    #: None for AWS
    endpoint_url: str | None

    def client(self, service: str) -> Any:
        """Returns a boto3 client of the service for this account."""
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name=self.region)  # type: ignore[call-overload]

    def __str__(self) -> str:
        target = f"LocalStack at {self.endpoint_url}" if self.endpoint_url else f"AWS account {self.number}"
        return f"{target}, {self.region}"


def find_account(endpoint_url: str | None) -> Account:
    """Returns the account and region of the current credentials."""
    client = boto3.client("sts", endpoint_url=endpoint_url)
    return Account(client.get_caller_identity()["Account"], client.meta.region_name, endpoint_url)
