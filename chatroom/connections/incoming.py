"""The receiving side of one connection: reads messages, decides about them, and paces them.

Owns the short queue of messages, the task that works on it, and the pace. Rules:

1. A command that needs no wait is carried out where it is read, without a switch of tasks. For a command that
   has to wait, a task is started. It works until the queue is empty. Meanwhile further messages wait in the
   queue, in their order.
2. It paces by not reading. A message that comes too fast waits here. When the queue is full the socket isn't
   read, so that TCP slows the client. Messages have a pace for each username. All other commands have one for
   each connection, by their weight.
3. When the client has sent its last byte, its queue waits for the pace no more. The messages are taken at
   once, at the cost of later clients of this username, but no more of them than another burst. The rest is
   dropped. The whole queue of a dead client is dropped.
4. Inbound has judged the control frames. They are answered here, also while commands wait.

It doesn't know what a command does, nor how it is answered.
"""

import math

import trio

from chatroom.connections.ending import BROKEN, CLIENT_LEFT, End, Ending
from chatroom.connections.handler import Handler
from chatroom.connections.services import Services
from chatroom.core.errors import CommandError, Disconnect, Forbidden
from chatroom.core.pace import RateLimiter
from chatroom.core.statistics import Drop
from chatroom.protocol import events
from chatroom.protocol.codec import Post
from chatroom.protocol.session import Change, Decision, Reply, Session, Weight
from chatroom.websocket.keepalive import KeepaliveTimeout
from chatroom.websocket.wire import Wire

MESSAGE_QUEUE = 16
QUEUED_CHARACTERS = 64 * 1024
"""The queue is full when it exceeds so many messages, or so many characters."""


