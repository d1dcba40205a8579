"""The handler of one client's commands: what the session has decided is carried out here, one at a time.

1. Until a command other than `message` has been answered, carrying it out goes on.
2. It may be cancelled at any await, and stops at the next command when told to: what was handed to the
   broker is the broker's, the rest was never taken.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import trio

from chatroom.adapters.engine import Engine
from chatroom.pure import events
from chatroom.pure.session import Decision, Reply, Session
from chatroom.pure.tokens import Identity
from chatroom.tasks.authorization import Authorization
from chatroom.tasks.broker import Broker
from chatroom.tasks.committer import AskMembers, Enter, Say, Type
from chatroom.tasks.outlet import ConnectionOutlet
from chatroom.tasks.stay import Member
from chatroom.values.codes import ErrorCode
from chatroom.values.commands import Authenticate, ListMembers, Post, ReadHistory, SwitchRoom, Typing
from chatroom.values.errors import CommandError, Unavailable
from chatroom.values.http import Peer
from chatroom.values.journal import note


class Who(NamedTuple):
    """Whose connection it is."""

    conn: int
    username: str
    peer: Peer

    def fields(self) -> dict[str, object]:
        """How the log names it."""
        return {"conn": self.conn, "username": self.username, "peer": self.peer.address}


class Handler:
    """Carries out what one client asks for. `stopped`: it begins nothing more."""

    __slots__ = (
        "_authorization",
        "_broker",
        "_engine",
        "_member",
        "_outlet",
        "_renew",
        "_session",
        "_who",
        "stopped",
    )

    def __init__(
        self,
        *,
        session: Session,
        member: Member,
        outlet: ConnectionOutlet,
        broker: Broker,
        engine: Engine,
        authorization: Authorization,
        renew: Callable[[Peer, str], Identity | None],
        who: Who,
    ) -> None:
        self._session = session
        self._member = member
        self._outlet = outlet
        self._broker = broker
        self._engine = engine
        self._authorization = authorization
        self._renew = renew
        self._who = who
        self.stopped = False

    async def enter(self, since: int | None, epoch: str | None) -> None:
        """Enter the session's room; returns when `welcome` is on its way."""
        await self._command(Enter(self._member, self._session.room, since, epoch))
        self._authorization.welcome()
        note(logging.INFO, "JOIN", **self._who.fields(), room=self._session.room)

    def stop(self) -> None:
        """Take no further command; one that has been handed on is not taken back."""
        self.stopped = True

    async def stop_here(self) -> None:
        """The boundary of a command: one who was stopped goes no further."""
        if self.stopped:
            await trio.sleep_forever()

    def post_at_once(self, post: Post) -> bool:
        """Hand a message to the broker, if that needs no wait; false if it does."""
        if self._outlet.is_crowded(self._member):
            return False
        self._member.outstanding += 1
        if not self._broker.submit_nowait(Say(self._member, post.text, post.cid)):
            self._member.outstanding -= 1
            return False
        return True

    async def carry_out(self, decision: Decision) -> None:
        """Do what was decided, and wait for its answer if it has one."""
        match decision:
            case Post():
                await self._post(decision)
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
                await self._authenticate(token, cid)

    async def _post(self, post: Post) -> None:
        await self._outlet.wait_room(self._member)
        await self.stop_here()
        self._member.outstanding += 1
        try:
            await self._broker.submit(Say(self._member, post.text, post.cid))
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
            self._authorization.check_room()  # rights may have been taken anew while the switch was under way

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

    async def _authenticate(self, token: str, cid: str | None) -> None:
        identity = self._renew(self._who.peer, token)
        if identity is None or not self._authorization.is_for(identity):
            error = CommandError(ErrorCode.FORBIDDEN, "Not a token for this name", cid=cid)
            await self._reply(events.error(error))
            return
        self._authorization.renew(identity)
        replied = self._outlet.expect_reply()
        self._outlet.reply(
            events.ack(cid) if identity.expires is None else events.renewed(identity.expires, cid)
        )
        self._authorization.watch()  # behind the answer: `expiring` may follow at once
        await replied.wait()
