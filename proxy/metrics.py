"""Counters of one worker, and their form for Prometheus.

In the path they are plain integers in dictionaries: prometheus_client's own counters cost a lock
and a microsecond each. The registry reads them when it is scraped.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

OVERHEAD_BOUNDS_S = (25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 5e-3, 20e-3, 0.1)


class Histogram:
    """Counts below given bounds, with sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Cumulative counts, as Prometheus wants them."""
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield bound, total


class Metrics:
    """What happened in this worker so far."""

    def __init__(self) -> None:
        self.attempts: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        self.refusals: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.dropped: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.overhead = Histogram(OVERHEAD_BOUNDS_S)
        self.internal_errors = self.tunnels = 0

    def attempt(self, workload: str | None, arm: str, role: str, outcome: str) -> None:
        """An attempt has ended."""
        self.attempts[workload or "", arm, role, outcome] += 1

    def refused(self, status: int, code: str | None) -> None:
        """We answered with an error of our own."""
        self.refusals[str(status), code or ""] += 1


class Gauges(Collector):
    """All metric families: the counters above, and whatever `read` finds at the moment."""

    def __init__(self, metrics: Metrics, read: Callable[[], Iterable[Metric]]) -> None:
        self._metrics, self._read = metrics, read

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield _counter(
            "understudy_attempts",
            "Upstream calls by how they ended",
            ("workload", "arm", "role", "outcome"),
            metrics.attempts,
        )
        yield _counter(
            "understudy_refusals",
            "Errors that the proxy answered itself",
            ("status", "code"),
            metrics.refusals,
        )
        yield _counter(
            "understudy_beside_dropped",
            "Shadow and hold-out calls that were not made",
            ("workload", "why"),
            metrics.dropped,
        )
        yield CounterMetricFamily(
            "understudy_internal_errors",
            "Faults of the proxy itself",
            value=metrics.internal_errors,
        )
        overhead = HistogramMetricFamily(
            "understudy_overhead_seconds", "The proxy's own time per served request"
        )
        overhead.add_metric([], list(metrics.overhead.buckets()), metrics.overhead.sum)
        yield overhead
        yield from self._read()


def registry(metrics: Metrics, read: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    """A registry of its own, so that two proxies in one process do not mix."""
    found = CollectorRegistry()
    found.register(Gauges(metrics, read))
    return found


def gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, about, value=value)


def _counter(
    name: str, about: str, labels: tuple[str, ...], counts: Mapping[Any, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, about, labels=labels)
    for key, count in counts.items():
        family.add_metric(list(key), count)
    return family
