"""Timers: calls objects back when they asked for it, in one task for all connections.

Owns the heap of due times. A task or a timeout scope of its own would make an idle connection a twentieth
more expensive. Rules:

1. Times are of the given clock. If the clock can be set (the time of day), it is looked at again after
   `longest` seconds at most, so that a jump is noticed within that time.
2. Each object has at most one due time. Adding the object again replaces it.

It doesn't know what the objects do when they are called.
"""

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Protocol

import trio

LEAST_WAIT = 0.05
"""Seconds. An object whose clock stands still asks again and again for the time that is left on it."""


class Timed(Protocol):
    """An object that is called back."""

    def on_timer(self, now: float) -> float:
        """Do what is due. Returns the seconds until the next call, or infinity for never."""
        ...


class Timers:
    """Calls `on_timer` of the objects that were added and not removed."""

    def __init__(self, clock: Callable[[], float] = trio.current_time, *, longest: float = math.inf) -> None:
        self._clock = clock
        self._longest = longest
        self._due: list[tuple[float, int, Timed]] = []
        self._numbers = count()
        self._plans: dict[Timed, int] = {}  # the number of the entry that is valid
        self._earlier = trio.Event()

    def __len__(self) -> int:
        return len(self._plans)

    def add(self, timed: Timed) -> None:
        """Call `timed` back from now on. To be called again when its due time has changed."""
        self._plan(timed, self._clock())
        self._drop_invalid()

    def remove(self, timed: Timed) -> None:
        """Call `timed` back no more."""
        self._plans.pop(timed, None)
        self._drop_invalid()

    def _drop_invalid(self) -> None:
        if len(self._due) > 2 * len(self._plans) + 16:
            self._due = [entry for entry in self._due if self._is_valid(entry)]
            heapq.heapify(self._due)

    def _is_valid(self, entry: tuple[float, int, Timed]) -> bool:
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
        """Seconds until the next due time; `longest` at most."""
        if not self._due:
            return math.inf
        return max(0.0, min(self._due[0][0] - self._clock(), self._longest))

    async def run(self) -> None:
        """Call back until cancelled."""
        while True:
            self._earlier = trio.Event()
            with trio.move_on_after(self._pause()):
                await self._earlier.wait()
            now = self._clock()
            while self._due and self._due[0][0] <= now:
                entry = heapq.heappop(self._due)
                if self._is_valid(entry):
                    self._plan(entry[2], now)
