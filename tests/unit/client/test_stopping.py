"""Signals that ask a client to end."""

import os
import signal
from collections.abc import Iterator

import pytest
import trio

from chatroom.client.stopping import call_at_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As a process begins, whatever other tests have left, or the tests were started to ignore."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def called(*numbers: signal.Signals) -> int:
    """How often a stop is asked for, when these come and SIGTERM behind them."""
    stops = 0
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            def stop() -> None:
                nonlocal stops
                stops += 1
                if stops > len(numbers) or signal.getsignal(numbers[0]) is signal.SIG_IGN:
                    nursery.cancel_scope.cancel()

            await nursery.start(call_at_signals, stop)
            for number in (*numbers, signal.SIGTERM):
                os.kill(os.getpid(), number)
    return stops


async def test_each_signal_asks_for_a_stop() -> None:
    assert await called(signal.SIGINT, signal.SIGHUP) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_what_is_ignored_stays_so(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    assert await called(number) == 1
    assert signal.getsignal(number) is signal.SIG_IGN
