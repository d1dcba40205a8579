"""The lobby: sockets that have been accepted and not yet let in, bounded in number.

1. While it is full, nobody is accepted. A place is not reserved: of several listeners that wait for one,
   each may let somebody in.
2. Meanwhile the one that has waited longest is dropped, once it has waited over a second.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

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

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Be in the lobby; the visit is cancelled if others need the place."""
        with trio.CancelScope() as scope:
            self._visitors[scope] = trio.current_time()
            try:
                yield
            finally:
                self._visitors.pop(scope, None)
                self._place_left.set()

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
