"""A connection in memory, as Wire sees one; the test is the peer, and decides how much is taken when."""

from collections.abc import Callable

import trio

from chatroom.adapters.transport import Stalled


class MemoryTransport:
    """The server's end. The peer takes bytes while there is `room`, at most `most()` at a time.

    With `direct=False` it behaves as TLS does: it takes nothing without waiting, sends a record in pieces,
    and is torn by a cancellation between them.
    """

    def __init__(
        self, *, room: int = 1 << 40, direct: bool = True, most: Callable[[], int] = lambda: 1 << 40
    ) -> None:
        self.direct = direct
        self.torn = False
        self.room = room
        self.most = most
        self.taken = bytearray()  # what the peer has got
        self.unconfirmed = 0
        self.patience = 10.0
        self.asked_for: list[int] = []  # how much each receive asked for
        self.aborted = self.closed = self.hung_up = False
        self._error: type[OSError] | None = None
        self._arrived = bytearray()
        self._ended = False
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

    def send_nowait(self, data: bytes | memoryview) -> int:
        return self._take(data) if self.direct else 0

    async def send_some(self, data: bytes | memoryview) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(data)
        self.torn = not self.direct
        while rest:
            if taken := self._take(rest):
                rest = rest[taken:]
                await trio.lowlevel.checkpoint()
            else:
                await self.wait_room()
        self.torn = False
        return len(data)

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

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return self._receive(max_bytes) if self.direct else None

    async def wait_arrival(self, take: Callable[[], bool]) -> None:
        """Like a kernel's: it is no wait when something has come, or the end has, or an error."""
        await trio.lowlevel.checkpoint()
        while True:
            while not self._readable:
                await self._change.wait()
            if not take():
                return
            await trio.lowlevel.checkpoint()

    @property
    def _readable(self) -> bool:
        return bool(self._arrived or self._ended or self._error or self.hung_up)

    def _receive(self, max_bytes: int) -> bytes | None:
        self.asked_for.append(max_bytes)
        if not self._readable:
            return None
        if self._error:
            raise self._error
        data = bytes(self._arrived[:max_bytes])
        del self._arrived[:max_bytes]
        return data

    def unsent(self) -> int:
        return self.unconfirmed

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

    def _take(self, data: bytes | memoryview) -> int:
        if self._error or self.hung_up:
            raise self._error or BrokenPipeError
        size = min(len(data), self.room, self.most())
        self.taken += data[:size]
        self.room -= size
        return size

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()
