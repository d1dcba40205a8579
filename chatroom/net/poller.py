"""The read poller: waits for bytes on the sockets of all connections, in one task.

Owns the table of watched sockets. A server has one poller. Many readable sockets cost one call of the kernel.
They are read in one go, so that their messages are answered in one batch. An idle socket costs an entry in
the table. Rules:

1. The function that is called for a socket reads the socket and doesn't wait. It never raises.
2. A socket is watched until it is unwatched. It must be unwatched before it is closed.
3. The poller needs epoll. On a system without it, each socket has a small task of its own (`TaskPoller`).

It doesn't know what is read.
"""

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

AT_ONCE = 256
"""So many sockets are read before other tasks run."""


class ReadPoller(Protocol):
    """The watched sockets. No function is called before `run` runs, nor after it."""

    def watch(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever `sock` is readable, at its end or with an error, too."""

    def unwatch(self, sock: socket.socket) -> None:
        """Call no more, not even for an event that has been noticed already."""

    async def run(self) -> None:
        """Watch all sockets until cancelled."""


class EpollPoller:
    """A poller with one table of the kernel for all sockets."""

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
            with suppress(OSError, ValueError):  # the poller has been closed
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
    """A poller with a task for each socket."""

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
    """The poller of a server."""
    return EpollPoller() if hasattr(select, "epoll") else TaskPoller()
