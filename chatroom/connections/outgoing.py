"""What goes to one client: its send channel, and the writer at the end of it.

1. The channel is bounded, and its bound is never met: no further command is taken while too many answers
   are under way, so handing one over never waits.
2. Stored messages and ephemera don't pass the channel: it only says that there are some to read on for.
3. What is queued goes out before anything is added, so that a slow peer is owed one piece at a time.
   Answers go before the backlog; the backlog's own order is its own.
4. Where nothing can be sent any more the writer goes on taking answers off the channel, so that what was
   read can be carried out; but only for a moment. Whatever the other tasks of the connection wait for
   then, its peer is gone, and they end.
5. Where the log can't be read for a while, a reader waits; but not while a command waits for its answer.
6. An end that is asked for interrupts whatever the writer waits for; a write under way is given a moment.
"""

from collections.abc import Awaitable, Callable

import trio

from chatroom.connections.backlog import Backlog, Step
from chatroom.connections.ending import BROKEN, CLIENT_LEFT, End, Ending
from chatroom.connections.services import Services
from chatroom.core.errors import CloseCode, Disconnect, Unavailable
from chatroom.core.limits import MAX_UNANSWERED
from chatroom.core.statistics import Drop
from chatroom.net.transport import Stalled
from chatroom.rooms.subscription import Member
from chatroom.websocket.framing import text_frame
from chatroom.websocket.outbound import Outbound

CAPACITY = MAX_UNANSWERED + 8  # beside the answers: a reply, a wake-up, an `expiring`
READ_AGAIN = 0.25
"""Seconds until a log that can't be read is asked again."""
READ_SECONDS = 3.0
"""How long a command may wait for a log that can't be read, before the connection ends."""
LOOK_AGAIN = 0.02
"""Seconds between two looks whether a member has everything."""
LAST_SECONDS = 2.0
"""How long may be worked on what a client has left behind that is gone."""

_Answer = tuple[bytes, bool]
"""A frame, and whether it is the answer to the one command other than `message` that is under way."""


