"""Transport: the byte stream that Wire and the front door need, and the plain socket that implements it.

Owns the one socket object of a connection, its options, and how a send waits for a slow peer. Rules:

1. A connection has one stdlib socket object, on which trio waits. No duplicate is made and no number is kept.
   So a send after closing fails, and can't reach a file that got the descriptor's number.
2. Every failure is an OSError. Stalled is one too, for callers that needn't tell them apart.
3. Waiting for room ends after `send_timeout` without progress, not after a fixed time. Bytes that the peer
   confirms to the kernel are progress, so a slow reader is kept as long as it reads.
4. A send that is cancelled while it waits for room has taken nothing.

It doesn't know frames or HTTP.
"""

import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, Final, Protocol

import trio

from chatroom.core.errors import ChatroomError
from chatroom.core.limits import Limits
from chatroom.net.poller import ReadPoller

_CHECKS: Final = 10  # how often, in one send_timeout, a waiting send checks for progress
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Stalled(ChatroomError, TimeoutError):
    """A peer took nothing for `send_timeout`. It is dropped, since a close frame wouldn't reach it."""


class Transport(Protocol):
    """A byte stream, for one task at a time that sends and one that receives."""

    @property
    def held(self) -> bool:
        """The transport holds bytes that it took. They go out first in the next send, even an empty one."""

    @property
    def buffered(self) -> bool:
        """receive_nowait may have more bytes even if no more arrive."""

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what the transport takes at once; returns how many bytes. Raises OSError if it is broken."""

    async def send_some(self, data: bytes | memoryview) -> int:
        """Send at least a byte, and wait until none is held. Raises OSError if broken, Stalled if stalled."""

    async def wait_room(self) -> None:
        """Wait until the socket may take bytes. Takes none itself, and raises as send_some does."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """The bytes that have arrived, empty at the end. Raises OSError if broken."""

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """As receive_some, without waiting: None if no bytes have arrived."""

    async def wait_readable(self) -> None:
        """Wait until receive_nowait may have bytes. Raises OSError if broken."""

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Call `on_readable`, in another task, whenever receive_nowait may have bytes."""

    def unwatch(self) -> None:
        """Call `on_readable` no more."""

    def unsent(self) -> int:
        """Bytes that are held or that the peer hasn't confirmed yet; 0 if that isn't known."""

    def confirmed(self) -> bool:
        """Whether the peer's system has confirmed all bytes, as far as that can be known."""

    async def send_eof(self) -> None:
        """End the sending half. Receiving goes on."""

    def hang_up(self) -> None:
        """End both directions at once, so that a task that waits to receive gets the end. Never raises."""

    def abort(self) -> None:
        """Drop the connection with a reset and free everything. Never waits, never raises."""

    async def aclose(self) -> None:
        """Close the connection in order. Never raises, and doesn't wait for the peer."""


class SocketTransport:
    """A TCP or Unix connection."""

    __slots__ = ("_patience", "_poller", "_sock")

    held: Final = False
    buffered: Final = False

    def __init__(self, sock: socket.socket, limits: Limits, poller: ReadPoller | None = None) -> None:
        """`sock` belongs to this object from now on. It can be watched only with a `poller`."""
        self._poller = poller
        self._sock = sock
        sock.setblocking(False)
        self._patience = limits.send_timeout
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # the peer may have gone, and then the first read fails
                _tune(sock, limits)

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
        checks, least = _CHECKS, self.unsent()
        while checks:
            with trio.move_on_after(self._patience / _CHECKS):
                await self._writable()
                return
            unsent = self.unsent()
            checks = _CHECKS if unsent < least else checks - 1
            least = min(unsent, least)
        raise Stalled(f"nothing taken for {self._patience:g} seconds")

    async def _writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._sock)
        except (trio.ClosedResourceError, ValueError):
            raise _closed_error() from None

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while (data := self.receive_nowait(max_bytes)) is None:
            await self.wait_readable()
        return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        try:
            return self._sock.recv(max_bytes)
        except BlockingIOError:
            return None

    async def wait_readable(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._sock)
        except (trio.ClosedResourceError, ValueError):
            raise _closed_error() from None

    def watch(self, on_readable: Callable[[], None]) -> None:
        assert self._poller is not None
        self._poller.watch(self._sock, on_readable)

    def unwatch(self) -> None:
        if self._poller is not None:
            self._poller.unwatch(self._sock)

    def unsent(self) -> int:
        buffer = bytearray(4)
        try:
            ioctl(self._sock, TIOCOUTQ, buffer)
        except (OSError, ValueError):  # closed, or not known on this platform
            return 0
        return int(struct.unpack("i", buffer)[0])

    def confirmed(self) -> bool:
        return self._sock.family == socket.AF_UNIX or not self.unsent()

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
            self.unwatch()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


def _tune(sock: socket.socket, limits: Limits) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    option: Any = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:  # finds a vanished peer even while the kernel still takes bytes for it
        patience = max(limits.send_timeout, limits.ping_interval + limits.ping_timeout)
        sock.setsockopt(socket.IPPROTO_TCP, option, int(patience * 1000))


def _closed_error() -> OSError:
    return OSError(errno.EBADF, "connection closed")
