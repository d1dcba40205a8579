"""Keepalive: when a silent peer is to be pinged, and when to be given up.

Owns: the time of the last sign of life and of a ping that waits for its answer.

1. Any sign of life (bytes in, or bytes newly taken from us) answers a ping.
2. The clock stands still while nobody listens: what we don't read can't have been silence.

Does not know: frames, sockets, clocks.
"""

from chatroom.values.errors import ChatroomError
from chatroom.values.limits import Limits


class Silent(ChatroomError):
    """The peer gave no sign of life in time; it is dropped, since a close frame wouldn't reach it."""


class Pulse:
    """The signs of life of one peer. It starts deaf: somebody has to `listen` for time to pass."""

    __slots__ = ("_deaf_since", "_life", "_limits", "_pinged")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._life = now
        self._pinged: float | None = None
        self._deaf_since: float | None = now

    def listen(self, now: float) -> float:
        """Somebody listens from now on; return for how long nobody did."""
        if self._deaf_since is None:
            return 0.0
        pause = now - self._deaf_since
        self._deaf_since = None
        self._life += pause
        if self._pinged is not None:
            self._pinged += pause
        return pause

    def stop(self, now: float) -> None:
        """Nobody listens from now on."""
        self._deaf_since = now

    def beat(self, now: float) -> None:
        """A sign of life."""
        self._life = self._heard_until(now)
        self._pinged = None

    def ping(self, now: float) -> None:
        """A ping has been sent; its answer is awaited from now on."""
        self._pinged = self._heard_until(now)

    def wait(self, now: float) -> float:
        """Seconds until the next step; 0 if a ping is due now. Raises Silent when there is no answer.

        After an answer the next ping is due an interval later, so that is how long to wait for one at a time.
        """
        heard_until = self._heard_until(now)
        if self._pinged is None:
            return max(0.0, self._life + self._limits.ping_interval - heard_until)
        left = self._pinged + self._limits.ping_timeout - heard_until
        if left <= 0:
            raise Silent(f"no answer to a ping in {self._limits.ping_timeout:g} seconds")
        return min(left, self._limits.ping_interval)

    def _heard_until(self, now: float) -> float:
        return now if self._deaf_since is None else self._deaf_since
