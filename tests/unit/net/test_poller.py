"""ReadPoller: one task for what comes on many sockets; and a task for each where there is no epoll."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from chatroom.net.poller import EpollPoller, TaskPoller, make_poller

Pair = tuple[socket.socket, socket.socket]
Kind = type[EpollPoller] | type[TaskPoller]

each_kind = pytest.mark.parametrize("kind", [EpollPoller, TaskPoller])


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
async def at_work(kind: Kind) -> AsyncIterator[EpollPoller | TaskPoller]:
    async with trio.open_nursery() as nursery:
        poller = kind()
        nursery.start_soon(poller.run)
        with trio.fail_after(10):
            yield poller
        nursery.cancel_scope.cancel()


async def moment() -> None:
    """What was sent has been noticed."""
    await trio.sleep(0.01)
    await wait_all_tasks_blocked()


@each_kind
async def test_what_comes_is_read_until_the_socket_is_watched_no_more(
    kind: Kind, pairs: Callable[[], Pair]
) -> None:
    ours, peers = pairs()
    got: list[bytes] = []
    async with at_work(kind) as poller:

        def read() -> None:
            got.append(ours.recv(100))
            if got[-1] == b"last":
                poller.unwatch(ours)

        poller.watch(ours, read)
        for data in (b"one", b"two", b"last"):
            assert len(poller) == 1
            peers.send(data)
            while got[-1:] != [data]:
                await trio.lowlevel.checkpoint()
        assert len(poller) == 0
        peers.send(b"unheard")
        await moment()
        assert got == [b"one", b"two", b"last"]
        assert ours.recv(100) == b"unheard"


@each_kind
async def test_what_is_left_unread_is_called_for_again(kind: Kind, pairs: Callable[[], Pair]) -> None:
    ours, peers = pairs()
    got = b""
    async with at_work(kind) as poller:

        def read() -> None:
            nonlocal got
            got += ours.recv(2)

        peers.send(b"before it was watched")
        poller.watch(ours, read)
        while got != b"before it was watched":
            await trio.lowlevel.checkpoint()


@each_kind
async def test_a_socket_can_be_watched_again(kind: Kind, pairs: Callable[[], Pair]) -> None:
    ours, peers = pairs()
    called: list[int] = []

    async with at_work(kind) as poller:
        for number in range(3):

            def read(number: int = number) -> None:
                called.append(number)
                poller.unwatch(ours)

            peers.send(b"x")
            poller.watch(ours, read)
            while len(called) <= number:
                await trio.lowlevel.checkpoint()
            poller.unwatch(ours)  # once more is no trouble
        await moment()
        assert called == [0, 1, 2]


@each_kind
async def test_the_end_of_a_stream_is_something_that_comes(kind: Kind, pairs: Callable[[], Pair]) -> None:
    ours, peers = pairs()
    ended = trio.Event()
    async with at_work(kind) as poller:

        def read() -> None:
            assert ours.recv(1) == b""
            poller.unwatch(ours)
            ended.set()

        poller.watch(ours, read)
        await moment()
        peers.close()
        await ended.wait()


@each_kind
async def test_one_that_is_served_may_end_the_watch_of_another(kind: Kind, pairs: Callable[[], Pair]) -> None:
    both = [pairs(), pairs()]
    served: list[int] = []
    async with at_work(kind) as poller:

        def read(number: int) -> None:
            served.append(number)
            for ours, _ in both:
                poller.unwatch(ours)

        for number, (ours, peers) in enumerate(both):
            poller.watch(ours, lambda number=number: read(number))  # type: ignore[misc]
            peers.send(b"x")
        while len(poller):
            await trio.lowlevel.checkpoint()
        await moment()
    assert len(served) == 1


@each_kind
async def test_a_socket_that_is_closed_leaves_nothing_to_the_next_of_its_number(
    kind: Kind, pairs: Callable[[], Pair]
) -> None:
    called: list[str] = []
    async with at_work(kind) as poller:
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        poller.watch(ours, lambda: called.append("ours"))
        await moment()
        trio.lowlevel.notify_closing(ours)
        poller.unwatch(ours)
        ours.close()
        theirs.close()
        stranger, peers = pairs()
        assert stranger.fileno() == number
        poller.watch(stranger, lambda: called.append(stranger.recv(1).decode()))
        await moment()
        peers.send(b"x")
        await moment()
        assert called == ["x"]


@each_kind
async def test_when_it_is_over_sockets_can_still_be_let_go(kind: Kind, pairs: Callable[[], Pair]) -> None:
    ours, _ = pairs()
    async with trio.open_nursery() as nursery:
        poller = kind()
        nursery.start_soon(poller.run)
        poller.watch(ours, lambda: None)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    poller.unwatch(ours)
    assert len(poller) == 0


def test_linux_has_epoll() -> None:
    assert isinstance(make_poller(), EpollPoller)
