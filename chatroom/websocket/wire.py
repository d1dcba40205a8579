"""Wire: one connection's bytes, the only thing that touches its socket once the handshake has been

answered.

Owns: the two halves, `inbound` and `outbound`; the clocks that run while the peer is listened to; the
last steps of a connection.

1. The failure of one direction is that of both.
2. The clock of an unfinished message runs only while the socket is watched. So does the keepalive's as
   far as an answer has to be read; else it is enough that what we sent has reached the peer's system.
3. The socket ends in `finish`.

Does not know: messages, rooms, who the peer is.

Keepalive: when a peer is pinged, and when a silent one is given up.

Owns: when the next ping is due, and since when one waits for its answer.

1. A ping is due an interval after the last bytes in or the last ping. Bytes out don't put it off: so they
   needn't be dated, and no proxy on the way sees a connection idle for longer than the interval.
2. Any sign of life (bytes in, or bytes newly taken from us) answers a ping.

Does not know: frames, sockets, clocks.

The opening handshake's answer, by trio-websocket (RFC 6455, section 4.2.2).

The library gets a vetted handshake, in memory, and sees the end of its stream when it has answered: what
follows is read and written by Wire. It never sees the socket, so nothing here waits for a peer.
"""

from collections.abc import Callable

import trio
from trio_websocket import wrap_server_stream

from chatroom.core.errors import ChatroomError
from chatroom.core.limits import Limits
from chatroom.net.transport import Transport
from chatroom.websocket.framing import Inbound
from chatroom.websocket.outbound import Outbound


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


class _Memory(trio.abc.Stream):
    """What the library reads, the handshake and then the end, and what it writes. No turn is given away."""

    def __init__(self, handshake: bytes) -> None:
        self._handshake = handshake
        self.answer = b""
        self.answered = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data, self._handshake = self._handshake, b""
        if not data:
            await self.answered.wait()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.answer += data

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None: ...


async def answer_handshake(handshake: bytes, subprotocol: str | None) -> bytes:
    """The 101 to a vetted `handshake`, which agrees on `subprotocol`."""
    memory = _Memory(handshake)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, memory)
        await request.accept(subprotocol=subprotocol)
        answer = memory.answer
        memory.answered.set()
    return answer


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
