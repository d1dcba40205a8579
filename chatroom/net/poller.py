"""ReadPoller: what comes on the sockets of all connections, looked after in one task.

One for a server: that many sockets are readable is one look at the kernel, and what is read on them is read
in one go, so that it can be answered in one batch. An idle socket costs an entry in a table.

1. What is called for a socket reads it and does not wait. It never raises.
2. A socket is watched until it is unwatched, which has to come before it is closed.
3. This takes epoll. Where a system has none, each socket has a small task of its own (`TaskPoller`).
"""

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

AT_ONCE = 256
"""So many sockets are served before others get their turn."""


class ReadPoller(Protocol):
    """The sockets that are watched. Nothing is called before `run` runs, nor when it is over."""

    def watch(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever something has come on `sock`, its end or an error included."""

    def unwatch(self, sock: socket.socket) -> None:
        """Don't any more; not even for what has been noticed and not been called for yet."""

    async def run(self) -> None:
        """Look after all sockets, for ever."""


class EpollPoller:
    """All sockets in one table of the kernel's."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """See ReadPoller."""
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._watched[sock.fileno()] = on_readable

    def unwatch(self, sock: socket.socket) -> None:
        """See ReadPoller."""
        if self._watched.pop(sock.fileno(), None) is not None:
            with suppress(OSError, ValueError):  # all of this has been closed
                self._epoll.unregister(sock.fileno())

    async def run(self) -> None:
        """See ReadPoller."""
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for number, _ in self._epoll.poll(0, AT_ONCE):
                    if (on_readable := self._watched.get(number)) is not None:
                        on_readable()


class TaskPoller:
    """A task for each socket, which waits by itself."""

    def __init__(self) -> None:
        self._scopes: dict[int, trio.CancelScope] = {}
        self._begun: list[tuple[socket.socket, Callable[[], None], trio.CancelScope]] = []
        self._news = trio.Event()

    def __len__(self) -> int:
        return len(self._scopes)

    def watch(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """See ReadPoller."""
        scope = self._scopes[sock.fileno()] = trio.CancelScope()
        self._begun.append((sock, on_readable, scope))
        self._news.set()

    def unwatch(self, sock: socket.socket) -> None:
        """See ReadPoller."""
        if (scope := self._scopes.pop(sock.fileno(), None)) is not None:
            scope.cancel()

    async def run(self) -> None:
        """See ReadPoller."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                for each in self._begun:
                    nursery.start_soon(self._wait, *each)
                self._begun.clear()

    @staticmethod
    async def _wait(sock: socket.socket, on_readable: Callable[[], None], scope: trio.CancelScope) -> None:
        with scope, suppress(trio.ClosedResourceError):
            while True:
                await trio.lowlevel.wait_readable(sock)
                if scope.cancel_called:
                    return
                on_readable()


def make_poller() -> ReadPoller:
    """One for a server."""
    return EpollPoller() if hasattr(select, "epoll") else TaskPoller()
