"""Metrics: the server's numbers in the Prometheus text format.

Owns the names, help texts and labels of all metrics, and the two histograms. Rules:

1. The registry is our own: it holds no metric that `docs/operations.md` doesn't name.
2. Numbers are read when they are rendered. `statistics` gives one snapshot per rendering.
3. `prometheus_client` is imported by the first rendering, so that a start doesn't wait for it. So the
   histograms are kept here, in plain numbers that count from the start.

It doesn't know where the numbers come from.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from chatroom import __version__
from chatroom.core.statistics import REFUSALS, Drop, Statistics, Unready
from chatroom.core.stores import StoreStatistics
from chatroom.logs import lines_dropped

if TYPE_CHECKING:
    from types import ModuleType

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COMMIT_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Histogram:
    """How many values were at or below each of `bounds`, and the sum of all values."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Pairs of upper bound and cumulated count. The last bound is `+Inf`."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))


ROUND_TRIP_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0,
)  # fmt: skip


class Metrics:
    """The metrics of a server, and their text for `GET /metrics`."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics
        self._commits = Histogram(COMMIT_BUCKETS)
        self._round_trips = Histogram(ROUND_TRIP_BUCKETS)
        self._registry: CollectorRegistry | None = None

    def observe_commit(self, seconds: float) -> None:
        """Count one commit of the engine, which took `seconds`."""
        self._commits.observe(seconds)

    def observe_round_trip(self, seconds: float) -> None:
        """Count one round trip to a store that nodes share, which took `seconds`."""
        self._round_trips.observe(seconds)

    def render(self) -> bytes:
        """All metrics as text of the type CONTENT_TYPE."""
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
        yield from _labelled(core, now)
        yield core.HistogramMetricFamily(
            "chatroom_commit_seconds",
            "Time that a commit of the log took.",
            buckets=self._commits.buckets(),
            sum_value=self._commits.sum,
        )
        if now.store is not None:
            yield core.HistogramMetricFamily(
                "chatroom_store_round_trip_seconds",
                "Time that commands, sent to the store together, took to be answered.",
                buckets=self._round_trips.buckets(),
                sum_value=self._round_trips.sum,
            )


def _labelled(core: "ModuleType", now: Statistics) -> "Iterator[Metric]":
    """The families with a label. All their series exist from the start, so that a first rise shows."""
    reasons = core.GaugeMetricFamily(
        "chatroom_not_ready", "1 for each reason why the server isn't ready.", labels=["reason"]
    )
    for reason in Unready:
        reasons.add_metric([str(reason)], int(reason in now.unready))
    yield reasons
    reloads = core.CounterMetricFamily(
        "chatroom_reloads", "Reloads, by what came of them.", labels=["result"]
    )
    reloads.add_metric(["done"], now.reloads_total)
    reloads.add_metric(["failed"], now.failed_reloads_total)
    yield reloads
    drops = core.CounterMetricFamily(
        "chatroom_drops", "WebSocket connections that the server ended, by reason.", labels=["reason"]
    )
    for drop in sorted(Drop):
        drops.add_metric([str(drop)], now.drops.get(drop, 0))
    yield drops
    refusals = core.CounterMetricFamily(
        "chatroom_refusals", "HTTP requests and handshakes refused, by status.", labels=["status"]
    )
    for status in REFUSALS:
        refusals.add_metric([str(status)], now.refusals.get(status, 0))
    yield refusals


def _gauges(now: Statistics) -> list[tuple[str, str, float]]:
    keys_age = (
        []
        if now.keys_age is None
        else [
            ("keys_age_seconds", "Time since the keys of web tokens came from their address.", now.keys_age)
        ]
    )
    return [
        ("ready", "1 while the server accepts and stores, as /readyz says, else 0.", int(not now.unready)),
        (
            "connections",
            "WebSockets and streams that have been let in, and requests under way.",
            now.connections,
        ),
        ("handshakes", "Sockets that have been accepted and not yet let in.", now.handshakes),
        ("rooms", "Rooms in memory.", now.rooms),
        ("presences", "Distinct usernames per room, summed over all rooms.", now.presences),
        ("lagging_members", "Members who are behind because their socket was full.", now.lagging_members),
        ("tasks", "Trio tasks in the process.", now.tasks),
        ("database_bytes", "Size of the database on the disk.", now.database_bytes),
        ("wal_bytes", "Size of the database's write-ahead log on the disk.", now.wal_bytes),
        ("last_reload_successful", "1 unless the last reload failed.", int(now.last_reload_successful)),
        *keys_age,
        *([] if now.store is None else _store_gauges(now.store)),
    ]


def _store_gauges(store: StoreStatistics) -> list[tuple[str, str, float]]:
    return [
        ("nodes", "Nodes on the store that live, this one included.", store.nodes),
        ("store_commands", "Commands to the store that wait for their answer.", store.commands),
        ("store_lease_age_seconds", "Time since the node's lease was renewed.", store.lease_age),
        ("store_silence_seconds", "Time since the subscription was heard.", store.silence),
    ]


def _counters(now: Statistics) -> list[tuple[str, str, int]]:
    return [
        ("messages", "Messages committed to the log.", now.messages_total),
        ("deliveries", "Stored messages handed to sockets.", now.deliveries_total),
        ("unavailable", "Commands that were answered `unavailable`.", now.unavailable_total),
        ("log_lines_dropped", "Log lines that standard error did not take.", lines_dropped()),
        *([] if now.store is None else _store_counters(now.store)),
    ]


def _store_counters(store: StoreStatistics) -> list[tuple[str, str, int]]:
    return [
        ("store_reconnects", "Connections to the store that were made anew.", store.reconnects_total),
        ("store_gaps", "Gaps in what the store had pushed, healed from the log.", store.gaps_total),
        ("store_foreign_messages", "Messages of other nodes that came here.", store.foreign_messages_total),
    ]


def _registry(metrics: Metrics) -> "CollectorRegistry":
    """Our families, and memory, time and descriptors of the process, where the system tells them."""
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415  (rule 3)
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class Families(Collector):
        def collect(self) -> "Iterator[Metric]":
            return metrics.collect()

    class Process(Collector):
        """The process's own numbers. Where /proc is unusual, there are none, and nothing fails."""

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
