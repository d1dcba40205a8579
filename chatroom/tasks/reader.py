"""The reader of one connection: takes its client's messages, has them judged, and sees to their pace.

1. A message that needs no wait is taken where the Wire reads it, without a switch of tasks. All others are
   this reader's task's, in their order: while it is busy, or anything waits for it, nothing overtakes.
2. It paces by not reading: who is too fast waits here, what comes meanwhile waits in a short queue, and then
   the socket is not read and TCP slows the client.
"""

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from chatroom.adapters.wire import Wire
from chatroom.pure import events
from chatroom.pure.bucket import Bucket, BucketStore
from chatroom.pure.inbound import BROKEN_FRAMING, NOT_UTF8
from chatroom.pure.session import Decision, Reply, Session
from chatroom.tasks.ending import CLIENT_LEFT, End, Ending
from chatroom.tasks.handler import Handler
from chatroom.values.codes import CloseCode
from chatroom.values.commands import Post
from chatroom.values.errors import CommandError, Disconnect
from chatroom.values.limits import Limits
from chatroom.values.statistics import Drop

MESSAGE_QUEUE = 16
QUEUED_CHARACTERS = 64 * 1024
"""No more than so many messages wait at a time, and only one that makes them so many characters."""
_LIBRARYS_FAULTS: dict[int, Disconnect] = {
    CloseCode.PROTOCOL_ERROR: BROKEN_FRAMING,
    CloseCode.INVALID_UTF8: NOT_UTF8,
}
"""What the library finds wrong with a close frame, as we answer it elsewhere."""


class Reader:
    """Takes what one client sends; the Inlet of its Wire."""

    __slots__ = (
        "_closed",
        "_commands",
        "_end",
        "_handler",
        "_limits",
        "_pace",
        "_queued",
        "_relief",
        "_session",
        "_sleeper",
        "_texts",
        "_wire",
        "_work",
    )

    def __init__(
        self,
        *,
        session: Session,
        handler: Handler,
        end: End,
        wire: Wire,
        pace: BucketStore,
        limits: Limits,
    ) -> None:
        self._session = session
        self._handler = handler
        self._end = end
        self._wire = wire
        self._pace = pace
        self._limits = limits
        self._commands: Bucket | None = None
        self._texts: list[str] = []  # a few at most; a deque takes half a kilobyte even when empty
        self._queued = 0  # the characters of these
        self._work: tuple[Decision | None, float] | None = None  # decided, but not to be done at once
        self._sleeper: trio.lowlevel.Task | None = None  # the task, while it waits for something to do
        self._relief: trio.Event | None = None  # the Wire waits for room
        self._closed = False

    # For the Wire: see Inlet

    def take(self, message: str | bytes) -> None:
        """See Inlet."""
        assert isinstance(message, str)
        if self._sleeper is None:
            self._texts.append(message)
            self._queued += len(message)
            return
        if self._handler.stopped:
            return
        try:
            decision, wait = work = self._judge(message)
        except Disconnect as why:
            self._end.disconnect(why)
            return
        if wait or not (
            decision is None or (isinstance(decision, Post) and self._handler.post_at_once(decision))
        ):
            self._work = work
            self._wake()

    @property
    def crowded(self) -> bool:
        """See Inlet."""
        return len(self._texts) >= MESSAGE_QUEUE or self._queued >= QUEUED_CHARACTERS

    async def wait_room(self) -> None:
        """See Inlet."""
        while self.crowded:
            self._relief = trio.Event()
            await self._relief.wait()

    def close(self) -> None:
        """See Inlet."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._sleeper is not None:
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None

    def _let_go(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    # The task

    async def read(self, socket: WebSocketConnection) -> None:
        """The task that reads. When the client has closed, is gone or misbehaves, it asks for the end."""
        try:
            while (work := self._next()) is not None or not self._closed:
                if work is not None:
                    await self._carry_out(*work)
                else:
                    # Where a connection spends its idle time: an event, and a coroutine more, cost it memory.
                    self._sleeper = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._let_go)
            await socket.get_message()
        except Disconnect as why:
            self._end.disconnect(why)
        except ConnectionClosed as closed:
            self.note_closed(closed)

    def _next(self) -> tuple[Decision | None, float] | None:
        """What is to be done next, if there is anything."""
        if (work := self._work) is not None:
            self._work = None
            return work
        if self._handler.stopped or not self._texts:
            return None
        text = self._texts.pop(0)
        self._queued -= len(text)
        if self._relief is not None:
            self._relief.set()
            self._relief = None
        return self._judge(text)

    def _judge(self, text: str) -> tuple[Decision | None, float]:
        """What to do about `text`, and after how many seconds. Raises Disconnect."""
        now = trio.current_time()
        try:
            decision = self._session.decide(text, now)
        except CommandError as error:
            decision = Reply(events.error(error))
        return decision, self._pace_of(decision, now)

    def _pace_of(self, decision: Decision | None, now: float) -> float:
        if not self._limits.message_rate:
            return 0.0
        if isinstance(decision, Post):
            wait = self._pace.reserve(self._session.username, now)
        else:
            if self._commands is None:
                self._commands = Bucket(self._limits.command_rate, int(self._limits.command_rate))
            wait = self._commands.reserve(now)
        self._wire.paced = wait > 0
        return wait

    async def _carry_out(self, decision: Decision | None, wait: float) -> None:
        if wait:
            await trio.sleep(wait)
            if self._wire.broken:  # what a dead client left in the buffers is not dripped on for it
                self._end.ask(Ending(drop=Drop.BROKEN, hard=True))
                await trio.sleep_forever()
            decision = self._judge_again(decision)
        await self._handler.stop_here()
        if decision is not None:
            await self._handler.carry_out(decision)

    def _judge_again(self, decision: Decision | None) -> Decision | None:
        """What is to become of a decision after a wait: the right to a message may have gone meanwhile."""
        try:
            if isinstance(decision, Post):
                self._session.check_right(decision)
        except CommandError as error:
            return Reply(events.error(error))
        return decision

    def note_closed(self, closed: ConnectionClosed) -> None:
        """The library calls the connection closed: ask for the end that fits."""
        if self._wire.close_replied or closed.reason is None:
            self._end.ask(CLIENT_LEFT)
        elif (fault := _LIBRARYS_FAULTS.get(closed.reason.code)) is not None:
            self._end.disconnect(fault)
        elif self._wire.broken:
            self._end.ask(Ending(drop=Drop.BROKEN, hard=True))
        else:
            self._end.ask(CLIENT_LEFT)
