"""A transport over a memory stream, as the front door sees one, and the peer at its other end."""

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair


class DoorTransport:
    """The server's end. `cuts` makes it hand out and take only so many bytes at a time."""

    direct = False
    torn = False

    def __init__(self, incoming: MemoryReceiveStream, outgoing: MemorySendStream, cut: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._cut = cut
        self.aborted = False
        self.closed = False
        self.sends = 0
        self.stuck = False
        self.close_hangs = False

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_some(self, data: bytes) -> int:
        self.sends += 1
        if self.stuck:
            await trio.sleep_forever()
        piece = data[: self._cut]
        try:
            await self._outgoing.send_all(piece)
        except trio.BrokenResourceError as error:
            raise BrokenPipeError from error
        return len(piece)

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self._incoming.receive_some(min(max_bytes, self._cut)))
        except trio.BrokenResourceError as error:
            raise ConnectionResetError from error

    def unsent(self) -> int:
        return 0

    async def send_eof(self) -> None:
        await self._outgoing.aclose()

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


class Peer:
    """The client's end."""

    def __init__(self, cut: int = 1 << 20) -> None:
        to_server, from_client = memory_stream_one_way_pair()
        to_client, from_server = memory_stream_one_way_pair()
        self._outgoing = to_server
        self._incoming = from_server
        self.transport = DoorTransport(from_client, to_client, cut)

    async def send(self, data: bytes) -> None:
        await self._outgoing.send_all(data)

    async def send_eof(self) -> None:
        await self._outgoing.aclose()

    async def receive(self) -> bytes:
        """What is there, or b"" at the end."""
        return bytes(await self._incoming.receive_some(1 << 20))

    async def receive_all(self) -> bytes:
        """Everything up to the end of what the server sends."""
        data = b""
        while piece := await self.receive():
            data += piece
        return data
