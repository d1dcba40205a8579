"""TLS over another Transport.

1. What is sent is sealed into records of at most `_RECORD` bytes, and the socket is offered them at once. If
   it takes a record in part, the rest is held, and goes out before anything else is taken. So no record is
   ever torn, whoever is cancelled, and at most one is held.
2. What OpenSSL itself has to say (alerts, answers to a change of keys) goes out in the same order. A peer
   that makes it talk and doesn't read is given up.
3. A peer that ends without saying so in TLS has ended all the same, as browsers do: frames and bodies tell if
   one was cut.
4. An idle connection keeps no buffer. Those of OpenSSL stay as large as they once were, so all connections
   share two. They are filled before each step of OpenSSL and emptied after it (`_step`); nothing else touches
   them.

Does not know: frames, HTTP, certificates.
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
    """The server's end of a TLS connection. The handshake is the caller's to start, with a deadline."""

    __slots__ = ("_ended", "_rest", "_tls", "_transport", "_unread", "held")

    def __init__(self, transport: Transport, context: ssl.SSLContext) -> None:
        """`transport` is from now on this object's alone."""
        self._transport = transport
        self._tls = context.wrap_bio(_ARRIVED, _SEALED, server_side=True)
        self._unread = b""  # of what has arrived, that which OpenSSL hasn't read
        self._rest = b""  # of what was sealed, that which the socket hasn't taken, or hasn't been offered
        self._ended = False  # the peer's end has been read
        self.held = False

    async def do_handshake(self) -> None:
        """Agree on keys. OSError if the peer won't."""
        while not self._shake_hands():
            await self._wait_out()
            data = await self._transport.receive_some(_PIECE)
            if not data:
                raise ConnectionResetError("the peer has gone")
            self._unread += data
        # With TLS 1.3 the rest is tickets for the next handshake. They go out with the first data: a client
        # that sends something and closes without having read them would reset what it sent.
        if self._tls.version() != "TLSv1.3":
            await self._wait_out()

    def _shake_hands(self) -> bool:
        try:
            self._step(self._tls.do_handshake)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            self._say_why()
            raise
        return True

    def _step(self, do: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Have OpenSSL do something. What it has written is for the next `_push`."""
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
        """Give the socket what is sealed; false if it didn't take all of it."""
        self._rest = self._rest[self._transport.send_nowait(self._rest) :]
        self.held = self._rest != b""
        return not self.held

    async def send_some(self, data: bytes | memoryview) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (taken := self.send_nowait(data[:_RECORD])):
            await self.wait_room()
        await self._wait_out()
        return taken

    async def _wait_out(self) -> None:
        """Wait until nothing is left to send. Fails as send_some does."""
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
            if (said := self._unseal(max_bytes)) is not None:
                return said
        return None

    def _unseal(self, max_bytes: int) -> bytes | None:
        """What a record says that has come whole, empty if it is the last one; None if there is none."""
        data: bytes | None = None
        before = len(self._rest)
        try:
            data = self._step(self._tls.read, min(max_bytes, _RECORD))
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # instead of an empty read, once the end of our own has been sent
            data = b""
        except ssl.SSLError:
            self._ended = True
            self._say_why()
            raise
        self._ended = data == b""
        if len(self._rest) > before:
            self._answer()
        return data

    def _answer(self) -> None:
        """Send what OpenSSL has to say about something it has read, now or with what is sent next."""
        with suppress(OSError):  # what was read stays true; whoever sends next is told
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
        await self._wait_out()
        if not self._tls.pending():
            self._say_goodbye()
            await self._wait_out()
        await self._transport.send_eof()

    def hang_up(self) -> None:
        self._transport.hang_up()

    def abort(self) -> None:
        self._transport.abort()
        self._rest, self.held = b"", False

    async def aclose(self) -> None:
        with suppress(OSError):
            if not self.held or self._push():
                self._say_goodbye()
                self._push()
        await self._transport.aclose()

    def _say_goodbye(self) -> None:
        """Seal the word that nothing more will be sent. The peer's own isn't waited for.

        OpenSSL looks for it all the same, and takes anything else that it finds for an error: it is shown
        nothing.
        """
        unread, self._unread = self._unread, b""
        with suppress(ssl.SSLError):
            self._step(self._tls.unwrap)
        self._unread = unread

    def _say_why(self) -> None:
        """Tell the peer what it did wrong, if there is room for that."""
        with suppress(OSError):
            self._push()
