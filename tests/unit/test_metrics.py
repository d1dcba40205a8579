"""The metrics: names, values, labels, and a histogram that counts before anyone looks."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.samples import Sample

from chatroom import metrics
from chatroom.core.errors import CloseCode
from chatroom.core.statistics import REFUSALS, Drop, Statistics, Unready
from chatroom.core.stores import StoreStatistics
from chatroom.metrics import COMMIT_BUCKETS, CONTENT_TYPE, Histogram, Metrics
from tests.support.process import ROOT

NOW = Statistics(
    connections=1,
    handshakes=2,
    rooms=3,
    presences=4,
    lagging_members=5,
    tasks=6,
    database_bytes=7,
    wal_bytes=8,
    messages_total=7,
    deliveries_total=8,
    unavailable_total=13,
    reloads_total=14,
    failed_reloads_total=15,
    last_reload_successful=False,
    keys_age=16.5,
    store=StoreStatistics(
        commands=17,
        reconnects_total=18,
        gaps_total=19,
        foreign_messages_total=20,
        lease_age=2.5,
        silence=3.5,
        nodes=4,
    ),
    unready=frozenset({Unready.STORE}),
    drops={Drop.STALLED: 9, Drop.POLICY: 10},
    refusals={429: 11, 401: 12},
)


def samples(shown: Metrics) -> dict[tuple[str, str], float]:
    def all_samples() -> Iterator[Sample]:
        for family in text_string_to_metric_families(shown.render().decode()):
            yield from family.samples

    return {(sample.name, ",".join(sample.labels.values())): sample.value for sample in all_samples()}


@pytest.mark.parametrize(
    ("name", "label", "value"),
    [
        ("connections", "", 1),
        ("handshakes", "", 2),
        ("rooms", "", 3),
        ("presences", "", 4),
        ("lagging_members", "", 5),
        ("tasks", "", 6),
        ("database_bytes", "", 7),
        ("wal_bytes", "", 8),
        ("messages_total", "", 7),
        ("deliveries_total", "", 8),
        ("unavailable_total", "", 13),
        ("reloads_total", "done", 14),
        ("reloads_total", "failed", 15),
        ("last_reload_successful", "", 0),
        ("keys_age_seconds", "", 16.5),
        ("nodes", "", 4),
        ("store_commands", "", 17),
        ("store_reconnects_total", "", 18),
        ("store_gaps_total", "", 19),
        ("store_foreign_messages_total", "", 20),
        ("store_lease_age_seconds", "", 2.5),
        ("store_silence_seconds", "", 3.5),
        ("store_round_trip_seconds_count", "", 0),
        ("ready", "", 0),
        ("not_ready", "store", 1),
        ("not_ready", "draining", 0),
        ("not_ready", "commit_waiting", 0),
        ("drops_total", "stalled", 9),
        ("drops_total", "policy", 10),
        ("refusals_total", "429", 11),
        ("refusals_total", "401", 12),
    ],
)
def test_statistics_are_shown(name: str, label: str, value: float) -> None:
    assert samples(Metrics(lambda: NOW))[f"chatroom_{name}", label] == value


def test_every_series_is_there_from_the_start() -> None:
    """A rise from nothing is none to those who watch: rate() and increase() need a 0 before the 1."""
    idle = replace(NOW, drops={}, refusals={}, unready=frozenset(), keys_age=None, store=None)
    seen = samples(Metrics(lambda: idle))
    for drop in Drop:
        assert seen["chatroom_drops_total", drop] == 0
    for status in REFUSALS:
        assert seen["chatroom_refusals_total", str(status)] == 0
    for reason in Unready:
        assert seen["chatroom_not_ready", reason] == 0
    assert seen["chatroom_ready", ""] == 1
    assert ("chatroom_keys_age_seconds", "") not in seen, "no keys come from an address"
    assert not [name for name, _ in seen if name.startswith(("chatroom_store", "chatroom_nodes"))]


def test_each_rendering_asks_anew() -> None:
    asked: list[Statistics] = []

    def ask() -> Statistics:
        asked.append(NOW)
        return NOW

    shown = Metrics(ask)
    assert asked == []
    shown.render()
    assert len(asked) == 1
    shown.render()
    assert len(asked) == 2


def test_the_version_and_the_process_are_shown() -> None:
    seen = samples(Metrics(lambda: NOW))
    assert seen["chatroom_build_info", "0.1.0"] == 1
    assert seen["process_resident_memory_bytes", ""] > 1e6
    assert seen["process_open_fds", ""] > 2


def test_lost_log_lines_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "lines_dropped", lambda: 13)
    assert samples(Metrics(lambda: NOW))["chatroom_log_lines_dropped_total", ""] == 13


def test_commits_count_from_the_start() -> None:
    shown = Metrics(lambda: NOW)
    for seconds in (0.0, 0.0001, 0.003, 99.0):
        shown.observe_commit(seconds)
    seen = samples(shown)
    assert seen["chatroom_commit_seconds_bucket", "0.0001"] == 2
    assert seen["chatroom_commit_seconds_bucket", "0.005"] == 3
    assert seen["chatroom_commit_seconds_bucket", "10.0"] == 3
    assert seen["chatroom_commit_seconds_bucket", "+Inf"] == seen["chatroom_commit_seconds_count", ""] == 4
    assert seen["chatroom_commit_seconds_sum", ""] == pytest.approx(99.0031)


def test_round_trips_to_a_store_are_counted() -> None:
    shown = Metrics(lambda: NOW)
    shown.observe_round_trip(0.003)
    seen = samples(shown)
    assert seen["chatroom_store_round_trip_seconds_bucket", "0.0025"] == 0
    assert seen["chatroom_store_round_trip_seconds_bucket", "0.005"] == 1
    assert seen["chatroom_store_round_trip_seconds_sum", ""] == 0.003


def test_a_histogram_puts_a_bound_into_its_own_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
    assert list(COMMIT_BUCKETS) == sorted(set(COMMIT_BUCKETS))


def test_the_type_is_that_of_the_text() -> None:
    assert CONTENT_TYPE == CONTENT_TYPE_PLAIN_0_0_4


@pytest.mark.parametrize("error", [ValueError, UnboundLocalError, IndexError])
def test_a_strange_proc_hides_the_process_and_nothing_else(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(_: object) -> None:
        raise error

    monkeypatch.setattr(ProcessCollector, "collect", collect)
    seen = samples(Metrics(lambda: NOW))
    assert seen["chatroom_rooms", ""] == 3
    assert not [name for name, _ in seen if name.startswith("process_")]


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, chatroom.metrics; sys.exit('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60, cwd=ROOT).returncode == 0


def test_every_close_code_but_the_normal_one_is_a_drop() -> None:
    assert {Drop.of(code).name for code in CloseCode if code is not CloseCode.NORMAL} < set(Drop.__members__)
    with pytest.raises(KeyError):
        Drop.of(CloseCode.NORMAL)
