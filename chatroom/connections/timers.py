"""What is due on connections, in one task for all: each is looked after when it asked to be.

One task and one timer for all: a task, or even a timeout scope, for each would be a twentieth of what an
idle connection costs.

1. Times are of the clock given. One that can be set (the time of day) is looked at again after `longest`
   seconds at most, so that a jump of it is noticed so soon.
2. Of each there is at most one plan that counts: who is added again has it made anew.
"""

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Protocol

import trio

LEAST_WAIT = 0.05
"""Seconds. While a connection's clock stands still it asks again and again for what is left on it."""


class Timed(Protocol):
    """What is looked after."""

    def on_timer(self, now: float) -> float:
        """Do what is due; return after how many seconds to call again, or infinity for never."""
        ...


class Timers:
    """Calls `on_timer` on all that were added and not removed."""

    def __init__(self, clock: Callable[[], float] = trio.current_time, *, longest: float = math.inf) -> None:
        self._clock = clock
        self._longest = longest
        self._due: list[tuple[float, int, Timed]] = []
        self._numbers = count()
        self._plans: dict[Timed, int] = {}  # the number of the entry that counts
        self._earlier = trio.Event()

    def __len__(self) -> int:
        return len(self._plans)

    def add(self, timed: Timed) -> None:
        """Look after `timed` from now on. May be called again, where what it would ask for has changed."""
        self._plan(timed, self._clock())
        self._forget_the_gone()

    def remove(self, timed: Timed) -> None:
        """Don't look after `timed` any more."""
        self._plans.pop(timed, None)
        self._forget_the_gone()

    def _forget_the_gone(self) -> None:
        if len(self._due) > 2 * len(self._plans) + 16:
            self._due = [entry for entry in self._due if self._counts(entry)]
            heapq.heapify(self._due)

    def _counts(self, entry: tuple[float, int, Timed]) -> bool:
        return self._plans.get(entry[2]) == entry[1]

    def _plan(self, timed: Timed, now: float) -> None:
        wait = timed.on_timer(now)
        if wait == math.inf:
            self._plans.pop(timed, None)
            return
        entry = (now + max(wait, LEAST_WAIT), next(self._numbers), timed)
        self._plans[timed] = entry[1]
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._earlier.set()

    def _pause(self) -> float:
        """How long nobody needs anything; at most as long as the clock is to be trusted."""
        if not self._due:
            return math.inf
        return max(0.0, min(self._due[0][0] - self._clock(), self._longest))

    async def run(self) -> None:
        """Look after them for ever."""
        while True:
            self._earlier = trio.Event()
            with trio.move_on_after(self._pause()):
                await self._earlier.wait()
            now = self._clock()
            while self._due and self._due[0][0] <= now:
                entry = heapq.heappop(self._due)
                if self._counts(entry):
                    self._plan(entry[2], now)
