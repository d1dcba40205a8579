"""Pace and floods: how long to wait for the next one, and how many there were lately.

Rules:

1. A `Bucket` delays and never refuses: `reserve` always takes a place and says how long until its turn. Who
   asks again before that waits longer, so a sender is held to its rate whatever it does.
2. What has been found to weigh more than it was taken for is charged afterwards: the next one waits for it.
3. A bucket that is full again holds no information; it may be forgotten and made anew.
4. A `Window` counts what happened in the last so many seconds, never more of it than it must to tell.
5. A `BucketStore` remembers only buckets that aren't full, give or take: each use also looks at two others
   and forgets those that are, so names once seen don't stay, and no use ever pays for many.
6. A `Sampler` lets a few of a second through and counts the others, so that whoever tells of what it let
   through, and then of the counts, tells of everything, and of no more than a few a second.

Time is the caller's, in seconds of any monotonic clock. Nothing here sleeps or knows what it counts.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Hashable

_NOISE = 1e-6
"""Waits shorter than this are rounding of the clock's own numbers."""

_SWEEP = 2
"""Buckets looked at per use: more than the one that a use can add."""


class Bucket:
    """`rate` per second on the average, `burst` of them at once after a rest; a rate of 0 never waits.

    It keeps one number: when the bucket will be full again, if nothing more is taken (GCRA's theoretical
    arrival time). A place may be taken `burst - 1` intervals ahead of that.
    """

    __slots__ = ("_ahead", "_full_at", "_interval")

    def __init__(self, rate: float, burst: int) -> None:
        if not rate >= 0 or burst < 1:
            raise ValueError("a bucket needs a rate of 0 or more and a burst of 1 or more")
        self._interval = 1 / rate if rate else 0.0
        self._ahead = (burst - 1) * self._interval
        self._full_at = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next place and return the seconds until it comes: 0.0 if that is now."""
        if not self._interval:
            return 0.0
        full_at = max(self._full_at, now)
        self._full_at = full_at + self._interval
        wait = full_at - self._ahead - now
        return wait if wait > _NOISE else 0.0

    def charge(self, weight: float, now: float) -> None:
        """The last place taken weighs so much more than 1."""
        self._full_at = max(self._full_at, now) + weight * self._interval

    def idle(self, now: float) -> bool:
        """Whether the bucket is full again, as good as a new one."""
        return self._full_at <= now


class Window:
    """Whether more than `limit` happened within any `seconds`; keeps at most `limit + 1` times."""

    __slots__ = ("_limit", "_seconds", "_times")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._times: list[float] = []  # not a deque: idle connections have one each, 600 bytes when empty

    def add(self, now: float) -> bool:
        """Count one; True if it is over the limit."""
        self._forget(now)
        self._times.append(now)
        if len(self._times) <= self._limit:
            return False
        del self._times[: -self._limit - 1]
        return True

    def wait(self, now: float) -> float:
        """Seconds until one more would not be over the limit; 0.0 if it wouldn't be now."""
        self._forget(now)
        surplus = len(self._times) - self._limit
        if surplus < 0:
            return 0.0
        return self._times[surplus] + self._seconds - now if self._limit else self._seconds

    def idle(self, now: float) -> bool:
        """Whether nothing of the last `seconds` is left to count."""
        self._forget(now)
        return not self._times

    def _forget(self, now: float) -> None:
        horizon = now - self._seconds
        gone = 0
        for time in self._times:
            if time > horizon:
                break
            gone += 1
        if gone:
            del self._times[:gone]


class Sampler:
    """The first `most` of a second pass, whatever their key; the others are counted by key."""

    __slots__ = ("_due", "_left_out", "_most", "_passed", "_until")

    def __init__(self, most: int = 10) -> None:
        self._most = most
        self._passed = 0
        self._until = float("-inf")
        self._left_out: Counter[Hashable] = Counter()
        self._due = math.inf

    def passes(self, key: Hashable, now: float) -> bool:
        """Count one; whether it is among the first of its second."""
        if now >= self._until:
            self._until = now + 1.0
            self._passed = 0
        if self._passed < self._most:
            self._passed += 1
            return True
        if not self._left_out:
            self._due = self._until
        self._left_out[key] += 1
        return False

    @property
    def waiting(self) -> bool:
        """Whether something was left out since `left_out` was asked last."""
        return bool(self._left_out)

    def wait(self, now: float) -> float:
        """Seconds until `left_out` is to be asked: 0.0 if that is now, infinity if nothing was left out."""
        return max(0.0, self._due - now)

    def left_out(self) -> dict[Hashable, int]:
        """How many didn't pass since this was asked last, by their keys."""
        counts = dict(self._left_out)
        self._left_out.clear()
        self._due = math.inf
        return counts


class BucketStore:
    """A bucket per key (a username), all of the same rate and burst."""

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def reserve(self, key: str, now: float) -> float:
        """`Bucket.reserve` on the bucket of `key`."""
        if not self._rate:
            return 0.0
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._rate, self._burst)
        wait = bucket.reserve(now)
        self._sweep(now)
        return wait

    def _sweep(self, now: float) -> None:
        """Look at the two keys longest unseen: forget full buckets, and send the others to the far end."""
        for _ in range(min(_SWEEP, len(self._buckets))):
            key, bucket = self._buckets.popitem(last=False)
            if not bucket.idle(now):
                self._buckets[key] = bucket
