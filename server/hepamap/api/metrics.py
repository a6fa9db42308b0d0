"""Metrics for Prometheus. Labels are names of this program's own making: no path, no id, nothing that a client sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from hepamap.jobs.states import JobState
from hepamap.operations.tallies import OUTCOMES, STAGE_SECONDS, Tally

CONTENT_TYPE = CONTENT_TYPE_LATEST

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that have a name of their own in what is counted and noted; clients choose theirs freely."""
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


class RequestMetrics:
    """How the requests to this process went."""

    def __init__(self) -> None:
        # A registry of its own, so that two apps in one process do not count for each other.
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "hepamap_http_request_seconds",
            "Time from a request to the end of its answer, by route.",
            ("method", "route", "status"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )

    def observe(self, method: str, route: str, status: int | None, seconds: float) -> None:
        """Count one request; a status of None means that the client went away first."""
        # Clients choose their methods freely, and each new label would be kept for ever.
        named = method if method in METHODS else "other"
        self._seconds.labels(named, route, "gone" if status is None else str(status)).observe(seconds)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database says at the moment of a scrape."""

    analyses: Mapping[JobState, int]
    workers: int
    tallies: Mapping[str, tuple[Tally, ...]]
    free_bytes: int


def exposition(requests: RequestMetrics, stored: Stored) -> bytes:
    """All metrics, in the text form that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StoredCollector(stored))
    return generate_latest(requests.registry) + generate_latest(registry)


class _StoredCollector(Collector):
    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape."""
        stored = self._stored
        analyses = GaugeMetricFamily("hepamap_analyses", "Analyses in the database, by state.", labels=["state"])
        for state, count in stored.analyses.items():
            analyses.add_metric([state.value], count)
        yield analyses
        yield GaugeMetricFamily("hepamap_workers", "Worker processes that gave a sign of life lately.", value=stored.workers)
        yield GaugeMetricFamily("hepamap_data_free_bytes", "Space left in the data folder.", value=stored.free_bytes)
        outcomes = CounterMetricFamily("hepamap_analyses_finished", "Analyses that ended, by outcome.", labels=["outcome"])
        for tally in stored.tallies.get(OUTCOMES, ()):
            outcomes.add_metric([tally.label], tally.count)
        yield outcomes
        seconds = SummaryMetricFamily("hepamap_stage_seconds", "Time that slides spent in each stage.", labels=["stage"])
        for tally in stored.tallies.get(STAGE_SECONDS, ()):
            seconds.add_metric([tally.label], count_value=tally.count, sum_value=tally.total)
        yield seconds
