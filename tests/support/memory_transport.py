"""A connection in memory, as Wire sees one; the test is the peer, and decides how much is taken when."""

from collections.abc import Callable

import trio

from chatroom.net.transport import Stalled

RECORD = 16 * 1024


class MemoryTransport:
    """The server's end. The peer takes bytes while there is `room`, at most `most()` at a time.

    With `tls=True` it sends as TLS does, but in the clear: it takes records of up to 16 KiB, and holds back
    what the peer doesn't take of the last one.
    """

    def __init__(
        self, *, room: int = 1 << 40, tls: bool = False, most: Callable[[], int] = lambda: 1 << 40
    ) -> None:
        self.tls = tls
        self.room = room
        self.most = most
        self.taken = bytearray()  # what the peer has got
        self.unconfirmed = 0
        self.patience = 10.0
        self.asked_for: list[int] = []  # how much each receive asked for
        self.aborted = self.closed = self.hung_up = False
        self._error: type[OSError] | None = None
        self.ahead = b""  # has been read from the socket, and nothing tells of it: as with TLS
        self._arrived = bytearray()
        self._rest = b""  # of the record that was taken last
        self._ended = False
        self._on_readable: Callable[[], None] | None = None
        self._called = False  # or about to be
        self._change = trio.Event()

    # The peer

    def arrive(self, data: bytes) -> None:
        self._arrived += data
        self._changed()

    def arrive_end(self) -> None:
        self._ended = True
        self._changed()

    def give_room(self, room: int) -> None:
        self.room += room
        self._changed()

    def fail(self, error: type[OSError] = ConnectionResetError) -> None:
        self._error = error
        self._changed()

    # The transport

    @property
    def held(self) -> bool:
        return bool(self._rest)

    @property
    def buffered(self) -> bool:
        return bool(self.ahead)

    def send_nowait(self, data: bytes | memoryview) -> int:
        if not self.tls:
            return self._accept(data)
        taken = 0
        while self._push() and taken < len(data):
            self._rest = bytes(data[taken : taken + RECORD])
            taken += len(self._rest)
        return taken

    def _push(self) -> bool:
        self._rest = self._rest[self._accept(self._rest) :]
        return not self._rest

    async def send_some(self, data: bytes | memoryview) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (taken := self.send_nowait(data[:RECORD])):
            await self.wait_room()
        while not self._push():
            await self.wait_room()
        return taken

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self.patience):
            while not (self.room or self._error or self.hung_up):
                await self._change.wait()
            return
        raise Stalled("nothing taken")

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while (data := self._receive(max_bytes)) is None:
            await self._change.wait()
        return data

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._readable:
            await self._change.wait()

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return self._receive(max_bytes)

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Like a kernel's: it is called as long as something has come that isn't read, or the end, or an
        error."""
        self._on_readable = on_readable
        self._call_soon()

    def unwatch(self) -> None:
        self._on_readable = None

    def _call_soon(self) -> None:
        if self._on_readable is not None and self._readable and not self._called:
            self._called = True
            trio.lowlevel.current_trio_token().run_sync_soon(self._call)

    def _call(self) -> None:
        self._called = False
        if self._on_readable is not None and self._readable:
            self._on_readable()
            self._call_soon()

    @property
    def _readable(self) -> bool:
        return bool(self._arrived or self._ended or self._error or self.hung_up)

    def _receive(self, max_bytes: int) -> bytes | None:
        self.asked_for.append(max_bytes)
        if self.ahead:
            data, self.ahead = self.ahead[:max_bytes], self.ahead[max_bytes:]
            return data
        if not self._readable:
            return None
        if self._error:
            raise self._error
        data = bytes(self._arrived[:max_bytes])
        del self._arrived[:max_bytes]
        return data

    def unsent(self) -> int:
        return len(self._rest) + self.unconfirmed

    def confirmed(self) -> bool:
        return not self.unsent()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> None:
        self.hung_up = True
        self._changed()

    def abort(self) -> None:
        self.aborted = True

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()

    def _accept(self, data: bytes | memoryview) -> int:
        if self._error or self.hung_up:
            raise self._error or BrokenPipeError
        size = min(len(data), self.room, self.most())
        self.taken += data[:size]
        self.room -= size
        return size

    def _changed(self) -> None:
        self._call_soon()
        self._change.set()
        self._change = trio.Event()
