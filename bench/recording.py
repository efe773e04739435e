"""Records the calls of AWS that some code makes, to repeat them without that code: its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import msgspec
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.aws.client import POOLED_CONNECTIONS
from chalicelib.aws.signed_client import OPERATIONS, SignedClient, operation_name


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
        clients = {_service(client): client for client, *_ in self.calls}
        config = Config(max_pool_connections=POOLED_CONNECTIONS)
        make: Any = boto3.client
        made = {
            name: make(name, endpoint_url=client.meta.endpoint_url, config=config)  # meta is that of boto3
            for name, client in clients.items()
        }
        return Recording([(made[_service(client)], method, asked) for client, method, asked in self.calls])


@contextmanager
def recorded() -> Iterator[Recording]:
    """Records the calls of this process during the block."""
    recording = Recording()
    original: Callable[..., Any] = BaseClient._make_api_call  # type: ignore[attr-defined]

    def record(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        methods = {name: method for method, name in client.meta.method_to_api_mapping.items()}
        recording.calls.append((client, methods[operation], parameters))
        return original(client, operation, parameters)

    signed = SignedClient._call

    def record_signed(client: SignedClient, operation: str, target: str, body: bytes) -> dict[str, Any]:
        method = next(name for name in OPERATIONS[_service(client)] if operation_name(name) == operation)
        recording.calls.append((client, method, msgspec.json.decode(body)))
        return signed(client, operation, target, body)

    BaseClient._make_api_call = record  # type: ignore[attr-defined]
    SignedClient._call = record_signed  # type: ignore
    try:
        yield recording
    finally:
        BaseClient._make_api_call = original  # type: ignore[attr-defined]
        SignedClient._call = signed  # type: ignore[method-assign]


def _service(client: Any) -> str:
    return client.service if isinstance(client, SignedClient) else str(client.meta.service_model.service_name)
