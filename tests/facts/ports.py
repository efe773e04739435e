"""All facts, and the adapters of each port that their scenarios take."""

from collections.abc import Callable
from functools import cached_property
from threading import Lock
from typing import Any

from tests.facts import (
    dynamodb,
    event_source,
    gateway,
    gateway_responses,
    sqs_deduplication,
    sqs_groups,
    sqs_receipts,
)
from tests.facts.dynamodb import Tables
from tests.facts.event_sources import LambdaSources, SimulatedSources
from tests.facts.fact import Fact
from tests.facts.functions import Functions
from tests.facts.gateway_responses import Api
from tests.facts.gateways import EmulatedGateway, OwnGateway
from tests.facts.queues import MemoryQueues, SQSQueues

AREAS = (
    *(sqs_groups.fact, sqs_receipts.fact, sqs_deduplication.fact),
    *(event_source.fact, dynamodb.fact, gateway.fact, gateway_responses.fact),
)
FACTS: tuple[Fact, ...] = tuple(fact for area in AREAS for fact in area.all)
SQS = {area.area for area in AREAS[:3]}


def takes_functions(fact: Fact) -> bool:
    """Whether the scenario needs Lambda or API Gateway."""
    return fact.area not in (*SQS, dynamodb.fact.area)


def own_adapter(fact: Fact) -> Any:
    if fact.area in SQS:
        return MemoryQueues()
    return SimulatedSources() if fact.area == event_source.fact.area else OwnGateway()


class Emulator:
    """Makes its resources on first use, and removes all of them."""

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client
        self._queues, self._tables = SQSQueues(client("sqs")), Tables(client("dynamodb"))
        self._apis: list[Api] = []
        self._lock = Lock()

    def adapter(self, fact: Fact) -> Any:
        if fact.area in SQS:
            return self._queues
        if fact.area == dynamodb.fact.area:
            return self._tables
        if fact.area == gateway_responses.fact.area:
            self._apis.append(Api(self._client("apigateway")))
            return self._apis[-1]
        with self._lock:
            return self._sources if fact.area == event_source.fact.area else self._gateway

    def remove(self) -> None:
        if "_functions" in vars(self):
            self._functions.close()
        if "_sources" in vars(self):
            self._sources.queues.remove()
        for made in (self._queues, self._tables, *self._apis):
            made.remove()

    @cached_property
    def _functions(self) -> Functions:
        return Functions(self._client)

    @cached_property
    def _sources(self) -> LambdaSources:
        return LambdaSources(self._functions)

    @cached_property
    def _gateway(self) -> EmulatedGateway:
        return EmulatedGateway(self._functions)
