"""The client of one Wire in memory, and who reads from it."""

import trio

from chatroom.core.limits import Limits
from chatroom.websocket.wire import Wire
from tests.support.client_frames import Frame, read_frames
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

    def __init__(self, *, room: int = 1 << 40, tls: bool = False) -> None:
        super().__init__(room=room, tls=tls)
        self.asked = 0
        self.messages: list[str | bytes] = []
        self.pings: list[bytes] = []

    def ask(self) -> None:
        self.asked += 1

    def wire(self, *, limits: Limits = LIMITS, binary: bool = False) -> Wire:
        return Wire(self, limits, on_pending=self.ask, binary=binary)

    def read(self, wire: Wire) -> None:
        """Read from now on, all that comes."""

        def on_readable() -> None:
            wire.read()
            while (message := wire.inbound.next()) is not None:
                self.messages.append(message)
            self.pings += wire.inbound.pings or ()
            wire.inbound.pings = None
            if wire.ended:
                wire.unwatch()

        wire.watch(on_readable)

    @property
    def frames(self) -> list[Frame]:
        """What has come."""
        frames, rest = read_frames(bytes(self.taken))
        assert not rest
        return frames


async def settle() -> None:
    """Wait until nothing moves any more."""
    await trio.testing.wait_all_tasks_blocked()