class Outgoing:
    """The sending side of one connection; for the broker, the MessageSink of its `member`."""

    __slots__ = (
        "_answers",
        "_backlog",
        "_channel",
        "_end",
        "_outbound",
        "_relief",
        "_replied",
        "_sender",
        "_unreadable_since",
        "_waiting",
        "_woken",
        "member",
        "offer",
    )

    def __init__(self, username: str, outbound: Outbound, end: End, services: Services) -> None:
        self.offer = outbound.offer
        self.member = Member(username, self)
        self._outbound = outbound
        self._end = end
        self._backlog = Backlog(self.member, outbound, services.engine, services.broker)
        self._sender, self._channel = trio.open_memory_channel[_Answer | None](CAPACITY)
        self._woken = False
        self._answers = 0  # answers in the channel, to messages
        self._relief: trio.Event | None = None
        self._replied: trio.Event | None = None
        self._waiting: trio.CancelScope | None = None
        self._unreadable_since: float | None = None

    # For the broker: see MessageSink

    def wake(self) -> None:
        """See MessageSink."""
        if not self._woken:
            self._woken = True
            self._send(None)

    def answer(self, payload: bytes) -> None:
        """See MessageSink."""
        self._answers += 1
        self._send((text_frame(payload), False))

    def settled(self) -> None:
        """See MessageSink."""
        self._relieve()
        if self._end.ending is not None:
            self.wake()  # the writer waits for the last outcome

    def reply(self, payload: bytes) -> None:
        """See MessageSink."""
        self._send((text_frame(payload), True))

    def replied(self) -> None:
        """See MessageSink."""
        if self._replied is not None:
            self._replied.set()
            self._replied = None

    def end(self, why: Disconnect) -> None:
        """See MessageSink."""
        self._end.disconnect(why)

    def _send(self, item: _Answer | None) -> None:
        try:
            self._sender.send_nowait(item)
        except trio.WouldBlock:  # rule 1 rules it out; but no connection is worth the broker's life
            self._end.ask(Ending(drop=Drop.INTERNAL_ERROR, hard=True))

    # For those who carry out commands

    def expect_reply(self) -> trio.Event:
        """A command other than `message` is about to be handed on; the event is its answer's."""
        self._replied = trio.Event()
        return self._replied

    def reply_at_once(self, payload: bytes) -> bool:
        """Answer a command without waiting, if nothing stands before the answer; false if something does."""
        if self._outbound.pending or self._answers or self._end.ending is not None:
            return False
        self._outbound.put(text_frame(payload))
        return True

    @property
    def crowded(self) -> bool:
        """Whether no further message may be under way for now."""
        return self.member.outstanding + self._answers >= MAX_UNANSWERED

    async def wait_room(self) -> None:
        """Wait until one message more may be under way."""
        while self.crowded:
            self._relief = trio.Event()
            await self._relief.wait()

    def _relieve(self) -> None:
        if self._relief is not None:
            self._relief.set()
            self._relief = None

    # The writer

    def interrupt(self, patience: float) -> None:
        """An end was asked for: wait no longer than `patience` seconds for what is being written."""
        self.wake()
        if self._waiting is not None:
            self._waiting.deadline = trio.current_time() + (patience if self._outbound.pending else 0)

    async def write(self) -> None:
        """Write until an end is asked for, perhaps by this."""
        try:
            while self._end.ending is None:
                if self._outbound.broken or self._outbound.shut:
                    await self._let_reader_finish()
                elif not await self._work():
                    self._hand(await self._channel.receive())
        except Stalled:
            self._end.ask(Ending(drop=Drop.STALLED, hard=True))
        except Disconnect as why:
            self._end.disconnect(why)
        except Unavailable:
            self._end.disconnect(Disconnect(CloseCode.INTERNAL_ERROR, "the log can't be read now"))

    async def _let_reader_finish(self) -> None:
        """Rule 4; afterwards an end has been asked for."""
        with trio.move_on_after(LAST_SECONDS):
            while self._end.ending is None:
                if not await self._work():
                    self._hand(await self._channel.receive())
        self._end.ask(CLIENT_LEFT if self._outbound.shut else BROKEN)

    async def catch_up(self) -> None:
        """Go on writing until the member has been given all that was shown, and every answer.

        Raises Stalled when the peer takes nothing for too long, and what the backlog raises.
        """
        while not self._outbound.broken:
            if await self._work():
                continue
            if self._backlog.complete:
                return
            # A fan-out that comes to a live subscription doesn't wake its writer.
            with trio.move_on_after(LOOK_AGAIN):
                self._hand(await self._channel.receive())

    async def _work(self) -> bool:
        """Do one thing of what there is to do; false if there is nothing."""
        if self._outbound.pending:
            await self._wait(self._outbound.flush)
            return True
        if (answer := self._next_answer()) is not None:
            self._hand(answer)
            return True
        step = self._backlog.step()
        if step is Step.MORE:
            await trio.lowlevel.checkpoint()  # a long catch-up must not hold up the others
        elif step is Step.READ:
            await self._read_on()
        return step is not Step.IDLE

    async def _read_on(self) -> None:
        """Have the backlog read; where that is impossible for now, go on with answers and try again."""
        began = trio.current_time()
        try:
            await self._wait(self._backlog.read_on)
        except Unavailable:
            if self._unreadable_since is None:
                self._unreadable_since = began
            late = trio.current_time() >= self._unreadable_since + READ_SECONDS
            if late and self._replied is not None:
                raise
            with trio.move_on_after(READ_AGAIN):
                self._hand(await self._channel.receive())
        else:
            self._unreadable_since = None

    async def _wait(self, wait: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope() as self._waiting:
            await wait()
        self._waiting = None

    def _next_answer(self) -> _Answer | None:
        try:
            while (item := self._channel.receive_nowait()) is None:
                self._woken = False
        except trio.WouldBlock:
            return None
        return item

    def _hand(self, answer: _Answer | None) -> None:
        if answer is None:
            self._woken = False
            return
        frame, is_reply = answer
        self._outbound.put(frame)
        if is_reply:
            self.replied()
        else:
            self._answers -= 1
            self._relieve()
