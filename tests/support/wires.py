"""The client of one Wire in memory, and the library over it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from chatroom.adapters.wire import Wire
from chatroom.values.errors import Disconnect
from chatroom.values.limits import Limits
from tests.support.client_frames import (
    HANDSHAKE,
    Frame,
    read_frames,
)
from tests.support.inlets import Letterbox
from tests.support.memory_transport import MemoryTransport

LIMITS = Limits(
    frame_bytes=1000,
    frame_fragments=8,
    frame_seconds=10.0,
    control_rate=50,
    ping_interval=20.0,
    ping_timeout=15.0,
)
CONTINUATION = 0


class Peer(MemoryTransport):
    """The client of one Wire, and what the Wire told its connection."""

    def __init__(self, *, room: int = 1 << 40, direct: bool = True) -> None:
        super().__init__(room=room, direct=direct)
        self.asked = 0
        self.faults: list[Disconnect] = []
        self.closed_early = False  # before the handshake was answered
        self.inlet = Letterbox()

    def ask(self) -> None:
        self.asked += 1

    def wire(self, *, initial: bytes = b"", limits: Limits = LIMITS, binary: bool = False) -> Wire:
        wire = Wire(
            self, limits, initial=initial, on_pending=self.ask, on_fault=self.faults.append, binary=binary
        )
        wire.deliver_to(self.inlet)
        return wire

    @property
    def frames(self) -> list[Frame]:
        """What came after the 101, if there was one."""
        got = bytes(self.taken)
        if got.startswith(b"HTTP/1.1 101"):
            got = got.partition(b"\r\n\r\n")[2]
        frames, rest = read_frames(got)
        assert not rest
        return frames


@asynccontextmanager
async def library(
    peer: Peer, *, trailing: bytes = b"", limits: Limits = LIMITS
) -> AsyncIterator[tuple[Wire, WebSocketConnection]]:
    """trio-websocket over a Wire, past its handshake."""
    wire = peer.wire(initial=HANDSHAKE + trailing, limits=limits)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, wire, 16, 1 << 62, 64 * 1024)
        yield wire, await request.accept()
        nursery.cancel_scope.cancel()


async def read_all(wire: Wire, seconds: float = 0.01) -> bytes:
    """Read until nothing moves any more or the end is read; what the library got of it."""
    data = b""
    with trio.move_on_after(seconds):
        while piece := await wire.receive_some():
            data += piece
    return data


async def end_of(connection: WebSocketConnection) -> int:
    """Read messages until the library says with which code it is over."""
    while True:
        try:
            await connection.get_message()
        except ConnectionClosed as closed:
            return code_of(closed)


def code_of(closed: ConnectionClosed) -> int:
    assert closed.reason is not None
    return closed.reason.code