class Incoming:
    """The receiving side of one connection."""

    __slots__ = (
        "_busy",
        "_commands",
        "_end",
        "_finished",
        "_handler",
        "_nursery",
        "_pause",
        "_queued",
        "_services",
        "_session",
        "_texts",
        "_unfinished_since",
        "_wire",
    )

    def __init__(self, session: Session, handler: Handler, wire: Wire, end: End, services: Services) -> None:
        self._session = session
        self._handler = handler
        self._wire = wire
        self._end = end
        self._services = services
        self._commands: RateLimiter | None = None
        self._nursery: trio.Nursery
        self._busy = True  # a task works; what comes meanwhile is queued
        self._texts: list[str] = []  # short; an empty deque would take half a kilobyte
        self._queued = 0  # characters in the queue
        self._pause: trio.CancelScope | None = None  # while the task waits for the pace
        self._finished = False  # no message comes any more
        self._unfinished_since: float | None = None  # inbound.since when it was last looked at

    def begin(self, nursery: trio.Nursery, since: int | None, epoch: str | None, early: bytes) -> None:
        """Enter the room, then take commands. `early` are bytes that have come already."""
        self._nursery = nursery
        nursery.start_soon(self._enter, since, epoch, name="enter")
        self._services.keepalive.add(self)
        if early:
            self._wire.take(early)
        self._go_on()

    def forget(self) -> None:
        """The connection is over."""
        self._services.keepalive.remove(self)

    def on_timer(self, now: float) -> float:
        """Keep the connection alive, or end it. Returns the seconds until the next call."""
        try:
            return self._wire.on_timer(now)
        except KeepaliveTimeout:
            self._end.ask(Ending(drop=Drop.SILENT, hard=True))
        except Disconnect as why:
            self._end.disconnect(why)
        except Exception as fault:  # no exception may reach the task of all timers
            self._end.fail(fault)
        return math.inf

    # Reading

    def _on_readable(self) -> None:
        """Read. Called in the task of the ReadPoller; never raises."""
        try:
            self._read()
        except Exception as fault:
            self._end.fail(fault)

    def _read(self) -> None:
        self._wire.read()
        self._pull()
        while self._wire.readable:
            self._wire.read()
            self._pull()

    def _go_on(self) -> None:
        """Take the messages that have come, and go on reading if there is room."""
        self._pull()
        if not (self._queue_full or self._finished):
            self._wire.watch(self._on_readable)
            if self._wire.readable:
                self._read()

    def _pull(self) -> None:
        """Take the messages that have come, as long as there is room."""
        inbound = self._wire.inbound
        message = inbound.next()
        while message is not None:
            if inbound.pings is not None:
                self._answer_pings()
            assert isinstance(message, str)
            if not self._busy:
                self._begin_command(message)
            else:
                self._texts.append(message)
                self._queued += len(message)
                if self._queue_full:
                    self._wire.unwatch()
                    return
            message = inbound.next()
        if inbound.pings is not None:
            self._answer_pings()
        if inbound.fault is not None:
            self._end.disconnect(inbound.fault)
            self._finish()
        elif inbound.closed:
            self._wire.outbound.close_with(inbound.close_reply)
            self._finish()
        elif self._wire.ended:
            self._finish()
        elif inbound.since != self._unfinished_since:
            self._unfinished_since = inbound.since
            if inbound.since is not None:
                self._services.keepalive.add(self)

    def _answer_pings(self) -> None:
        inbound, outbound = self._wire.inbound, self._wire.outbound
        for payload in inbound.pings or ():
            outbound.pong(payload)
        inbound.pings = None

    @property
    def _queue_full(self) -> bool:
        return len(self._texts) > MESSAGE_QUEUE or self._queued > QUEUED_CHARACTERS

    def _finish(self) -> None:
        """No message comes any more: apply rule 3, and ask for the end when the queue is empty."""
        if self._finished:
            return
        self._finished = True
        self._wire.unwatch()
        if self._pause is not None:
            self._pause.cancel()
        if not self._busy:
            self._ask_for_end()

    def _ask_for_end(self) -> None:
        outbound = self._wire.outbound
        self._end.ask(BROKEN if outbound.broken and not outbound.shut else CLIENT_LEFT)

    # Carrying out

    def _begin_command(self, text: str) -> None:
        """Carry out the command in `text` at once, or start a task that does."""
        if self._handler.stopped:
            return
        try:
            decision, wait = self._judge(text)
        except Disconnect as why:
            self._end.disconnect(why)
            return
        if wait or not (decision is None or self._handler.carry_out_at_once(decision)):
            self._busy = True
            self._nursery.start_soon(self._work, decision, wait, name="work")

    async def _enter(self, since: int | None, epoch: str | None) -> None:
        """The first task: enter the room, then work on the queue."""
        await self._handler.enter(since, epoch)
        await self._work_off()

    async def _work(self, decision: Decision | None, wait: float) -> None:
        """A task for a command that has to wait. Then it works on the queue."""
        await self._carry_out(decision, wait)
        await self._work_off()

    async def _work_off(self) -> None:
        """Carry out all that is queued. From then on commands are carried out where they are read."""
        try:
            while self._texts and not self._handler.stopped:
                await self._carry_out(*self._judge(self._take()))
        except Disconnect as why:
            self._end.disconnect(why)
        self._busy = False
        if self._finished:
            self._ask_for_end()

    def _take(self) -> str:
        """Take the next text from the queue, and go on reading if there is room again."""
        was_full = self._queue_full
        text = self._texts.pop(0)
        self._queued -= len(text)
        if was_full and not self._queue_full:
            self._go_on()
        return text

    def _judge(self, text: str) -> tuple[Decision | None, float]:
        """The decision about `text`, and the seconds that it has to wait. Raises Disconnect."""
        now = trio.current_time()
        try:
            decision = self._session.decide(text, now)
        except CommandError as error:
            decision = self._answer(error)
        return decision, self._pace_of(decision, len(text), now)

    def _pace_of(self, decision: Decision | None, characters: int, now: float) -> float:
        limits = self._services.limits
        if not limits.message_rate:
            return 0.0
        if isinstance(decision, Post) or isinstance(decision, Change):  # noqa: SIM101  (quicker)
            wait = self._services.pace.reserve(self._session.username, now)
        else:
            if self._commands is None:
                self._commands = RateLimiter(limits.command_rate, int(limits.command_rate))
            wait = self._commands.reserve(now)
            if weight := Weight.of_frame(characters):
                self._commands.charge(weight, now)
        self._wire.paced = wait > 0
        return wait

    async def _carry_out(self, decision: Decision | None, wait: float) -> None:
        if wait:
            if not await self._await_turn(trio.current_time() + wait):
                return
            decision = self._judge_again(decision)
        if decision is not None and not self._handler.stopped:
            weight = await self._handler.carry_out(decision)
            if weight and self._commands is not None:
                self._commands.charge(weight, trio.current_time())

    async def _await_turn(self, turn: float) -> bool:
        """Wait until the pace allows the command. False if rule 3 drops it."""
        if not self._finished:
            with trio.CancelScope(deadline=turn) as self._pause:
                await trio.sleep_forever()
            self._pause = None
        if self._wire.outbound.broken:
            self._end.ask(BROKEN)
            return False
        limits = self._services.limits
        if turn - trio.current_time() > limits.message_burst / limits.message_rate:
            self._end.ask(CLIENT_LEFT)
            return False
        return True

    def _judge_again(self, decision: Decision | None) -> Decision | None:
        """The decision after a wait: the client may have lost its right meanwhile."""
        try:
            if isinstance(decision, Post | Change):
                self._session.check_right(decision)
        except CommandError as error:
            return self._answer(error)
        return decision

    def _answer(self, error: CommandError) -> Reply:
        if isinstance(error, Forbidden):
            self._handler.log_forbidden(error.command, error.room)
        return Reply(events.error(error))
