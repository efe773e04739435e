"""How far shared limits are used, as gauges for Prometheus: by shared limit, never by user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from chalicelib.core.ports import SharedBacklog

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

_OF_ONE = ("stage", "shared")
_OF_LIMIT = (*_OF_ONE, "limit")


class SharedGauges:
    def __init__(self, backlogs: Sequence[SharedBacklog], stage: str) -> None:
        self._backlogs, self._stage = backlogs, stage

    def collect(self) -> Iterable[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        waiting = GaugeMetricFamily("paceline_shared_waiting", "Lanes that wait for a shared limit.", labels=_OF_ONE)
        running = GaugeMetricFamily("paceline_shared_running", "Tasks that run, of those at once.", labels=_OF_ONE)
        used = GaugeMetricFamily("paceline_shared_used", "Starts or units that count now.", labels=_OF_LIMIT)
        quota = GaugeMetricFamily("paceline_shared_quota", "Starts or units that may count.", labels=_OF_LIMIT)
        for backlog in self._backlogs:
            labels = [self._stage, backlog.name]
            waiting.add_metric(labels, backlog.waiting)
            running.add_metric(labels, backlog.running)
            for limit, (count, most) in backlog.used.items():
                used.add_metric([*labels, limit], count)
                quota.add_metric([*labels, limit], most)
        return [waiting, running, used, quota]
