"""Wire: the only thing that touches a connection's socket once its handshake has been vetted.

Owns: the byte stream under trio-websocket, sorted on its way in and ordered on its way out; the
keepalive of the peer; the last steps of a connection.

1. The library sees the vetted handshake first, and nothing else before its answer is out: it would drop
   bytes that came early, so they are replayed. Nor does any frame go out before that answer.
2. Messages don't pass the library: the task in which it reads hands them to the inlet, at half the cost.
   What it sees are control frames, each sound and whole, and none after the peer's close.
3. What leaves towards the library is bytes, BrokenResourceError and nothing else. After a fault, a close
   or a failure of either direction it reads the end of the stream, so that its reader ends quietly.
4. Closing is a request (`close`); the library's own aclose() is only noted. The socket ends in `finish`.
5. The clocks of the keepalive and of an unfinished message run only while the library waits for input.

Does not know: messages, rooms, who the peer is.
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

_MOST = 64 * 1024
_PACED = 4 * 1024
_CLOSE_BYTE = 0x88
_HEAD_END = b"\r\n\r\n"
_DRAIN_LOOK = 0.02  # seconds between two looks whether the peer has confirmed the last bytes,
_DRAIN_LOOKS = 25  # and how often to look


class Wire(Outbound, trio.abc.Stream):
    """One connection's bytes. To be given to `trio_websocket.wrap_server_stream`, after `deliver_to`.

    `initial` is the vetted handshake, with whatever the peer sent behind it; empty if the handshake is
    to be read from the transport. `on_pending` is called whenever `flush` is wanted, also when the
    connection broke; `on_fault` once, when the peer broke a limit. Both are called in the middle of
    things: they may set an event, but neither wait nor raise.

    `paced`: set it to read in small pieces. `ended`: the peer's end of stream has been read.
    `close_replied`: the library has answered the peer's close frame; nothing can be sent any more.
    """

    __slots__ = (
        "_early",
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

    # The stream that the library uses

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
            await self._deliver()  # also what was read before the end, or before a failure of the way out
            if inbound.control:
                control, inbound.control = inbound.control, b""
                return control
            if self.ended or self.broken or inbound.closed or inbound.fault is not None:
                break
            most = min(max_bytes or _MOST, _PACED if self.paced else _MOST)
            inbound.pause(pulse.listen(trio.current_time()))
            data = None  # what came last is not kept while nothing comes
            try:
                if inbound.since is None and self._transport.direct and not self._early:
                    # Where a connection spends its idle time: each coroutine more costs it memory.
                    await self._transport.wait_arrival()
                    data = self._transport.receive_nowait(most)
                else:
                    data = await self._receive_in_time(most)
            except (OSError, trio.ClosedResourceError):
                self._break()
                self._inlet.close()
                raise trio.BrokenResourceError("the connection is broken") from None
            finally:
                now = trio.current_time()
                pulse.stop(now)
            if data is not None:
                self._note_arrival(data, now)
        self._inlet.close()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return b""

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
            self._on_fault = _nobody

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send what the library wants to say, in its turn; return when it is out.

        After a close frame of ours it is swallowed: the library doesn't know of that frame.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if self.broken:
                raise trio.BrokenResourceError("the connection is broken")
            if not self.shut:
                await self._say(bytes(data))
        finally:
            self._open_gate()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _say(self, data: bytes) -> None:
        if data[0] == _CLOSE_BYTE:
            self.close_replied = True
            self._close_with(data)
        else:
            self.put(data)
        await self._wait_out()
        if self.broken:
            raise trio.BrokenResourceError("the connection broke")

    def _open_gate(self) -> None:
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """The library won't read or write any more. The end of the connection is not its to decide."""
        self._let_go = True
        self._inlet.close()
        await trio.lowlevel.checkpoint()

    # The keepalive

    def tend(self, now: float) -> float:
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

    # The end

    def close(self, code: int, reason: str) -> None:
        """As Outbound does; but before the handshake's answer is out, no frame would be understood."""
        if self._gate is None:
            super().close(code, reason)
        else:
            self._shut_up()

    async def linger(self) -> None:
        """Send what is left, then read and discard until the peer has closed. The caller sets the deadline.

        To be called when nobody else uses the stream any more. Raises Stalled as flush does.
        """
        await self.flush()
        self._inbound.ignore()
        while not (self.broken or self.ended or self._inbound.closed):
            try:
                data = await self._receive(_MOST)
            except OSError:
                self._break()
            else:
                self._note_arrival(data, trio.current_time())
        for _ in range(_DRAIN_LOOKS):
            if self.broken or not self._transport.unsent():
                break
            await trio.sleep(_DRAIN_LOOK)

    async def finish(self) -> None:
        """Close the socket: in order if both sides have said all they had to, else with a reset.

        Without the reset, a FIN behind bytes that the peer does not read would stay in the kernel.
        """
        done = (self.ended or self._inbound.closed) and not (self.broken or self.pending)
        try:
            if done and not self._transport.unsent():
                await self._transport.aclose()
            else:
                self._transport.abort()
                await trio.lowlevel.checkpoint()
        finally:
            self._forget()

    def _forget(self) -> None:
        """Let go of the queue and of the owner: what is over is not to wait for the collector of cycles."""
        self._break()
        del self._inlet
        self._on_pending = _nobody
        self._on_fault = _nobody

    # Reading

    async def _receive_in_time(self, most: int) -> bytes | None:
        """Receive while a message is unfinished; None if it took too long."""
        inbound = self._inbound
        if inbound.since is None:
            return await self._receive(most)
        with trio.move_on_at(inbound.since + self._limits.frame_seconds):
            return await self._receive(most)
        inbound.give_up_waiting()
        return None

    async def _receive(self, most: int) -> bytes:
        if not self._early:
            return await self._transport.receive_some(most)
        data, self._early = self._early, b""
        await trio.lowlevel.checkpoint()
        return data


def _nobody(*_: object) -> None:
    """Stands for the owner when the connection is over."""
