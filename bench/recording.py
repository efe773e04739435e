"""Records the boto3 calls of some code, to repeat them without that code: its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.aws.client import POOLED_CONNECTIONS


@dataclass
class Recording:
    """Calls in order: client, method and parameters."""

    calls: list[tuple[Any, str, dict[str, Any]]] = field(default_factory=list)

    def replay(self) -> None:
        """Repeats the calls with the same parameters and clients, through their public methods."""
        for client, method, parameters in self.calls:
            try:
                getattr(client, method)(**parameters)
            except ClientError:
                continue

    def by_default_clients(self) -> Recording:
        """The same calls by clients with boto3's defaults, apart from the number of kept connections."""
        clients = {client.meta.service_model.service_name: client for client, *_ in self.calls}
        config = Config(max_pool_connections=POOLED_CONNECTIONS)
        made = {
            name: boto3.client(name, endpoint_url=client.meta.endpoint_url, config=config)
            for name, client in clients.items()
        }
        return Recording(
            [(made[client.meta.service_model.service_name], method, asked) for client, method, asked in self.calls]
        )


@contextmanager
def recorded() -> Iterator[Recording]:
    """Records the calls of this process during the block."""
    recording = Recording()
    original: Callable[..., Any] = BaseClient._make_api_call  # type: ignore[attr-defined]

    def record(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        methods = {name: method for method, name in client.meta.method_to_api_mapping.items()}
        recording.calls.append((client, methods[operation], parameters))
        return original(client, operation, parameters)

    BaseClient._make_api_call = record  # type: ignore[attr-defined]
    try:
        yield recording
    finally:
        BaseClient._make_api_call = original  # type: ignore[attr-defined]
