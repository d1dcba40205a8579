"""Wire: the only thing that touches a connection's socket once its handshake has been vetted.

Owns: the byte stream under trio-websocket, of which Receiver is the way in and Outbound the way out; the
last steps of a connection.

1. No frame goes out before the library's answer to the handshake.
2. What leaves towards the library is bytes, BrokenResourceError and nothing else.
3. Closing is a request (`close`); the library's own aclose() is only noted. The socket ends in `finish`.

Does not know: messages, rooms, who the peer is.
"""

import trio

from chatroom.adapters.receiver import MOST, Receiver, nobody

_CLOSE_BYTE = 0x88
_DRAIN_LOOK = 0.02  # seconds between two looks whether the peer has confirmed the last bytes,
_DRAIN_LOOKS = 25  # and how often to look


class Wire(Receiver, trio.abc.Stream):
    """One connection's bytes. To be given to `trio_websocket.wrap_server_stream`, after `deliver_to`.

    `initial` is the vetted handshake, with whatever the peer sent behind it; empty if the handshake is
    to be read from the transport. `on_pending` is called whenever `flush` is wanted, also when the
    connection broke; `on_fault` once, when the peer broke a limit. Both are called in the middle of
    things: they may set an event, but neither wait nor raise.

    `paced`: set it to read in small pieces. `ended`: the peer's end of stream has been read.
    `close_replied`: the library has answered the peer's close frame; nothing can be sent any more.
    """

    __slots__ = ()

    # The stream that the library writes

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
        while not (self.broken or self.ended or self.peer_closed):
            try:
                data = await self._receive(MOST)
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
        done = (self.ended or self.peer_closed) and not (self.broken or self.pending)
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
        self._on_pending = nobody
        self._on_fault = nobody
