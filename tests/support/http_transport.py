"""A transport over memory streams, as the front door sees one, and the client at its other end."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair

Cuts = Sequence[int]
WHOLE: Cuts = (1 << 20,)


class StreamTransport:
    """The server's end. It hands out, and takes, as many bytes at a time as `cuts` says, over and over."""

    held = False
    buffered = False

    def __init__(self, incoming: MemoryReceiveStream, outgoing: MemorySendStream, cuts: Cuts) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._cuts = cycle(cuts)
        self.aborted = False
        self.closed = False
        self.sends = 0
        self.pace = 0.0
        self.close_hangs = False
        self.broken = False
        self._arrived: bytes | None = None

    def send_nowait(self, data: bytes | memoryview) -> int:
        return 0

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_some(self, data: bytes | memoryview) -> int:
        self.sends += 1
        await trio.sleep(self.pace)
        piece = data[: next(self._cuts)]
        if self.broken:
            raise BrokenPipeError
        await self._outgoing.send_all(piece)
        return len(piece)

    async def wait_readable(self) -> None:
        self._arrived = await self.receive_some(1 << 20)

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        data, self._arrived = self._arrived, None
        return data

    async def receive_some(self, max_bytes: int) -> bytes:
        data = bytes(await self._incoming.receive_some(min(max_bytes, next(self._cuts))))
        if not data and self.broken:
            raise ConnectionResetError
        return data

    def unsent(self) -> int:
        return 0

    async def send_eof(self) -> None:
        await self._outgoing.aclose()

    def hang_up(self) -> None:
        self._outgoing.close()

    def abort(self) -> None:
        self.aborted = True
        self._incoming.close()
        self._outgoing.close()

    async def aclose(self) -> None:
        if self.close_hangs:
            await trio.sleep_forever()
        self.closed = True
        await self._incoming.aclose()
        await self._outgoing.aclose()


class HttpClient:
    """The client's end."""

    def __init__(self, cuts: Cuts = WHOLE) -> None:
        self._outgoing, incoming = memory_stream_one_way_pair()
        outgoing, self._incoming = memory_stream_one_way_pair()
        self.transport = StreamTransport(incoming, outgoing, cuts)

    async def send(self, data: bytes) -> None:
        """Send; it is lost if the server has closed, as in a network."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._outgoing.send_all(data)

    async def send_eof(self) -> None:
        await self._outgoing.aclose()

    def reset(self) -> None:
        """Vanish: once the server has read what was sent, it is told so by an error."""
        self.transport.broken = True
        self._outgoing.close()

    async def receive(self) -> bytes:
        """What has come, or b"" at the end."""
        return bytes(await self._incoming.receive_some(1 << 20))

    async def receive_all(self) -> bytes:
        """Everything up to the end of what the server sends."""
        data = b""
        while piece := await self.receive():
            data += piece
        return data
