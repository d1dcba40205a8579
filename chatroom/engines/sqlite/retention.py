"""Which messages go, and when: those that are too old or too many, the oldest first.

Retention:

1. A step removes a bounded number of messages in one transaction. After it comes a pause of several times its
   own length, so trimming takes a small part of the thread's time however much there is to trim.
2. Rooms that have grown too long are trimmed soon. For age, all rooms are looked through now and then.
3. A message stays as long as one before it in its room stays: ids have no hole.
4. Age is by the AgeClock. The present is noted in the database now and then, for the next start. The log
   tells once of messages that the clock alone would remove.

AgeClock, the time of day as far as it makes messages old (a clock that is set wrong must not remove them):

5. Between two looks the present moves on by as much as the monotonic clock has moved, and by no more,
   wherever the clock is set. If the clock is set back, the present follows it: messages are kept longer.
6. How much time passed before the start is the clock's word alone. It is doubted. It counts from `wait`
   seconds after the start on, if the clock still says so then. Until then the present goes on from the last
   time that was noted in the database. Without such a note nothing is old yet.

It doesn't know SQL, nor who reads the messages.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from chatroom.core.errors import Unavailable
from chatroom.core.logevents import log_event
from chatroom.core.messages import Retain
from chatroom.engines.sqlite.store import Store

# The clock

TOLERANCE_MS = 60_000
"""Milliseconds by which a clock may be set back or forth, by NTP perhaps, before that means anything."""


class AgeClock:
    """Tells the present, in milliseconds of the time of day, from a clock and a monotonic one."""

    def __init__(
        self, noted: int | None, *, wait: float, now: Callable[[], float], now_ms: Callable[[], int]
    ) -> None:
        """`noted` is the time of day that the database has a note of; `now` is the monotonic clock."""
        self._now = now
        self._now_ms = now_ms
        began, clock = now(), now_ms()
        # Offsets are times of day less the monotonic clock: they stand still while both clocks agree.
        self._claimed = clock - began * 1000
        self._offset = None if noted is None else min(noted - began * 1000, self._claimed)
        self.doubted_until: float | None = began + wait
        """When the doubt of rule 6 ends, by the monotonic clock; None when it has ended."""
        self.present: int | None = None
        """The time of day by which messages are old; None while nothing is."""
        self.clock = clock
        """What the clock says, whether it is doubted or not."""
        self.look()

    @property
    def doubtful(self) -> bool:
        """Whether messages are older by the clock than by the present."""
        return self.present is None or self.clock - self.present > TOLERANCE_MS

    @property
    def wait(self) -> float | None:
        """Seconds until the clock's word may count; None if it won't before the next start."""
        now = self._now()
        if self.doubted_until is None or self.clock - now * 1000 > self._claimed + TOLERANCE_MS:
            return None
        return max(0.0, self.doubted_until - now)

    def look(self) -> bool:
        """Look at both clocks. Return whether time that was doubted counts from now on."""
        passed, self.clock = self._now() * 1000, self._now_ms()
        offset = self.clock - passed
        if self._offset is not None and offset < self._offset - TOLERANCE_MS:
            self._offset = offset
        admitted = self.doubted_until is not None and self._now() >= self.doubted_until
        if admitted:
            self.doubted_until = None
            claimed = min(self._claimed, offset)
            self._offset = claimed if self._offset is None else max(self._offset, claimed)
        self.present = None if self._offset is None else min(round(self._offset + passed), self.clock)
        return admitted


# Retention

STEP_MESSAGES = 1000
"""Messages that one step removes at most."""
STEP_ROOMS = 100
"""Rooms that one step looks at, at most."""
PAUSE_SECONDS = 0.05
PAUSE_FACTOR = 4
"""A pause is so many times as long as the step before it, and PAUSE_SECONDS at least."""
SWEEP_SECONDS = 60.0
"""Seconds between two looks through all rooms."""
DOUBT_SECONDS = 3600.0
"""Seconds for which the time that passed before the start is doubted; fewer if messages are kept for less."""
NOTE_MS = 600_000
"""Milliseconds between two notes of the present."""


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
        """`trimmed` is called with a room and the lowest id kept of it."""
        self._store = store
        self._retain = retain
        self._now = now
        self._trimmed = trimmed
        self._doubtful: set[str] = set()  # rooms whose last trimming was reported failed
        self._noted: int | None = None
        self._told_of_doubt = False
        self._clock = None if retain.seconds is None else self._start_clock(retain.seconds, now_ms)
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
        doubted_until = None if self._clock is None else self._clock.doubted_until
        return max(min(self._sweep_at, doubted_until or math.inf), self._paused_until)

    @property
    def work_waits(self) -> bool:
        """Whether there are rooms to look at."""
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
        """Remove a few messages, or find out that none has to go."""
        started = self._now()
        with suppress(Unavailable):
            if self._clock is not None:
                self._look_at_clock(self._clock)
            self._look_up_doubtful()
            self._sweep()
            firsts = self._choose()
            if self._store.trim(firsts):
                for room, first in firsts.items():
                    self._trimmed(room, first)
            else:
                self._doubtful.update(firsts)
        now = self._now()
        self._paused_until = now + max(PAUSE_SECONDS, PAUSE_FACTOR * (now - started))

    def close(self) -> None:
        """Note the time, for the next start."""
        if self._clock is not None and self._clock.present is not None:
            self._clock.look()
            self._store.note_time(self._clock.present)

    def _start_clock(self, seconds: float, now_ms: Callable[[], int]) -> AgeClock:
        """The clock as the database knows it."""
        known = None
        with suppress(Unavailable):
            known = self._noted = self._store.noted_time()
            if known is None and not self._store.rooms_after("", 1):
                known = now_ms()  # no message could be too old
        return AgeClock(known, wait=min(DOUBT_SECONDS, seconds), now=self._now, now_ms=now_ms)

    def _look_at_clock(self, clock: AgeClock) -> None:
        """Rule 4."""
        if clock.look():
            self._swept_to = ""
        if not clock.doubtful:
            self._told_of_doubt = False
        present = clock.present
        if present is None or (self._noted is not None and abs(present - self._noted) < NOTE_MS):
            return
        if self._store.note_time(present):
            self._noted = present

    def _look_up_doubtful(self) -> None:
        """A trimming that was reported failed may have been done: look where its rooms begin.

        Raises Unavailable.
        """
        while self._doubtful:
            room = next(iter(self._doubtful))
            self._trimmed(room, self._store.extent(room).trimmed + 1)
            self._doubtful.discard(room)

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
        """The lowest id to keep, as far as the next `budget` messages tell. Raises Unavailable."""
        wanted = first
        if self._retain.count is not None:
            wanted = max(wanted, last - self._retain.count + 1)
        if self._clock is not None and first <= last:
            wanted = max(wanted, self._young(self._clock, room, first, budget))
        return wanted

    def _young(self, clock: AgeClock, room: str, first: int, budget: int) -> int:
        """The lowest id young enough to keep, as far as the next `budget` messages tell."""
        assert self._retain.seconds is not None
        kept = int(self._retain.seconds * 1000)
        young = first
        if clock.present is not None:
            young = self._store.first_since(room, clock.present - kept, budget)
        if clock.doubtful and not self._told_of_doubt:
            by_clock = self._store.first_since(room, clock.clock - kept, budget)
            if by_clock > young:
                self._tell_of_doubt(clock)
        return young

    def _tell_of_doubt(self, clock: AgeClock) -> None:
        """Log that there are messages that are too old by the clock alone."""
        self._told_of_doubt = True
        ahead = None if clock.present is None else round((clock.clock - clock.present) / 1000)
        wait = clock.wait
        log_event(
            logging.WARNING, "clock_doubted", ahead=ahead, wait=None if wait is None else math.ceil(wait)
        )
