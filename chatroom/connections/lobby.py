"""The lobby: sockets that have been accepted and not yet let in, bounded in number.

1. While it is full, nobody is accepted. A place is not reserved: of several listeners that wait for one,
   each may let somebody in.
2. Meanwhile the one that has waited longest is dropped, once it has waited over a second.
"""

from collections import OrderedDict
from types import TracebackType

import trio

PATIENCE = 1.0


class Lobby:
    """At most `size` visitors at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._visitors: OrderedDict[trio.CancelScope, float] = OrderedDict()  # by arrival
        self._place_left = trio.Event()

    def __len__(self) -> int:
        return len(self._visitors)

    def visit(self) -> "Visit":
        """A context in which to be in the lobby; it is cancelled if others need the place."""
        return Visit(self)

    def arrive(self, visitor: trio.CancelScope) -> None:
        """`visitor` takes a place."""
        self._visitors[visitor] = trio.current_time()

    def depart(self, visitor: trio.CancelScope) -> None:
        """`visitor` needs its place no more."""
        self._visitors.pop(visitor, None)
        self._place_left.set()

    async def wait_empty(self) -> None:
        """Wait until nobody is there."""
        while self._visitors:
            if self._place_left.is_set():
                self._place_left = trio.Event()
            await self._place_left.wait()

    async def wait_place(self) -> None:
        """Wait until one more may come in."""
        while len(self._visitors) >= self._size:
            oldest, arrived = next(iter(self._visitors.items()))
            if self._place_left.is_set():
                self._place_left = trio.Event()  # one for all who wait: there may be several listeners
            with trio.move_on_at(arrived + PATIENCE) as waiting:
                await self._place_left.wait()
            if waiting.cancelled_caught and len(self) >= self._size and oldest in self._visitors:
                oldest.cancel()
                del self._visitors[oldest]


class Visit:
    """One visitor's time in the lobby."""

    __slots__ = ("_lobby", "_scope")

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._lobby.arrive(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._lobby.depart(self._scope)
        return self._scope.__exit__(kind, error, trace)
