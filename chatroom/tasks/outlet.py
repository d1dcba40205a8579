"""A connection's send channel: what the broker and the reader hand to its writer.

1. The channel is bounded, and its bound is never met: the reader takes no further command while too many
   answers are under way, so handing one over never waits.
2. At most one command other than `message` is under way; the reader waits until its answer was handed
   to Wire.
3. Stored messages and ephemera don't pass here: the channel only says that there are some to read on for.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from chatroom.adapters.wire import Wire
from chatroom.pure.frames import text_frame
from chatroom.tasks.ending import End, Ending
from chatroom.tasks.stay import Member
from chatroom.values.errors import Disconnect
from chatroom.values.statistics import Drop

MAX_UNANSWERED = 32
CAPACITY = MAX_UNANSWERED + 8  # beside the answers: a reply, a wake-up, an `expiring`


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame for the writer; `reply` marks the answer to the one other command."""

    frame: bytes
    reply: bool


class ConnectionOutlet:
    """The Outlet of one connection, and the reader's and writer's side of its channel."""

    __slots__ = ("_answers", "_channel", "_end", "_relief", "_replied", "_sender", "_woken", "offer")

    def __init__(self, end: End) -> None:
        self.offer: Callable[[bytes, Sequence[int]], int]
        self._end = end
        self._sender, self._channel = trio.open_memory_channel[Answer | None](CAPACITY)
        self._woken = False
        self._answers = 0  # answers in the channel
        self._relief: trio.Event | None = None
        self._replied: trio.Event | None = None

    def attach(self, wire: Wire) -> None:
        """Offer what the broker has to this wire; it wakes the writer through `wake`."""
        self.offer = wire.offer

    # For the broker: see Outlet

    def wake(self) -> None:
        """See Outlet."""
        if not self._woken:
            self._woken = True
            self._send(None)

    def answer(self, payload: bytes) -> None:
        """See Outlet."""
        self._answers += 1
        self._send(Answer(text_frame(payload), reply=False))

    def settled(self) -> None:
        """See Outlet."""
        self._relieve()
        if self._end.ending is not None:
            self.wake()  # the writer waits for the last outcome

    def reply(self, payload: bytes) -> None:
        """See Outlet."""
        self._send(Answer(text_frame(payload), reply=True))

    def opened(self) -> None:
        """See Outlet."""
        if self._replied is not None:
            self._replied.set()
            self._replied = None

    def _send(self, item: Answer | None) -> None:
        try:
            self._sender.send_nowait(item)
        except trio.WouldBlock:  # rule 1 rules it out; but no connection is worth the broker's life
            self._end.ask(Ending(drop=Drop.INTERNAL_ERROR, hard=True))

    def end(self, why: Disconnect) -> None:
        """See Outlet."""
        self._end.disconnect(why)

    # For the reader

    def expect_reply(self) -> trio.Event:
        """A command other than `message` is about to be handed on; the event is its answer's."""
        self._replied = trio.Event()
        return self._replied

    def is_crowded(self, member: Member) -> bool:
        """Whether no further message of `member` may be under way for now."""
        return member.outstanding + self._answers >= MAX_UNANSWERED

    async def wait_room(self, member: Member) -> None:
        """Wait until one message more of `member` may be under way."""
        while self.is_crowded(member):
            self._relief = trio.Event()
            await self._relief.wait()

    # For the writer

    def receive(self) -> Awaitable[Answer | None]:
        """Wait for the next answer, or for something to read on for (None, to be told by `woken`).

        Not a coroutine of its own: this is where a connection spends its idle time, and each costs memory.
        """
        return self._channel.receive()

    def woken(self) -> None:
        """A None has been received."""
        self._woken = False

    def receive_nowait(self) -> Answer | None:
        """The next answer, or None if there is none."""
        try:
            while (item := self._channel.receive_nowait()) is None:
                self._woken = False
        except trio.WouldBlock:
            return None
        return item

    def handed(self, answer: Answer) -> None:
        """The answer has been handed to Wire."""
        if answer.reply:
            self.opened()
        else:
            self._answers -= 1
            self._relieve()

    def _relieve(self) -> None:
        if self._relief is not None:
            self._relief.set()
            self._relief = None
