"""Keepalive: when a peer is pinged, and when a silent one is given up.

Owns: when the next ping is due, and since when one waits for its answer.

1. A ping is due an interval after the last bytes in or the last ping. Bytes out don't put it off: so they
   needn't be dated, and no proxy on the way sees a connection idle for longer than the interval.
2. Any sign of life (bytes in, or bytes newly taken from us) answers a ping.

Does not know: frames, sockets, clocks.
"""

from chatroom.core.errors import ChatroomError
from chatroom.core.limits import Limits


class Silent(ChatroomError):
    """The peer gave no sign of life in time; it is dropped, since a close frame wouldn't reach it."""


class Pulse:
    """The signs of life of one peer."""

    __slots__ = ("_due", "_limits", "_pinged")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._due = now + limits.ping_interval
        self._pinged: float | None = None  # when the first of the pings without an answer went out

    def hear(self, now: float) -> None:
        """Bytes have come in; or somebody else watches the peer at this moment."""
        self._due = now + self._limits.ping_interval
        self._pinged = None

    def beat(self) -> None:
        """Another sign of life."""
        self._pinged = None

    def ping(self, now: float) -> None:
        """A ping has been sent."""
        self._due = now + self._limits.ping_interval
        if self._pinged is None:
            self._pinged = now

    def listen(self, now: float) -> None:
        """Nobody has listened until now; an answer that is awaited gets its whole time from here."""
        if self._pinged is not None:
            self._pinged = now

    def wait(self, now: float) -> float:
        """Seconds until the next step; 0 if a ping is due now. Raises Silent when there is no answer."""
        step = self._due
        if self._pinged is not None:
            end = self._pinged + self._limits.ping_timeout
            if end <= now:
                raise Silent(f"no answer to a ping in {self._limits.ping_timeout:g} seconds")
            step = min(step, end)
        return max(0.0, step - now)
