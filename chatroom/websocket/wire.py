"""Wire: one connection's bytes, the only thing that touches its socket once the handshake has been
answered.

Owns: the two halves, `inbound` and `outbound`; the clocks that run while the peer is listened to; the
last steps of a connection.

1. The failure of one direction is that of both.
2. The clock of an unfinished message runs only while the socket is watched. So does the keepalive's as
   far as an answer has to be read; else it is enough that what we sent has reached the peer's system.
3. The socket ends in `finish`.

Does not know: messages, rooms, who the peer is.
"""

from collections.abc import Callable

import trio

from chatroom.core.limits import Limits
from chatroom.net.transport import Transport
from chatroom.websocket.framing import Inbound
from chatroom.websocket.keepalive import Pulse
from chatroom.websocket.outbound import Outbound

MOST = 64 * 1024
"""Bytes that are read at once."""
_PACED = 4 * 1024
_LOOK = 0.02  # seconds between two looks whether the peer has confirmed the last bytes,
_LOOKS = 25  # and how often to look when it has closed


class Wire:
    """Both directions of one connection.

    `on_pending` is called whenever `outbound.flush` is wanted, also when the connection broke or was
    shut. It is called in the middle of things: it may set an event, but neither wait nor raise.

    `paced`: set it to read in small pieces. `ended`: nothing more will be read, for the peer has ended
    its half, or the connection is broken.
    """

    __slots__ = ("_deaf_since", "_limits", "_pulse", "_transport", "ended", "inbound", "outbound", "paced")

    def __init__(
        self, transport: Transport, limits: Limits, *, on_pending: Callable[[], None], binary: bool = False
    ) -> None:
        self._transport = transport
        self._limits = limits
        self.inbound = Inbound(limits, binary=binary)
        self.outbound = Outbound(transport, on_pending)
        self._deaf_since: float | None = trio.current_time()  # since when the socket isn't watched
        self._pulse = Pulse(limits, self._deaf_since)
        self.ended = False
        self.paced = False

    # Reading

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Call `on_readable`, in another task, whenever `read` has something."""
        if self._deaf_since is not None:
            now = trio.current_time()
            self.inbound.pause(now - self._deaf_since)
            self._pulse.listen(now)
            self._deaf_since = None
            self._transport.watch(on_readable)

    def unwatch(self) -> None:
        """Leave what comes unread."""
        if self._deaf_since is None:
            self._deaf_since = trio.current_time()
            self._transport.unwatch()

    @property
    def readable(self) -> bool:
        """The socket is watched, and `read` has more, although nothing more need come for that."""
        return self._deaf_since is None and self._transport.buffered

    def read(self) -> None:
        """Read once, for `inbound` or to find the end."""
        try:
            data = self._transport.receive_nowait(_PACED if self.paced else MOST)
        except OSError:
            self.ended = True
            self.outbound.hang_up()
            return
        if data is not None:
            self.take(data)

    def take(self, data: bytes) -> None:
        """This has come; empty at the end."""
        if data:
            now = trio.current_time()
            self._pulse.hear(now)
            self.inbound.feed(data, now)
        else:
            self.ended = True

    def on_timer(self, now: float) -> float:
        """Do what is due at `now`; return after how many seconds to call again.

        Sends a ping when it is due. Raises Silent when the peer hasn't answered one in time, Disconnect
        when a message isn't finished in time.
        """
        wait = self._keep_alive(now)
        inbound = self.inbound
        if inbound.since is None:
            return wait
        until = now if self._deaf_since is None else self._deaf_since
        left = inbound.since + self._limits.frame_seconds - until
        if left > 0:
            return min(wait, left)
        inbound.give_up_waiting()
        assert inbound.fault is not None
        raise inbound.fault

    def _keep_alive(self, now: float) -> float:
        pulse, outbound = self._pulse, self.outbound
        if outbound.pending:  # flush watches the peer
            outbound.remind()
            pulse.hear(now)
            return self._limits.ping_interval
        if outbound.moved or (self._deaf_since is not None and self._transport.confirmed()):
            outbound.moved = False
            pulse.beat()
        if wait := pulse.wait(now):
            return wait
        outbound.ping()
        pulse.ping(now)
        return pulse.wait(now)

    # The end

    async def linger(self) -> None:
        """Send what is left, then read and discard until the peer has closed. The caller sets the deadline.

        To be called when nobody else uses the wire any more. Raises Stalled as flush does.
        """
        self.unwatch()
        await self.outbound.flush()
        self.inbound.ignore()
        while not self._is_over:
            await self._discard()
        for _ in range(_LOOKS):
            if self.outbound.broken or not self._transport.unsent():
                break
            await trio.sleep(_LOOK)

    async def hand_over(self) -> None:
        """Read on like that until what the socket has taken has reached a peer that hasn't closed.

        It has `send_timeout` for that. A reset would take back a close frame behind much that it has to read.
        """
        with trio.move_on_after(self._limits.send_timeout):
            while not (self._is_over or self.outbound.pending) and self._transport.unsent():
                with trio.move_on_after(_LOOK):
                    await self._discard()

    @property
    def _is_over(self) -> bool:
        """Nothing more of the peer's matters."""
        return self.outbound.broken or self.ended or self.inbound.closed

    async def _discard(self) -> None:
        try:
            self.take(await self._transport.receive_some(MOST))
        except OSError:
            self.outbound.hang_up()

    async def finish(self, *, hard: bool = False) -> None:
        """Close the socket: in order if all that was sent has reached the peer; else a reset, as if `hard`.

        Without the reset, a FIN behind bytes that the peer does not read would stay in the kernel.
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
