"""A TLS connection as a Transport.

1. Everything goes through the records of `trio.SSLStream`: nothing is sent or received without waiting.
2. A record that is cancelled half-way tears the stream; nothing may follow it.
3. A peer that ends without saying so in TLS has ended all the same: frames and bodies tell if one was cut.

Does not know: frames, HTTP, certificates.
"""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from chatroom.adapters.transport import SocketTransport, closed_error
from chatroom.values.limits import Limits

_RECORD: Final = 16 * 1024  # the most that one TLS record carries


class TlsTransport:
    """A TLS connection over a SocketTransport. The handshake is the caller's to start, with a deadline."""

    __slots__ = ("_records", "_socket", "_tls")

    direct: Final = False

    def __init__(self, inner: SocketTransport, context: ssl.SSLContext) -> None:
        self._socket = inner
        self._records = _Records(inner)
        self._tls = trio.SSLStream(self._records, context, server_side=True)

    @classmethod
    def take(cls, stream: trio.SocketStream, context: ssl.SSLContext, limits: Limits) -> "TlsTransport":
        """Take over the socket of an accepted `stream`, which is of no use afterwards."""
        return cls(SocketTransport.take(stream, limits), context)

    @property
    def torn(self) -> bool:
        return self._records.torn

    async def do_handshake(self) -> None:
        """Agree on keys. OSError if the peer won't."""
        try:
            await self._tls.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _broken(error) from error

    def send_nowait(self, data: bytes | memoryview) -> int:
        return 0

    async def send_some(self, data: bytes | memoryview) -> int:
        record = data[:_RECORD]
        try:
            await self._tls.send_all(record)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _broken(error) from error
        return len(record)

    async def wait_room(self) -> None:
        try:
            await self._tls.wait_send_all_might_not_block()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _broken(error) from error

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self._tls.receive_some(max_bytes))
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLEOFError):
                return b""  # browsers, too, end without saying so; frames and bodies tell if one was cut
            raise _broken(error) from error
        except trio.ClosedResourceError:
            raise closed_error() from None

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return None

    def wait_arrival(self, take: Callable[[], bool]) -> Awaitable[None]:
        return self._socket.wait_arrival(take)

    def unsent(self) -> int:
        return self._socket.unsent()

    async def send_eof(self) -> None:
        await self._socket.send_eof()

    def hang_up(self) -> None:
        self._socket.hang_up()

    def abort(self) -> None:
        self._socket.abort()

    async def aclose(self) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await self._tls.aclose()


class _Records(trio.abc.Stream):
    """The encrypted side of a TLS connection, and whether it has been torn."""

    __slots__ = ("_socket", "torn")

    def __init__(self, inner: SocketTransport) -> None:
        self._socket = inner
        self.torn = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        self.torn = True
        while rest:
            rest = rest[await self._socket.send_some(rest) :]
        self.torn = False

    async def wait_send_all_might_not_block(self) -> None:
        await self._socket.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._socket.receive_some(max_bytes or 2 * _RECORD)

    async def aclose(self) -> None:
        await self._socket.aclose()


def _broken(error: Exception) -> OSError:
    return ConnectionError(f"TLS: {error.__cause__ or error or 'broken'}")
