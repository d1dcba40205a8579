"""TLS over another Transport.

Owns the TLS state of a connection, and the bytes that OpenSSL has sealed but the socket hasn't taken. Rules:

1. Bytes to send are sealed into records of at most `_RECORD` bytes, and offered to the socket at once. If the
   socket takes only part of a record, the rest is held and goes out before anything else. So no record is
   ever torn, even if a task is cancelled, and at most one record is held.
2. OpenSSL's own records (alerts, answers to a change of keys) go out in the same order. A peer that causes
   them and doesn't read them is dropped.
3. A peer that closes without TLS's close_notify has closed all the same, as browsers do. Frames and bodies
   show whether one was cut.
4. An idle connection keeps no buffer. OpenSSL's buffers never shrink, so all connections share two. They are
   filled before each step of OpenSSL and emptied after it (`_step`). Nothing else touches them.

It doesn't know frames, HTTP or certificates.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar, TypeVarTuple, Unpack

import trio

from chatroom.net.transport import Transport

_RECORD: Final = 16 * 1024  # plain bytes in a record
_PIECE: Final = 4 * 1024  # encrypted bytes that are read at once,
_PIECES: Final = 5  # and how often for one receive: a whole record has come by then
_MOST_HELD: Final = 64 * 1024  # encrypted bytes
_ARRIVED: Final = ssl.MemoryBIO()  # what OpenSSL reads from
_SEALED: Final = ssl.MemoryBIO()  # what it writes to

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


class TlsTransport:
    """The server's end of a TLS connection. The caller starts the handshake, with a deadline."""

    __slots__ = ("_ended", "_rest", "_tls", "_transport", "_unread", "held")

    def __init__(self, transport: Transport, context: ssl.SSLContext) -> None:
        """`transport` belongs to this object from now on."""
        self._transport = transport
        self._tls = context.wrap_bio(_ARRIVED, _SEALED, server_side=True)
        self._unread = b""  # bytes that have arrived and that OpenSSL hasn't read
        self._rest = b""  # sealed bytes that the socket hasn't taken
        self._ended = False  # the peer's end has been read
        self.held = False

    async def do_handshake(self) -> None:
        """Do the TLS handshake. Raises OSError if it fails."""
        while not self._try_handshake():
            await self._wait_sent()
            data = await self._transport.receive_some(_PIECE)
            if not data:
                raise ConnectionResetError("the peer has gone")
            self._unread += data
        # With TLS 1.3 the rest is tickets for the next handshake. They go out with the first data: a client
        # that sends bytes and closes without reading the tickets would reset the bytes that it sent.
        if self._tls.version() != "TLSv1.3":
            await self._wait_sent()

    def _try_handshake(self) -> bool:
        try:
            self._step(self._tls.do_handshake)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            self._push_alert()
            raise
        return True

    def _step(self, do: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Call OpenSSL. The next `_push` sends what it has written."""
        _ARRIVED.write(self._unread)
        try:
            return do(*args)
        finally:
            self._unread = _ARRIVED.read()
            self._rest += _SEALED.read()

    # Sending

    def send_nowait(self, data: bytes | memoryview) -> int:
        if self.held and not self._push():
            return 0
        taken = 0
        while taken < len(data):
            taken += self._step(self._tls.write, data[taken : taken + _RECORD])
            if not self._push():
                break
        return taken

    def _push(self) -> bool:
        """Offer the sealed bytes to the socket. False if it didn't take all of them."""
        self._rest = self._rest[self._transport.send_nowait(self._rest) :]
        self.held = self._rest != b""
        return not self.held

    async def send_some(self, data: bytes | memoryview) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (taken := self.send_nowait(data[:_RECORD])):
            await self.wait_room()
        await self._wait_sent()
        return taken

    async def _wait_sent(self) -> None:
        """Wait until all sealed bytes are sent. Raises as send_some does."""
        while self._rest and not self._push():
            await self.wait_room()

    async def wait_room(self) -> None:
        await self._transport.wait_room()

    # Receiving

    @property
    def buffered(self) -> bool:
        return self._unread != b"" or self._tls.pending() > 0

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        for _ in range(_PIECES):
            if not (self.buffered or self._ended):
                data = self._transport.receive_nowait(_PIECE)
                if data is None:
                    return None
                self._unread = data
                self._ended = data == b""
            if self._ended:
                return b""
            if (content := self._unseal(max_bytes)) is not None:
                return content
        return None

    def _unseal(self, max_bytes: int) -> bytes | None:
        """The content of a whole record, empty if it is the last one. None if no whole record has come."""
        data: bytes | None = None
        before = len(self._rest)
        try:
            data = self._step(self._tls.read, min(max_bytes, _RECORD))
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # instead of an empty read, once our own end has been sent
            data = b""
        except ssl.SSLError:
            self._ended = True
            self._push_alert()
            raise
        self._ended = data == b""
        if len(self._rest) > before:
            self._answer()
        return data

    def _answer(self) -> None:
        """Send OpenSSL's answer to what it has read, now or with the next bytes."""
        with suppress(OSError):  # the bytes that were read still count; the next send raises
            self._push()
        if len(self._rest) > _MOST_HELD:
            raise ConnectionAbortedError("the peer makes TLS answer, and doesn't read")

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while (data := self.receive_nowait(max_bytes)) is None:
            await self.wait_readable()
        return data

    async def wait_readable(self) -> None:
        if self.buffered:
            await trio.lowlevel.checkpoint()
        else:
            await self._transport.wait_readable()

    def watch(self, on_readable: Callable[[], None]) -> None:
        self._transport.watch(on_readable)

    def unwatch(self) -> None:
        self._transport.unwatch()

    def unsent(self) -> int:
        return (len(self._rest) if self.held else 0) + self._transport.unsent()

    def confirmed(self) -> bool:
        return not self.held and self._transport.confirmed()

    # The end

    async def send_eof(self) -> None:
        await self._wait_sent()
        if not self._tls.pending():
            self._seal_close()
            await self._wait_sent()
        await self._transport.send_eof()

    def hang_up(self) -> None:
        self._transport.hang_up()

    def abort(self) -> None:
        self._transport.abort()
        self._rest, self.held = b"", False

    async def aclose(self) -> None:
        with suppress(OSError):
            if not self.held or self._push():
                self._seal_close()
                self._push()
        await self._transport.aclose()

    def _seal_close(self) -> None:
        """Seal a close_notify. The peer's own isn't awaited.

        OpenSSL would look for it, and would take any other bytes for an error. So it gets no bytes to read.
        """
        unread, self._unread = self._unread, b""
        with suppress(ssl.SSLError):
            self._step(self._tls.unwrap)
        self._unread = unread

    def _push_alert(self) -> None:
        """Send the alert about the peer's error, if there is room for it."""
        with suppress(OSError):
            self._push()
