"""Metrics: the server's numbers in the Prometheus text format.

1. A registry of our own: nothing is shown that isn't named in `docs/operations.md`.
2. Numbers are asked for when they are shown: `statistics` gives one snapshot per rendering.
3. `prometheus_client` is imported by the first rendering, so that a start doesn't wait for it; hence the
   histogram of commits is kept here, in plain numbers that count from the start.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from chatroom import __version__
from chatroom.logs import lines_dropped
from chatroom.values.statistics import Statistics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COMMIT_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Histogram:
    """How often a value fell at or under each of `bounds`, and the sum of all values."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Pairs of upper bound and cumulated count, the last bound being `+Inf`."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))


class Metrics:
    """What `GET /metrics` shows."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics
        self._commits = Histogram(COMMIT_BUCKETS)
        self._registry: CollectorRegistry | None = None

    def observe_commit(self, seconds: float) -> None:
        """Count one commit of the engine and the time that it took."""
        self._commits.observe(seconds)

    def render(self) -> bytes:
        """All metrics as text, to be sent as CONTENT_TYPE."""
        from prometheus_client import generate_latest  # noqa: PLC0415  (rule 3)

        if self._registry is None:
            self._registry = _registry(self)
        return generate_latest(self._registry)

    def collect(self) -> "Iterator[Metric]":
        """The families, as a Prometheus collector gives them."""
        from prometheus_client import metrics_core as core  # noqa: PLC0415  (rule 3)

        now = self._statistics()
        yield core.InfoMetricFamily("chatroom_build", "The version that runs.", {"version": __version__})
        for name, text, value in _gauges(now):
            yield core.GaugeMetricFamily(f"chatroom_{name}", text, value=value)
        for name, text, value in _counters(now):
            yield core.CounterMetricFamily(f"chatroom_{name}", text, value=value)
        drops = core.CounterMetricFamily(
            "chatroom_drops", "WebSocket connections that the server ended, by reason.", labels=["reason"]
        )
        for reason, count in sorted(now.drops.items()):
            drops.add_metric([str(reason)], count)
        yield drops
        refusals = core.CounterMetricFamily(
            "chatroom_refusals", "HTTP requests and handshakes refused, by status.", labels=["status"]
        )
        for status, count in sorted(now.refusals.items()):
            refusals.add_metric([str(int(status))], count)
        yield refusals
        yield core.HistogramMetricFamily(
            "chatroom_commit_seconds",
            "Time that a commit of the log took.",
            buckets=self._commits.buckets(),
            sum_value=self._commits.sum,
        )


def _gauges(now: Statistics) -> list[tuple[str, str, int]]:
    return [
        ("connections", "WebSocket connections that have been let in.", now.connections),
        ("handshakes", "Sockets that have been accepted and not yet let in.", now.handshakes),
        ("rooms", "Rooms in memory.", now.rooms),
        ("presences", "Distinct usernames per room, summed over all rooms.", now.presences),
        ("lagging_members", "Members who are behind because their socket was full.", now.lagging_members),
        ("tasks", "Trio tasks in the process.", now.tasks),
    ]


def _counters(now: Statistics) -> list[tuple[str, str, int]]:
    return [
        ("messages", "Messages committed to the log.", now.messages_total),
        ("deliveries", "Stored messages handed to sockets.", now.deliveries_total),
        ("log_lines_dropped", "Log lines that standard error did not take.", lines_dropped()),
    ]


def _registry(metrics: Metrics) -> "CollectorRegistry":
    """Our families, and memory, time and descriptors of the process, where the system tells them."""
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415  (rule 3)
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class Families(Collector):
        def collect(self) -> "Iterator[Metric]":
            return metrics.collect()

    class Process(Collector):
        """Read anew each time; where /proc is unlike the usual one, nothing is shown and nothing fails."""

        source = ProcessCollector(registry=None)

        def collect(self) -> "Iterator[Metric]":
            try:
                yield from self.source.collect()
            except (ValueError, NameError, IndexError):
                return

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    registry.register(Process())
    return registry
