"""Receiver: the receiving half of a Wire, as the library reads it.

Owns: the byte stream on its way in, and the clocks that run while the peer is listened to.

1. The library sees the vetted handshake first, and nothing else before its answer is out: it would drop
   bytes that came early, so they are replayed.
2. Messages don't pass the library, which halves their cost: they are handed to the inlet, mostly in the task
   of the Arrivals, which wakes that of the library only for what isn't a whole message or finds no room.
   What the library sees are control frames, each sound and whole, and none after the peer's close.
3. After a fault, a close or a failure of either direction the library reads the end of the stream, so that
   its reader ends quietly.
4. The clocks of the keepalive and of an unfinished message run only while the library waits for input.

It stands on the sending half because the failure of one direction is that of both. Does not know: what the
messages say, or how the connection ends.
"""

from collections.abc import Callable

import trio

from chatroom.adapters.inlet import Inlet
from chatroom.adapters.outbound import Outbound
from chatroom.adapters.transport import Transport
from chatroom.pure.inbound import Inbound
from chatroom.pure.pulse import Pulse
from chatroom.values.errors import Disconnect
from chatroom.values.limits import Limits

MOST = 64 * 1024
"""Bytes that are read at once."""
_PACED = 4 * 1024
_HEAD_END = b"\r\n\r\n"


class Receiver(Outbound):
    """Both halves of a Wire; its parameters and what it shows are described there."""

    __slots__ = (
        "_early",
        "_failure",
        "_gate",
        "_head",
        "_inbound",
        "_inlet",
        "_let_go",
        "_limits",
        "_on_fault",
        "_pulse",
        "close_replied",
        "ended",
        "paced",
    )

    def __init__(
        self,
        transport: Transport,
        limits: Limits,
        *,
        initial: bytes,
        on_pending: Callable[[], None],
        on_fault: Callable[[Disconnect], None],
        binary: bool = False,
    ) -> None:
        super().__init__(transport, on_pending)
        head, end, self._early = initial.partition(_HEAD_END)
        self._head = head + end
        self._gate = trio.Event() if initial else None  # opens when the library's answer is out
        self._limits = limits
        self._on_fault = on_fault
        self._inbound = Inbound(limits, binary=binary)
        self._inlet: Inlet
        self._pulse = Pulse(limits, trio.current_time())
        self._let_go = False  # the library is done with the stream
        self._failure: OSError | None = None  # of a read in `_take`, to be raised in the library's task
        self.close_replied = False
        self.ended = False
        self.paced = False

    def deliver_to(self, inlet: Inlet) -> None:
        """Give every message to `inlet`."""
        self._inlet = inlet

    @property
    def peer_closed(self) -> bool:
        """The peer's close frame has come in whole."""
        return self._inbound.closed

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes for the library's parser, a control frame; empty when it is to end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._gate is not None:
            await self._gate.wait()
        inbound, pulse = self._inbound, self._pulse
        while not self._let_go:
            if not inbound.control:
                await self._deliver()  # also what was read before the end, or before the way out failed
            if inbound.control:
                control, inbound.control = inbound.control, b""
                return control
            if self.ended or self.broken or inbound.closed or inbound.fault is not None:
                break
            inbound.pause(pulse.listen(trio.current_time()))
            try:
                if inbound.since is None and self._transport.direct and not self._early:
                    # Where a connection spends its idle time: each coroutine more costs it memory.
                    await self._transport.wait_arrival(self._take)
                    if self._failure is not None:
                        raise self._failure
                else:
                    await self._receive_in_time()
            except (OSError, trio.ClosedResourceError):
                self._break()
                self._inlet.close()
                raise trio.BrokenResourceError("the connection is broken") from None
            finally:
                pulse.stop(trio.current_time())
        self._inlet.close()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return b""

    def _take(self) -> bool:
        """Read, and hand on what has come; false if there is anything for the library's task to do."""
        try:
            data = self._transport.receive_nowait(self._most)
        except OSError as failure:
            self._failure = failure
            return False
        if data is None:
            return True
        self._note_arrival(data, trio.current_time())
        inbound, inlet = self._inbound, self._inlet
        while not (inlet.crowded or self.ended):
            if (message := inbound.next()) is None:
                return not inbound.control and inbound.fault is None and inbound.since is None
            inlet.take(message)
        return False

    @property
    def _most(self) -> int:
        return _PACED if self.paced else MOST

    def _note_arrival(self, data: bytes, now: float) -> None:
        if data:
            self._pulse.beat(now)
            self._inbound.feed(data, now)
        else:
            self.ended = True

    async def _deliver(self) -> None:
        """Hand on the messages that have come, as fast as they are wanted."""
        inbound, inlet = self._inbound, self._inlet
        while (message := inbound.next()) is not None:
            if inlet.crowded:  # asked only now: a ping behind the last that there was room for is answered
                await inlet.wait_room()
            inlet.take(message)
        if inbound.fault is not None:
            self._on_fault(inbound.fault)
            self._on_fault = nobody

    async def _receive_in_time(self) -> None:
        """Receive, but no longer than an unfinished message may take."""
        inbound = self._inbound
        if inbound.since is None:
            self._note_arrival(await self._receive(self._most), trio.current_time())
            return
        with trio.move_on_at(inbound.since + self._limits.frame_seconds):
            self._note_arrival(await self._receive(self._most), trio.current_time())
            return
        inbound.give_up_waiting()

    async def _receive(self, most: int) -> bytes:
        if not self._early:
            return await self._transport.receive_some(most)
        data, self._early = self._early, b""
        await trio.lowlevel.checkpoint()
        return data

    def on_timer(self, now: float) -> float:
        """Do what the keepalive wants at `now`; return after how many seconds to call again.

        Sends a ping when it is due. Raises Silent when the peer hasn't answered one in time.
        """
        if self.moved or self.pending:  # while something is on its way, flush watches the peer
            self.moved = False
            self._pulse.beat(now)
        if wait := self._pulse.wait(now):
            return wait
        self.ping()
        self._pulse.ping(now)
        return self._pulse.wait(now)


def nobody(*_: object) -> None:
    """Stands for the owner when the connection is over."""
