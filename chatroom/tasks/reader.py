"""The reader of one connection: takes frames, has them judged, and hands commands on.

1. It paces by not reading: who is too fast waits here, and TCP slows them.
2. Until a command other than `message` has been answered, it takes no further one.
3. It may be cancelled at any await, and stops at the next command when told to: what was handed to the
   broker is the broker's, the rest was never taken.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from chatroom.adapters.engine import Engine
from chatroom.adapters.wire import Wire
from chatroom.pure import events
from chatroom.pure.bucket import Bucket, BucketStore
from chatroom.pure.session import Decision, Reply, Session
from chatroom.pure.tokens import Identity
from chatroom.tasks.broker import Broker
from chatroom.tasks.committer import AskMembers, Enter, Say, Type
from chatroom.tasks.ending import CLIENT_LEFT, End, Ending
from chatroom.tasks.outlet import ConnectionOutlet
from chatroom.tasks.stay import Member
from chatroom.values.codes import CloseCode, ErrorCode
from chatroom.values.commands import Authenticate, ListMembers, Post, ReadHistory, SwitchRoom, Typing
from chatroom.values.errors import CommandError, Disconnect, Unavailable
from chatroom.values.http import Peer
from chatroom.values.journal import note
from chatroom.values.limits import Limits
from chatroom.values.statistics import Drop

_PARSER_CODES: dict[int, str] = {
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.INVALID_UTF8: "text is not UTF-8",
}


class Who(NamedTuple):
    """Whose connection it is."""

    conn: int
    username: str
    peer: Peer

    def fields(self) -> dict[str, object]:
        """How the log names it."""
        return {"conn": self.conn, "username": self.username, "peer": self.peer.address}


class Reader:
    """Carries out what one client asks for, one command at a time."""

    __slots__ = (
        "_broker",
        "_commands",
        "_end",
        "_engine",
        "_limits",
        "_member",
        "_outlet",
        "_pace",
        "_renew",
        "_session",
        "_stopped",
        "_who",
        "_wire",
    )

    def __init__(
        self,
        *,
        session: Session,
        member: Member,
        outlet: ConnectionOutlet,
        end: End,
        wire: Wire,
        broker: Broker,
        engine: Engine,
        pace: BucketStore,
        limits: Limits,
        renew: Callable[[Peer, str], Identity | None],
        who: Who,
    ) -> None:
        self._session = session
        self._member = member
        self._outlet = outlet
        self._end = end
        self._wire = wire
        self._broker = broker
        self._engine = engine
        self._pace = pace
        self._limits = limits
        self._renew = renew
        self._commands: Bucket | None = None
        self._who = who
        self._stopped = False

    def stop(self) -> None:
        """Take no further command; one that has been handed on is not taken back."""
        self._stopped = True

    async def enter(self, since: int | None, epoch: str | None) -> None:
        """Enter the session's room; returns when `welcome` is on its way."""
        await self._command(Enter(self._member, self._session.room, since, epoch))
        note(logging.INFO, "JOIN", **self._who.fields(), room=self._session.room)

    async def read(self, socket: WebSocketConnection) -> None:
        """The task that reads. When the client has closed, is gone or misbehaves, it asks for the end."""
        try:
            while True:
                # One coroutine deep where a connection spends its idle time: each level costs it memory.
                await self._take(await socket.get_message())
        except Disconnect as why:
            self._end.disconnect(why)
        except ConnectionClosed as closed:
            self.note_closed(closed)

    def note_closed(self, closed: ConnectionClosed) -> None:
        """The library calls the connection closed: ask for the end that fits."""
        if self._wire.close_replied or closed.reason is None:
            self._end.ask(CLIENT_LEFT)
        elif (text := _PARSER_CODES.get(closed.reason.code)) is not None:
            self._end.disconnect(Disconnect(CloseCode(closed.reason.code), text))
        elif self._wire.broken:
            self._end.ask(Ending(drop=Drop.BROKEN, hard=True))
        else:
            self._end.ask(CLIENT_LEFT)

    async def _take(self, text: str | bytes) -> None:
        if isinstance(text, bytes):  # the Wire refuses binary frames before the library sees them
            raise Disconnect(CloseCode.UNSUPPORTED_DATA, "binary frame")
        await self._stop_here()
        now = trio.current_time()
        try:
            decision = self._session.decide(text, now)
        except CommandError as error:
            decision = Reply(events.error(error))
        await self._keep_pace(decision, now)
        await self._stop_here()
        if decision is not None:
            await self._carry_out(decision)

    async def _keep_pace(self, decision: Decision | None, now: float) -> None:
        if not self._limits.message_rate:
            return
        if isinstance(decision, Post):
            wait = self._pace.reserve(self._session.username, now)
        else:
            if self._commands is None:
                self._commands = Bucket(self._limits.command_rate, int(self._limits.command_rate))
            wait = self._commands.reserve(now)
        self._wire.paced = wait > 0
        if wait:
            await trio.sleep(wait)
            if self._wire.broken:  # what a dead client left in the buffers is not dripped on for it
                self._end.ask(Ending(drop=Drop.BROKEN, hard=True))
                await trio.sleep_forever()

    async def _stop_here(self) -> None:
        """The boundary of a command: a reader that was stopped goes no further."""
        if self._stopped:
            await trio.sleep_forever()

    async def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Post(text, cid):
                await self._post(text, cid)
            case Reply(payload):
                await self._reply(payload)
            case Typing(active, None):
                await self._broker.submit(Type(self._member, active, None))
            case Typing(active, cid):
                await self._command(Type(self._member, active, cid))
            case ListMembers(cid):
                await self._command(AskMembers(self._member, cid))
            case SwitchRoom(room, since, epoch, cid):
                await self._command(Enter(self._member, room, since, epoch, cid, switch=True))
                self._note_room()
            case ReadHistory():
                await self._reply(await self._history(decision))
            case Authenticate(token, cid):
                await self._reply(self._authenticate(token, cid))

    async def _post(self, text: str, cid: str | None) -> None:
        await self._outlet.wait_room(self._member)
        await self._stop_here()
        self._member.outstanding += 1
        try:
            await self._broker.submit(Say(self._member, text, cid))
        except trio.Cancelled:
            self._member.outstanding -= 1
            raise

    async def _command(self, entry: Enter | Type | AskMembers) -> None:
        replied = self._outlet.expect_reply()
        await self._broker.submit(entry)
        await replied.wait()

    async def _reply(self, payload: bytes) -> None:
        replied = self._outlet.expect_reply()
        self._outlet.reply(payload)
        await replied.wait()

    def _note_room(self) -> None:
        stay = self._member.current
        if stay is not None and stay.room.name != self._session.room:
            note(logging.INFO, "SWITCH", **self._who.fields(), room=stay.room.name, left=self._session.room)
            self._session.enter_room(stay.room.name)

    async def _history(self, query: ReadHistory) -> bytes:
        stay = self._member.current
        assert stay is not None
        room = stay.room
        try:
            page = await self._engine.history(
                room.name, before=query.before, after=query.after, upto=room.head, limit=query.limit
            )
        except Unavailable:
            error = CommandError(
                ErrorCode.UNAVAILABLE, "The history can't be read now", retry=True, cid=query.cid
            )
            return events.error(error)
        forward = query.after is not None
        return events.history(room.name, page, query.cid, forward=forward)

    def _authenticate(self, token: str, cid: str | None) -> bytes:
        identity = self._renew(self._who.peer, token)
        if identity is None or identity.username not in (None, self._session.username):
            return events.error(CommandError(ErrorCode.FORBIDDEN, "Not a token for this name", cid=cid))
        self._session.rights = identity.rights
        if not identity.rights.can(self._session.room, "r"):
            raise Disconnect(CloseCode.NOT_ALLOWED, "no longer allowed in this room")
        return events.ack(cid)
