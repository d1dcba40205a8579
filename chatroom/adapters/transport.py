"""Transports: what Wire and the front door need of a socket, for plain and for TLS connections.

Owns: the one socket object of a connection, its options, and how a send waits for a slow peer.

1. A connection has one stdlib socket object, on which trio waits: no duplicate, no number kept. After
   closing, a send fails; it can't reach whoever got the descriptor next.
2. Everything that goes wrong leaves as OSError. Stalled is one too, for those who needn't tell them apart.
3. Waiting for room ends after `send_timeout` without progress, not after a fixed time: what the kernel
   could hand on counts, so that a slow reader that moves is kept.
4. A plain send that is cancelled has taken nothing. A TLS record that is cancelled tears the stream.

Does not know: frames, HTTP.
"""

import errno
import socket
import ssl
import struct
from collections.abc import Awaitable
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, Final, Protocol

import trio

from chatroom.values.errors import ChatroomError
from chatroom.values.limits import Limits

_LOOKS: Final = 10  # how often, in one send_timeout, a waiting send looks for progress
_RECORD: Final = 16 * 1024  # the most that one TLS record carries
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Stalled(ChatroomError, TimeoutError):
    """A peer took nothing for `send_timeout`; it is dropped, since a close frame wouldn't reach it."""


class Transport(Protocol):
    """A byte stream that can also be sent to without waiting. One task at a time sends, and one receives."""

    @property
    def direct(self) -> bool:
        """Whether send_nowait can ever take anything (not with TLS)."""

    @property
    def torn(self) -> bool:
        """A send was cancelled in the middle of a record: nothing may follow it."""

    def send_nowait(self, data: bytes | memoryview) -> int:
        """How many bytes were taken at once, perhaps none. OSError if the connection is broken."""

    async def send_some(self, data: bytes | memoryview) -> int:
        """Wait until at least one byte is taken. OSError if broken, Stalled if there is no progress."""

    async def wait_room(self) -> None:
        """Wait until send_nowait may take something; takes nothing itself. Fails as send_some does."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """What has arrived, empty at the end. OSError if broken."""

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """The same without waiting: None if nothing has arrived, and always where nothing is `direct`."""

    def wait_arrival(self) -> Awaitable[None]:
        """Wait until receive_nowait may have something. OSError or ClosedResourceError if broken."""

    def unsent(self) -> int:
        """Bytes that the peer hasn't confirmed yet; 0 where that is not known."""

    async def send_eof(self) -> None:
        """Tell the peer that nothing more comes; receiving goes on."""

    def hang_up(self) -> None:
        """End both directions at once, so that whoever waits to receive gets the end. Never raises."""

    def abort(self) -> None:
        """Drop the connection with a reset and free everything. Never waits, never raises."""

    async def aclose(self) -> None:
        """Close the connection in order. Never raises, but may wait with TLS."""


class SocketTransport:
    """A TCP or Unix connection."""

    __slots__ = ("_patience", "_sock")

    direct: Final = True
    torn: Final = False

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        """`sock` is from now on this object's alone."""
        self._sock = sock
        sock.setblocking(False)
        self._patience = limits.send_timeout
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # the peer may be gone already: the first read will tell
                _tune(sock, limits)

    @classmethod
    def take(cls, stream: trio.SocketStream, limits: Limits) -> "SocketTransport":
        """Take over the socket of an accepted `stream`, which is of no use afterwards."""
        return cls(socket.socket(fileno=stream.socket.detach()), limits)

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    async def send_some(self, data: bytes | memoryview) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (taken := self.send_nowait(data)):
            await self.wait_room()
        return taken

    async def wait_room(self) -> None:
        looks, least = _LOOKS, self.unsent()
        while looks:
            with trio.move_on_after(self._patience / _LOOKS):
                await self._writable()
                return
            unsent = self.unsent()
            looks = _LOOKS if unsent < least else looks - 1
            least = min(unsent, least)
        raise Stalled(f"nothing taken for {self._patience:g} seconds")

    async def _writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._sock)
        except (trio.ClosedResourceError, ValueError):
            raise _closed() from None

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while (data := self.receive_nowait(max_bytes)) is None:
            try:
                await self.wait_arrival()
            except trio.ClosedResourceError:
                raise _closed() from None
        return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        try:
            return self._sock.recv(max_bytes)
        except BlockingIOError:
            return None

    def wait_arrival(self) -> Awaitable[None]:
        return trio.lowlevel.wait_readable(self._sock)  # noqa: ASYNC105  (awaited by the caller, to be one coroutine less)

    def unsent(self) -> int:
        buffer = bytearray(4)
        try:
            ioctl(self._sock, TIOCOUTQ, buffer)
        except (OSError, ValueError):  # closed, or a platform that can't tell
            return 0
        return int(struct.unpack("i", buffer)[0])

    async def send_eof(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def abort(self) -> None:
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    async def aclose(self) -> None:
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


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
            raise _closed() from None

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return None

    def wait_arrival(self) -> Awaitable[None]:
        return self._socket.wait_arrival()

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


def _tune(sock: socket.socket, limits: Limits) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    option: Any = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:  # so that a vanished peer is found even while the kernel still takes bytes for it
        patience = max(limits.send_timeout, limits.ping_interval + limits.ping_timeout)
        sock.setsockopt(socket.IPPROTO_TCP, option, int(patience * 1000))


def _closed() -> OSError:
    return OSError(errno.EBADF, "connection closed")


def _broken(error: Exception) -> OSError:
    return ConnectionError(f"TLS: {error.__cause__ or error or 'broken'}")
