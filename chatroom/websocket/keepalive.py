"""Keepalive: when a ping is due, and when a silent peer has timed out.

Owns the time of the next ping, and the time since which a ping waits for its answer. Rules:

1. A ping is due an interval after the last bytes in or the last ping. Bytes out don't postpone it. So their
   times needn't be recorded, and no proxy on the way sees a connection idle for longer than the interval.
2. Any sign of life answers a ping: bytes in, or bytes that the peer has newly taken from us.

It doesn't know frames, sockets or clocks.
"""

from chatroom.core.errors import ChatroomError
from chatroom.core.limits import Limits


class KeepaliveTimeout(ChatroomError):
    """The peer gave no sign of life in time. It is dropped, since a close frame wouldn't reach it."""


class Keepalive:
    """The keepalive of one connection. Times are seconds of the caller's clock."""

    __slots__ = ("_due", "_limits", "_pinged")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._due = now + limits.ping_interval
        self._pinged: float | None = None  # when the first of the pings without an answer went out

    def on_bytes(self, now: float) -> None:
        """Bytes have come in, or a write that waits watches the peer at this moment."""
        self._due = now + self._limits.ping_interval
        self._pinged = None

    def on_progress(self) -> None:
        """The peer has taken bytes from us: a sign of life that doesn't postpone the next ping."""
        self._pinged = None

    def on_ping(self, now: float) -> None:
        """A ping has been sent."""
        self._due = now + self._limits.ping_interval
        if self._pinged is None:
            self._pinged = now

    def on_reading(self, now: float) -> None:
        """Reading begins again. A ping that waits for its answer gets its whole timeout from now on."""
        if self._pinged is not None:
            self._pinged = now

    def wait(self, now: float) -> float:
        """Seconds until the next step, 0 if a ping is due now. Raises KeepaliveTimeout without an answer."""
        step = self._due
        if self._pinged is not None:
            end = self._pinged + self._limits.ping_timeout
            if end <= now:
                raise KeepaliveTimeout(f"no answer to a ping in {self._limits.ping_timeout:g} seconds")
            step = min(step, end)
        return max(0.0, step - now)
