"""The keepalive of all connections, in one task: each is looked after when it asked to be.

One task and one timer for all: a task, or even a timeout scope, for each would be a twentieth of what an
idle connection costs.
"""

import heapq
import math
from itertools import count
from typing import Protocol

import trio

LEAST_WAIT = 0.05
"""Seconds. While a connection's clock stands still it asks again and again for what is left on it."""


class Tended(Protocol):
    """What is looked after."""

    def tend(self, now: float) -> float:
        """Do what is due; return after how many seconds to call again, or infinity for never."""
        ...


class Tender:
    """Calls `tend` on all that were added and not removed."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Tended]] = []
        self._numbers = count()
        self._present: set[Tended] = set()
        self._earlier = trio.Event()

    def __len__(self) -> int:
        return len(self._present)

    def add(self, tended: Tended, now: float) -> None:
        """Look after `tended` from now on."""
        self._present.add(tended)
        self._plan(tended, now)

    def remove(self, tended: Tended) -> None:
        """Don't look after `tended` any more."""
        self._present.discard(tended)
        if len(self._due) > 2 * len(self._present) + 16:
            self._due = [entry for entry in self._due if entry[2] in self._present]
            heapq.heapify(self._due)

    def _plan(self, tended: Tended, now: float) -> None:
        wait = tended.tend(now)
        if wait == math.inf:
            return
        entry = (now + max(wait, LEAST_WAIT), next(self._numbers), tended)
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._earlier.set()

    async def run(self) -> None:
        """Look after them for ever."""
        while True:
            self._earlier = trio.Event()
            deadline = self._due[0][0] if self._due else math.inf
            with trio.move_on_at(deadline):
                await self._earlier.wait()
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                _, _, tended = heapq.heappop(self._due)
                if tended in self._present:
                    self._plan(tended, now)
