"""Pace: how long the next command waits, and how many of a kind there were lately.

Rules:

1. A `RateLimiter` delays and never refuses: `reserve` always takes a place and says how long until its turn.
   A caller that reserves again before that turn waits longer, so a sender is held to its rate whatever it
   does.
2. If a command turns out to weigh more than 1, `charge` adds the rest afterwards: the next command waits for
   it.
3. A rate limiter that is idle again holds no information. It may be forgotten and made again.
4. A `Window` counts what happened in the last so many seconds. It keeps no more times than it needs for that.
5. `RateLimiters` remembers only rate limiters that aren't idle, give or take a few: each use also looks at
   two others and forgets those that are idle. So names once seen don't stay, and no use pays for many.
6. A `Sampler` lets a few of each second through and counts the others. A caller that logs what passed, and
   later the counts, accounts for everything in a few lines a second.

Time is the caller's, in seconds of any monotonic clock. Nothing here sleeps or knows what it counts.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Hashable

_NOISE = 1e-6
"""Waits shorter than this are rounding of the clock's own numbers."""

_SWEEP = 2
"""Rate limiters looked at per use: more than the one that a use can add."""


class RateLimiter:
    """`rate` per second on the average, `burst` of them at once after a rest. A rate of 0 never waits.

    It keeps one number: when the rate limiter will be idle again, if nothing more is reserved (the
    theoretical arrival time of GCRA, the generic cell rate algorithm). A place may be taken `burst - 1`
    intervals ahead of that.
    """

    __slots__ = ("_ahead", "_idle_at", "_interval")

    def __init__(self, rate: float, burst: int) -> None:
        if not rate >= 0 or burst < 1:
            raise ValueError("a rate limiter needs a rate of 0 or more and a burst of 1 or more")
        self._interval = 1 / rate if rate else 0.0
        self._ahead = (burst - 1) * self._interval
        self._idle_at = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next place and return the seconds until its turn: 0.0 if that is now."""
        if not self._interval:
            return 0.0
        idle_at = max(self._idle_at, now)
        self._idle_at = idle_at + self._interval
        wait = idle_at - self._ahead - now
        return wait if wait > _NOISE else 0.0

    def take(self, now: float) -> float:
        """Take a place if its turn is now, and return 0.0. Else take none, and return how long until then."""
        if not self._interval:
            return 0.0
        idle_at = max(self._idle_at, now)
        wait = idle_at - self._ahead - now
        if wait > _NOISE:
            return wait
        self._idle_at = idle_at + self._interval
        return 0.0

    def charge(self, weight: float, now: float) -> None:
        """The last place taken weighs `weight` more than 1."""
        self._idle_at = max(self._idle_at, now) + weight * self._interval

    def idle(self, now: float) -> bool:
        """Whether the rate limiter is as good as a new one."""
        return self._idle_at <= now


class Window:
    """Whether more than `limit` happened within any `seconds`; keeps at most `limit + 1` times."""

    __slots__ = ("_limit", "_seconds", "_times")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._times: list[float] = []  # not a deque: idle connections have one each, 600 bytes when empty

    def add(self, now: float) -> bool:
        """Count one; return whether it is over the limit."""
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
    """The first `most` of each second pass, whatever their key. The others are counted by key."""

    __slots__ = ("_due", "_left_out", "_most", "_passed", "_until")

    def __init__(self, most: int = 10) -> None:
        self._most = most
        self._passed = 0
        self._until = float("-inf")
        self._left_out: Counter[Hashable] = Counter()
        self._due = math.inf

    def passes(self, key: Hashable, now: float) -> bool:
        """Count one; return whether it is among the first of its second."""
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


class RateLimiters:
    """One rate limiter for each key (a username), all of the same rate and burst."""

    __slots__ = ("_burst", "_limiters", "_rate")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._limiters: OrderedDict[str, RateLimiter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._limiters)

    def reserve(self, key: str, now: float) -> float:
        """`RateLimiter.reserve` on the rate limiter of `key`."""
        if not self._rate:
            return 0.0
        wait = self._limiter(key).reserve(now)
        self._sweep(now)
        return wait

    def take(self, key: str, now: float) -> float:
        """`RateLimiter.take` on the rate limiter of `key`."""
        if not self._rate:
            return 0.0
        wait = self._limiter(key).take(now)
        self._sweep(now)
        return wait

    def charge(self, key: str, weight: float, now: float) -> None:
        """`RateLimiter.charge` on the rate limiter of `key`."""
        if self._rate:
            self._limiter(key).charge(weight, now)

    def _limiter(self, key: str) -> RateLimiter:
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters[key] = RateLimiter(self._rate, self._burst)
        return limiter

    def _sweep(self, now: float) -> None:
        """Look at the two keys longest unseen: forget those that are idle, and move the others to the end."""
        for _ in range(min(_SWEEP, len(self._limiters))):
            key, limiter = self._limiters.popitem(last=False)
            if not limiter.idle(now):
                self._limiters[key] = limiter
