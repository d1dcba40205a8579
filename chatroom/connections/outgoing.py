"""The sending side of one connection: its send channel, and the writer that empties it.

Owns the channel of answers, the writer, and the bound of unanswered messages. Rules:

1. The channel is bounded, and its bound is never reached. No further command is taken while too many answers
   are under way, so putting an answer into the channel never waits.
2. Stored messages and ephemera don't go through the channel. A wake-up in it tells the writer that there are
   some in the backlog.
3. Queued bytes go out before anything is added to them, so that a slow peer is owed one piece at a time.
   Answers go before the backlog. The backlog keeps its own order.
4. When nothing can be sent any more, the writer still takes answers off the channel, so that commands that
   were read can be carried out; but only for a moment. After that the connection ends, whatever its other
   tasks wait for.
5. While the log can't be read, the writer waits and tries again; but only for a moment if a command waits for
   its answer.
6. When an end is asked for, it interrupts the writer, whatever the writer waits for. A write under way gets a
   moment to finish.

It doesn't know frames, nor what answers say.
"""

from collections.abc import Awaitable, Callable

import trio

from chatroom.connections.backlog import Backlog, Step
from chatroom.connections.ending import BROKEN, CLIENT_LEFT, End, Ending
from chatroom.connections.services import Services
from chatroom.core.errors import CloseCode, Disconnect, Unavailable
from chatroom.core.limits import MAX_UNANSWERED
from chatroom.core.messages import Outcome
from chatroom.core.statistics import Drop
from chatroom.net.transport import Stalled
from chatroom.rooms.room import Member
from chatroom.websocket.framing import text_frame
from chatroom.websocket.outbound import Outbound

CAPACITY = MAX_UNANSWERED + 8  # room for a reply, a wake-up and an `expiring` beside the answers
READ_AGAIN = 0.25
"""Seconds until the next try to read a log."""
READ_SECONDS = 3.0
"""How long a command may wait for an unreadable log before the connection ends."""
LOOK_AGAIN = 0.02
"""Seconds between two looks whether a member has everything."""
LAST_SECONDS = 2.0
"""How long the commands of a client that has gone may take."""

_Answer = tuple[bytes, bool]
"""A frame, and whether it answers the one command other than `message` that is under way."""


class Outgoing:
    """The sending side of one connection. For the broker it is the MessageSink of its `member`."""

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

    def __init__(
        self, username: str, outbound: Outbound, end: End, services: Services, *, silent: bool = False
    ) -> None:
        """`silent`: see Member."""
        self.offer = outbound.offer
        self.member = Member(username, self, silent=silent)
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

    def settled(self, _outcome: Outcome) -> None:
        """See MessageSink."""
        self._relieve()
        if self._end.ending is not None:
            self.wake()  # the writer waits for the last answer

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
        except trio.WouldBlock:  # never, by rule 1; but if it happened, the broker would go on
            self._end.ask(Ending(drop=Drop.INTERNAL_ERROR, hard=True))

    # For the handler

    def expect_reply(self) -> trio.Event:
        """A command other than `message` is about to be handed on. Returns the event of its answer."""
        self._replied = trio.Event()
        return self._replied

    def reply_at_once(self, payload: bytes) -> bool:
        """Answer a command without waiting. False, and nothing is done, if other bytes have to go first."""
        if self._outbound.pending or self._answers or self._end.ending is not None:
            return False
        self._outbound.put(text_frame(payload))
        return True

    @property
    def at_limit(self) -> bool:
        """Whether so many messages are unanswered that no further one may be taken."""
        return self.member.outstanding + self._answers >= MAX_UNANSWERED

    async def wait_room(self) -> None:
        """Wait until one more message may be taken."""
        while self.at_limit:
            self._relief = trio.Event()
            await self._relief.wait()

    def _relieve(self) -> None:
        if self._relief is not None:
            self._relief.set()
            self._relief = None

    # The writer

    def interrupt(self, patience: float) -> None:
        """An end was asked for: wait no longer than `patience` seconds for a write under way."""
        self.wake()
        if self._waiting is not None:
            self._waiting.deadline = trio.current_time() + (patience if self._outbound.pending else 0)

    async def write(self) -> None:
        """Write until an end is asked for. The writer may ask for it itself."""
        try:
            while self._end.ending is None:
                if self._outbound.broken or self._outbound.shut:
                    await self._let_reader_finish()
                elif not await self._work():
                    self._write_answer(await self._channel.receive())
        except Stalled:
            self._end.ask(Ending(drop=Drop.STALLED, hard=True))
        except Disconnect as why:
            self._end.disconnect(why)
        except Unavailable:
            self._end.disconnect(Disconnect(CloseCode.INTERNAL_ERROR, "the log can't be read now"))

    async def _let_reader_finish(self) -> None:
        """Apply rule 4. Afterwards an end has been asked for."""
        with trio.move_on_after(LAST_SECONDS):
            while self._end.ending is None:
                if not await self._work():
                    self._write_answer(await self._channel.receive())
        self._end.ask(CLIENT_LEFT if self._outbound.shut else BROKEN)

    async def catch_up(self) -> None:
        """Write until the member has got everything that was shown, and every answer.

        Raises Stalled when the peer takes nothing for too long; Disconnect, Unavailable as the backlog does.
        """
        while not self._outbound.broken:
            if await self._work():
                continue
            if self._backlog.complete:
                return
            # A fan-out that comes to a live subscription doesn't wake its writer.
            with trio.move_on_after(LOOK_AGAIN):
                self._write_answer(await self._channel.receive())

    async def _work(self) -> bool:
        """Write the next piece. False if there is none."""
        if self._outbound.pending:
            await self._wait(self._outbound.flush)
            return True
        if (answer := self._next_answer()) is not None:
            self._write_answer(answer)
            return True
        step = self._backlog.step()
        if step is Step.MORE:
            await trio.lowlevel.checkpoint()  # a long catch-up must not hold up other connections
        elif step is Step.READ:
            await self._read_on()
        return step is not Step.IDLE

    async def _read_on(self) -> None:
        """Have the backlog read the log. If that fails, write answers for a moment, and try again later."""
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
                self._write_answer(await self._channel.receive())
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

    def _write_answer(self, answer: _Answer | None) -> None:
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
