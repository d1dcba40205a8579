"""Signals: the first asks for a stop, another one half a second later ends the process; and the start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from chatroom.process import Stop, stopping
from chatroom.system.stdio import SECOND_SIGNAL_SECONDS, catch_signals
from tests.support.process import ROOT


class Ended(BaseException):
    """The process would have ended here."""


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)


@pytest.fixture
def signals_as_they_were() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def strike(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


async def test_two_signals_at_once_are_one_request(autojump_clock: MockClock, forced: None) -> None:
    """As npm and terminals send them; a third within half a second says the same."""
    async with stopping(lambda: False) as stop:
        stop.begin()
        strike(signal.SIGINT)
        strike(signal.SIGTERM)
        await stop.asked.wait()
        await trio.sleep(SECOND_SIGNAL_SECONDS - 0.01)
        strike(signal.SIGINT)
        await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        await trio.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_another_signal_half_a_second_later_ends_the_process(
    number: int, autojump_clock: MockClock, forced: None, caplog: pytest.LogCaptureFixture
) -> None:
    stop = Stop()
    stop.begin()
    send, signals = trio.open_memory_channel[int](1)

    async def strikes() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.watch, signals)
            await send.send(signal.SIGTERM)
            await stop.asked.wait()
            assert not stop.starting.cancel_called
            await trio.sleep(SECOND_SIGNAL_SECONDS)
            await send.send(number)

    with pytest.raises(BaseExceptionGroup) as caught:
        await strikes()
    assert caught.group_contains(Ended, match="1")
    assert "ended_by_force" in caplog.messages


async def test_a_stop_that_comes_before_it_has_begun_gives_up_the_start(autojump_clock: MockClock) -> None:
    async with stopping(lambda: False):
        strike()
        await trio.sleep(60)
        raise AssertionError("it went on")


async def test_a_stop_that_was_asked_for_before_is_not_forgotten(
    autojump_clock: MockClock, forced: None
) -> None:
    async with stopping(lambda: True):
        await trio.lowlevel.checkpoint()
        raise AssertionError("it went on")


BLOCKED = """
import os
from signal import *
from chatroom.system.stdio import catch_signals
pthread_sigmask(SIG_BLOCK, (SIGTERM, SIGHUP))
for number in {before}:
    os.kill(os.getpid(), number)
asked = catch_signals()
print(asked())
for number in (SIGHUP, SIGTERM, SIGINT):
    os.kill(os.getpid(), number)
print(asked())
"""


@pytest.mark.parametrize(("before", "asked"), [("[SIGHUP]", "False"), ("[SIGHUP, SIGTERM]", "True")])
def test_signals_are_taken_from_the_first_moment_on(before: str, asked: str) -> None:
    """Those that were blocked come then; a hangup says nothing yet. (In a process without threads.)"""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.replace("{before}", before)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [asked, "True"]


def test_a_second_one_counts_before_anything_serves(
    signals_as_they_were: None, forced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    catch_signals()
    strike()
    now[0] += SECOND_SIGNAL_SECONDS
    with pytest.raises(Ended):
        strike()


VISITS = """
import gc
from chatroom.process import tune_collector
tune_collector()
visited = []
def look(phase, info):
    if phase == "start":
        visited.append(sum(len(gc.get_objects(each)) for each in range(info["generation"] + 1)))
gc.callbacks.append(look)
kept = [[] for _ in range(600_000)]
print(len(visited), max(visited))
"""


def test_the_collector_never_looks_at_much_at_once() -> None:
    """A room of thousands fills at once, and nobody waits until all of it has been looked at."""
    done = subprocess.run(
        [sys.executable, "-c", VISITS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    times, most = map(int, done.stdout.split())
    assert times > 0
    assert most < 12_000
