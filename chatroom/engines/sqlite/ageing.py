"""The time of day as far as it makes messages old: a clock that is set wrong must not remove them.

1. Between two looks the present moves on by what the monotonic clock has moved, and by no more, wherever the
   clock is set. If the clock is set back, the present is what it says: messages are kept longer.
2. How much time passed before the start is the clock's word alone. It is doubted, and counts from `wait`
   seconds after the start on, if the clock still says so then. Until then the present goes on from the last
   time that was noted in the database; without such a note nothing is old yet.
"""

from collections.abc import Callable

TOLERANCE_MS = 60_000
"""How far a clock may be set back and forth, by NTP perhaps, before that means anything."""


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
        """When rule 2 ends, by the monotonic clock; None when it has ended."""
        self.present: int | None = None
        """The time of day by which messages are old; None while nothing is."""
        self.clock = clock
        """What the clock says, for those who doubt it."""
        self.look()

    @property
    def doubtful(self) -> bool:
        """Whether the clock says that messages are older than they are held to be."""
        return self.present is None or self.clock - self.present > TOLERANCE_MS

    @property
    def wait(self) -> float | None:
        """After how many seconds what the clock says may count; None if not before the next start."""
        now = self._now()
        if self.doubted_until is None or self.clock - now * 1000 > self._claimed + TOLERANCE_MS:
            return None
        return max(0.0, self.doubted_until - now)

    def look(self) -> bool:
        """Look at both clocks; whether time that was doubted counts from now on."""
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
