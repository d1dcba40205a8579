"""Arrivals: one task for what comes on many sockets."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from chatroom.adapters.arrivals import Arrivals

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[Callable[[], Pair]]:
    opened: list[socket.socket] = []

    def pair() -> Pair:
        two = socket.socketpair()
        for each in two:
            each.setblocking(False)
        opened.extend(two)
        return two

    yield pair
    for each in opened:
        each.close()


@asynccontextmanager
async def at_work() -> AsyncIterator[tuple[Arrivals, trio.Nursery]]:
    async with trio.open_nursery() as nursery:
        arrivals = Arrivals()
        nursery.start_soon(arrivals.run)
        with trio.fail_after(10):
            yield arrivals, nursery
        nursery.cancel_scope.cancel()


async def moment() -> None:
    """What was sent has been noticed."""
    await trio.sleep(0.01)
    await wait_all_tasks_blocked()


async def test_what_comes_is_taken_without_waking_who_waits(pairs: Callable[[], Pair]) -> None:
    ours, peers = pairs()
    got: list[bytes] = []

    def take() -> bool:
        got.append(ours.recv(100))
        return got[-1] != b"last"

    async with at_work() as (arrivals, nursery):
        nursery.start_soon(arrivals.wait, ours, take)
        for data in (b"one", b"two"):
            peers.send(data)
            while got[-1:] != [data]:
                await trio.lowlevel.checkpoint()
        assert len(arrivals) == 1
        peers.send(b"last")
        while len(arrivals):
            await trio.lowlevel.checkpoint()
        assert got == [b"one", b"two", b"last"]
        peers.send(b"unheard")
        await moment()
        assert len(got) == 3
        assert ours.recv(100) == b"unheard"


async def test_the_end_of_a_stream_is_something_that_comes(pairs: Callable[[], Pair]) -> None:
    ours, peers = pairs()
    async with at_work() as (arrivals, _):
        peers.close()
        await arrivals.wait(ours, lambda: False)
        assert ours.recv(1) == b""


async def test_who_is_cancelled_is_not_watched_any_more(pairs: Callable[[], Pair]) -> None:
    ours, peers = pairs()
    called: list[int] = []
    async with at_work() as (arrivals, _):
        with trio.move_on_after(0.01) as waiting:
            await arrivals.wait(ours, lambda: bool(called.append(1)))
        assert waiting.cancelled_caught
        assert len(arrivals) == 0
        peers.send(b"x")
        await moment()
        assert not called
        await arrivals.wait(ours, lambda: False)


async def test_what_goes_wrong_concerns_only_who_waits(pairs: Callable[[], Pair]) -> None:
    (ours, peers), (others, others_peers) = pairs(), pairs()

    def fail() -> bool:
        raise LookupError("a fault of one connection")

    async with at_work() as (arrivals, nursery):
        nursery.start_soon(arrivals.wait, others, lambda: False)
        peers.send(b"x")
        with pytest.raises(LookupError):
            await arrivals.wait(ours, fail)
        assert len(arrivals) == 1
        others_peers.send(b"x")
        while len(arrivals):
            await trio.lowlevel.checkpoint()


async def test_one_that_is_served_may_end_the_wait_of_another(pairs: Callable[[], Pair]) -> None:
    (ours, peers), (others, others_peers) = pairs(), pairs()
    ended: list[str] = []

    async def wait(name: str, sock: socket.socket, scopes: dict[str, trio.CancelScope]) -> None:
        def take() -> bool:
            ended.append(name)
            for scope in scopes.values():
                scope.cancel()
            return True

        with trio.CancelScope() as scopes[name]:
            await arrivals.wait(sock, take)

    async with at_work() as (arrivals, nursery):
        scopes: dict[str, trio.CancelScope] = {}
        nursery.start_soon(wait, "ours", ours, scopes)
        nursery.start_soon(wait, "others", others, scopes)
        await wait_all_tasks_blocked()
        peers.send(b"x")
        others_peers.send(b"x")
        while len(arrivals):
            await trio.lowlevel.checkpoint()
    assert len(ended) == 1


async def test_a_closed_socket_is_no_wait(pairs: Callable[[], Pair]) -> None:
    ours, _ = pairs()
    async with at_work() as (arrivals, _):
        ours.close()
        with pytest.raises(trio.ClosedResourceError):
            await arrivals.wait(ours, lambda: False)
        assert len(arrivals) == 0


async def test_at_the_end_who_still_waits_can_be_cancelled(pairs: Callable[[], Pair]) -> None:
    ours, _ = pairs()
    arrivals, running = Arrivals(), trio.CancelScope()

    async def run() -> None:
        with running:
            await arrivals.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(arrivals.wait, ours, lambda: False)
        await wait_all_tasks_blocked()
        running.cancel()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(arrivals) == 0
