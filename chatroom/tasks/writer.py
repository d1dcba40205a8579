"""The writing of one connection: the only code that waits for its socket to take bytes.

1. What is queued goes out before anything is added, so that a slow peer is owed one piece at a time.
2. Answers go before the programme; the programme's own order is its own.
3. On a broken connection it goes on taking answers off the channel, so that the reader can finish what
   it has read.
4. An end that is asked for interrupts whatever it waits for; a write under way is given a moment.
"""

from collections.abc import Awaitable, Callable

import trio

from chatroom.adapters.transport import Stalled
from chatroom.adapters.wire import Wire
from chatroom.tasks.ending import End, Ending
from chatroom.tasks.outlet import Answer, ConnectionOutlet
from chatroom.tasks.programme import Programme, Step
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect, Unavailable
from chatroom.values.statistics import Drop

LOOK_AGAIN = 0.02
"""Seconds between two looks whether a member has everything."""


class Writer:
    """Writes in its connection's parent task."""

    __slots__ = ("_end", "_outlet", "_programme", "_waiting", "_wire")

    def __init__(self, wire: Wire, outlet: ConnectionOutlet, programme: Programme, end: End) -> None:
        self._wire = wire
        self._outlet = outlet
        self._programme = programme
        self._end = end
        self._waiting: trio.CancelScope | None = None

    def interrupt(self, patience: float) -> None:
        """An end was asked for: wait no longer than `patience` seconds for what is being written."""
        self._outlet.wake()
        if self._waiting is not None:
            self._waiting.deadline = trio.current_time() + (patience if self._wire.pending else 0)

    async def write(self) -> None:
        """Write until an end is asked for, perhaps by this."""
        try:
            while self._end.ending is None:
                if not await self._work():
                    self._hand(await self._outlet.receive())
        except Stalled:
            self._end.ask(Ending(drop=Drop.STALLED, hard=True))
        except Disconnect as why:
            self._end.disconnect(why)
        except Unavailable:
            self._end.disconnect(Disconnect(CloseCode.INTERNAL_ERROR, "the log can't be read now"))

    async def catch_up(self) -> None:
        """Go on writing until the member has been given all that was shown, and every answer.

        Raises Stalled when the peer takes nothing for too long, and what the programme raises.
        """
        while not self._wire.broken:
            if await self._work():
                continue
            if self._programme.complete:
                return
            with trio.move_on_after(
                LOOK_AGAIN
            ):  # a fan-out that comes to a live stay doesn't wake its writer
                self._hand(await self._outlet.receive())

    async def _work(self) -> bool:
        """Do one thing of what there is to do; false if there is nothing."""
        if self._wire.pending:
            await self._wait(self._wire.flush)
            return True
        if (answer := self._outlet.receive_nowait()) is not None:
            self._hand(answer)
            return True
        step = self._programme.step()
        if step is Step.MORE:
            await trio.lowlevel.checkpoint()  # a long catch-up must not hold up the others
        elif step is Step.READ:
            await self._wait(self._programme.read_on)
        return step is not Step.IDLE

    async def _wait(self, wait: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope() as self._waiting:
            await wait()
        self._waiting = None

    def _hand(self, answer: Answer | None) -> None:
        if answer is None:
            self._outlet.woken()
        else:
            self._wire.put(answer.frame)
            self._outlet.handed(answer)
