"""The writer of one connection: the only task that waits for its socket to take bytes.

1. What is queued goes out before anything is added, so that a slow peer is owed one piece at a time.
2. Answers go before the programme; the programme's own order is its own.
3. On a broken connection it goes on taking answers off the channel, so that the reader can finish what
   it has read.
"""

import trio

from chatroom.adapters.wire import Wire
from chatroom.tasks.outlet import Answer, ConnectionOutlet
from chatroom.tasks.programme import Programme, Step


class Writer:
    """Writes until it is told to stop, and then what is queued.

    `stopped` is set when everything is out, or nothing more can be.
    """

    __slots__ = ("_caught_up", "_outlet", "_programme", "_stopping", "_wire", "stopped")

    def __init__(self, wire: Wire, outlet: ConnectionOutlet, programme: Programme) -> None:
        self._wire = wire
        self._outlet = outlet
        self._programme = programme
        self._stopping = False
        self._caught_up: trio.Event | None = None
        self.stopped = trio.Event()

    def stop(self) -> None:
        """Add nothing more; let out what is queued."""
        self._stopping = True
        self._outlet.wake()

    async def wait_caught_up(self) -> None:
        """Wait until the member has been given everything shown so far."""
        while not (self._programme.live or self._wire.broken):
            self._caught_up = trio.Event()
            await self._caught_up.wait()

    async def write(self) -> None:
        """Write until stopped.

        Raises Stalled when the peer takes nothing for too long, and what the programme raises.
        """
        try:
            while True:
                await self._wire.flush()
                if self._stopping:
                    return
                await self._add()
        finally:
            self.stopped.set()

    async def _add(self) -> None:
        """Put one thing more on the wire, or wait until there is one."""
        try:
            answer = self._outlet.receive_nowait()
        except trio.WouldBlock:
            step = self._programme.step()
            if step is Step.MORE:
                await trio.lowlevel.checkpoint()  # a long catch-up must not hold up the others
                return
            if step is Step.READ:
                await self._programme.read_on()
                return
            self._tell_caught_up()
            answer = await self._outlet.receive()
        if answer is not None:
            self._hand(answer)

    def _hand(self, answer: Answer) -> None:
        self._wire.put(answer.frame)
        self._outlet.handed(answer)

    def _tell_caught_up(self) -> None:
        if self._caught_up is not None:
            self._caught_up.set()
            self._caught_up = None
