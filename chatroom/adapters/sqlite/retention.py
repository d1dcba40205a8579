"""Which messages go, and when: those that are too old or too many, the oldest first.

1. A step removes a bounded number of messages in one transaction. After it there is a pause of several times
   its own length, so that trimming takes a small part of the thread's time whatever there is to trim.
2. Rooms that have grown too long are trimmed soon; for age, all rooms are looked through now and then.
3. A message stays as long as one before it in its room stays: ids have no hole.
"""

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from chatroom.adapters.sqlite.store import Store
from chatroom.values.errors import Unavailable
from chatroom.values.retain import Retain

STEP_MESSAGES = 1000
STEP_ROOMS = 100
PAUSE_SECONDS = 0.05
PAUSE_FACTOR = 4
SWEEP_SECONDS = 60.0


class Retention:
    """Trims a store, step by step; used by the store's thread."""

    def __init__(
        self,
        store: Store,
        retain: Retain,
        *,
        now: Callable[[], float],
        now_ms: Callable[[], int],
        trimmed: Callable[[str, int], None],
    ) -> None:
        """`trimmed` is told of a room and its lowest id kept."""
        self._store = store
        self._retain = retain
        self._now = now
        self._now_ms = now_ms
        self._trimmed = trimmed
        self._due_rooms: deque[str] = deque()  # in each at most once
        self._known_due: set[str] = set()
        self._swept_to: str | None = ""  # the last room looked through; None between sweeps
        self._sweep_at = now()
        self._paused_until = now()

    @property
    def due(self) -> float:
        """When to take the next step; infinity for never."""
        if self._retain.everything:
            return math.inf
        if self.work_waits:
            return self._paused_until
        return max(self._sweep_at, self._paused_until)

    @property
    def work_waits(self) -> bool:
        """There is something that may have to be trimmed."""
        return bool(self._due_rooms) or self._swept_to is not None

    def written(self, rooms: set[str]) -> None:
        """Something was stored in these rooms."""
        count = self._retain.count
        if count is None:
            return
        for room in rooms:
            with suppress(Unavailable):
                extent = self._store.extent(room)
                if extent.last - extent.trimmed > count:
                    self._look_at(room)

    def step(self) -> None:
        """Remove a few messages, or find out that none is to be removed."""
        started = self._now()
        with suppress(Unavailable):
            self._sweep()
            firsts = self._choose()
            if firsts and self._store.trim(firsts):
                for room, first in firsts.items():
                    self._trimmed(room, first)
        now = self._now()
        self._paused_until = now + max(PAUSE_SECONDS, PAUSE_FACTOR * (now - started))

    def _look_at(self, room: str) -> None:
        if room not in self._known_due:
            self._known_due.add(room)
            self._due_rooms.append(room)

    def _sweep(self) -> None:
        """Go on through all rooms when there is nothing else to look at."""
        if self._due_rooms:
            return
        if self._swept_to is None and self._now() >= self._sweep_at:
            self._swept_to = ""
        if self._swept_to is not None:
            rooms = self._store.rooms_after(self._swept_to, STEP_ROOMS)
            for room in rooms:
                self._look_at(room)
            self._swept_to = rooms[-1] if rooms else None
            self._sweep_at = self._now() + SWEEP_SECONDS

    def _choose(self) -> dict[str, int]:
        """Rooms and the lowest id that each is to keep, for one step."""
        firsts: dict[str, int] = {}
        budget = STEP_MESSAGES
        for _ in range(min(len(self._due_rooms), STEP_ROOMS)):
            room = self._due_rooms.popleft()
            self._known_due.discard(room)
            extent = self._store.extent(room)
            wanted = self._wanted(room, extent.trimmed + 1, extent.last, budget)
            if wanted <= extent.trimmed + 1:
                continue
            firsts[room] = min(wanted, extent.trimmed + 1 + budget)
            budget -= firsts[room] - extent.trimmed - 1
            self._look_at(room)  # there may be more
            if not budget:
                break
        return firsts

    def _wanted(self, room: str, first: int, last: int, budget: int) -> int:
        """The lowest id to keep, as far as the next `budget` messages tell."""
        wanted = first
        if self._retain.count is not None:
            wanted = max(wanted, last - self._retain.count + 1)
        if self._retain.seconds is not None and first <= last:
            oldest = self._now_ms() - int(self._retain.seconds * 1000)
            wanted = max(wanted, self._store.first_since(room, oldest, budget))
        return wanted
