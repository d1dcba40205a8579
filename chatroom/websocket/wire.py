"""Wire: the bytes of one connection in both directions. Only it touches the socket after the handshake.

Owns the two halves, `inbound` and `outbound`; the clocks that run while the socket is read; and the last
steps of a connection. Rules:

1. When one direction fails, both have failed.
2. The clock of an unfinished message runs only while the socket is watched. While it is watched, a ping needs
   a sign of life from the peer. While it isn't, it is enough that the peer's system has confirmed our bytes.
3. The socket is closed in `finish`, and nowhere else.

It doesn't know messages, rooms or users.
"""

from collections.abc import Callable

import trio

from chatroom.core.limits import Limits
from chatroom.net.transport import Transport
from chatroom.websocket.framing import Inbound
from chatroom.websocket.keepalive import Keepalive
from chatroom.websocket.outbound import Outbound

READ_BYTES = 64 * 1024
"""Bytes that are read at once."""
_PACED = 4 * 1024
_CHECK_SECONDS = 0.02  # seconds between two looks whether the peer has confirmed the last bytes,
_CHECKS = 25  # and how often to look when it has closed


class Wire:
    """Both directions of one connection.

    `on_pending` is called whenever `outbound.flush` has something to do, also when the connection has broken
    or was shut. It may set an event, but must neither wait nor raise.

    `paced`: set it to read in small pieces. `ended`: nothing more will be read, because the peer has closed
    its half, or because the connection is broken.
    """

    __slots__ = (
        "_keepalive",
        "_limits",
        "_transport",
        "_unwatched_since",
        "ended",
        "inbound",
        "outbound",
        "paced",
    )

    def __init__(
        self, transport: Transport, limits: Limits, *, on_pending: Callable[[], None], binary: bool = False
    ) -> None:
        self._transport = transport
        self._limits = limits
        self.inbound = Inbound(limits, binary=binary)
        self.outbound = Outbound(transport, on_pending)
        self._unwatched_since: float | None = trio.current_time()  # since when the socket isn't watched
        self._keepalive = Keepalive(limits, self._unwatched_since)
        self.ended = False
        self.paced = False

    # Reading

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Call `on_readable`, in another task, whenever `read` has something."""
        if self._unwatched_since is not None:
            now = trio.current_time()
            self.inbound.pause(now - self._unwatched_since)
            self._keepalive.on_reading(now)
            self._unwatched_since = None
            self._transport.watch(on_readable)

    def unwatch(self) -> None:
        """Read no more for now."""
        if self._unwatched_since is None:
            self._unwatched_since = trio.current_time()
            self._transport.unwatch()

    @property
    def readable(self) -> bool:
        """The socket is watched, and `read` has more bytes even if no more arrive."""
        return self._unwatched_since is None and self._transport.buffered

    def read(self) -> None:
        """Read once, and hand the bytes to `inbound`."""
        try:
            data = self._transport.receive_nowait(_PACED if self.paced else READ_BYTES)
        except OSError:
            self.ended = True
            self.outbound.hang_up()
            return
        if data is not None:
            self.take(data)

    def take(self, data: bytes) -> None:
        """Hand `data` to `inbound`. Empty data is the end of the stream."""
        if data:
            now = trio.current_time()
            self._keepalive.on_bytes(now)
            self.inbound.feed(data, now)
        else:
            self.ended = True

    def on_timer(self, now: float) -> float:
        """Send a ping if one is due at `now`. Returns the seconds until the next call.

        Raises KeepaliveTimeout when the peer hasn't answered a ping in time, and Disconnect when a message
        isn't finished in time.
        """
        wait = self._keep_alive(now)
        inbound = self.inbound
        if inbound.since is None:
            return wait
        until = now if self._unwatched_since is None else self._unwatched_since
        left = inbound.since + self._limits.frame_seconds - until
        if left > 0:
            return min(wait, left)
        inbound.give_up_waiting()
        assert inbound.fault is not None
        raise inbound.fault

    def _keep_alive(self, now: float) -> float:
        keepalive, outbound = self._keepalive, self.outbound
        if outbound.pending:  # flush has a timeout of its own
            outbound.remind()
            keepalive.on_bytes(now)
            return self._limits.ping_interval
        if outbound.moved or (self._unwatched_since is not None and self._transport.confirmed()):
            outbound.moved = False
            keepalive.on_progress()
        if wait := keepalive.wait(now):
            return wait
        outbound.ping()
        keepalive.on_ping(now)
        return keepalive.wait(now)

    # The end

    async def linger(self) -> None:
        """Send what is left, then read and discard until the peer has closed. The caller sets the deadline.

        No other task may use the wire from then on. Raises Stalled as `outbound.flush` does.
        """
        self.unwatch()
        await self.outbound.flush()
        self.inbound.ignore()
        while not self._is_over:
            await self._discard()
        for _ in range(_CHECKS):
            if self.outbound.broken or not self._transport.unsent():
                break
            await trio.sleep(_CHECK_SECONDS)

    async def wait_confirmed(self) -> None:
        """Read and discard until the peer has confirmed all bytes, or has closed; for `send_timeout` at most.

        A reset would take back a close frame that stands behind many unread bytes.
        """
        with trio.move_on_after(self._limits.send_timeout):
            while not (self._is_over or self.outbound.pending) and self._transport.unsent():
                with trio.move_on_after(_CHECK_SECONDS):
                    await self._discard()

    @property
    def _is_over(self) -> bool:
        """Nothing more that the peer sends matters."""
        return self.outbound.broken or self.ended or self.inbound.closed

    async def _discard(self) -> None:
        try:
            self.take(await self._transport.receive_some(READ_BYTES))
        except OSError:
            self.outbound.hang_up()

    async def finish(self, *, hard: bool = False) -> None:
        """Close the socket: in order if the peer has confirmed all bytes, otherwise or if `hard` by a reset.

        Without the reset, a FIN behind bytes that the peer doesn't read would stay in the kernel.
        """
        self.unwatch()
        outbound = self.outbound
        try:
            if not (hard or outbound.broken or outbound.pending or self._transport.unsent()):
                await self._transport.aclose()
            else:
                self._transport.abort()
                await trio.lowlevel.checkpoint()
        finally:
            outbound.forget()
