"""The handler of one client's commands: carries out the session's decisions, one at a time.

Owns the steps and the answer of each command. Rules:

1. A command other than `message` is carried out until it has been answered. Its answer includes everything
   that the client posted before, and comes behind that.
2. The handler may be cancelled at any await, and stops before the next command when it is told to. A command
   that was handed to the broker stays with the broker. The others were never taken.

It doesn't know JSON, nor the pace of commands.
"""

import logging
from typing import assert_never

import trio

from chatroom.connections.authorization import Authorization
from chatroom.connections.outgoing import Outgoing
from chatroom.connections.services import ClientInfo, Services
from chatroom.core.errors import CommandError, ErrorCode, Replaced, Unavailable
from chatroom.core.logevents import log_event
from chatroom.core.messages import Moderate
from chatroom.core.sanctions import TAKES_BACK, Action
from chatroom.protocol import events
from chatroom.protocol.codec import (
    MAX_PAGE,
    Authenticate,
    FollowRooms,
    ListMembers,
    ListRooms,
    ListSanctions,
    Post,
    ReadHistory,
    SwitchRoom,
    Typing,
)
from chatroom.protocol.session import Change, Decision, Reply, Session, Weight, Write
from chatroom.rooms.directory import page_of
from chatroom.rooms.entries import Enter, MemberDraft, MembersRequest, TypingUpdate
from chatroom.rooms.room import Subscription
from chatroom.websocket.framing import text_frame


class Handler:
    """Carries out the commands of one client. `stopped`: it begins no further command."""

    __slots__ = (
        "_authorization",
        "_broker",
        "_client",
        "_member",
        "_outgoing",
        "_services",
        "_session",
        "stopped",
    )

    def __init__(
        self,
        session: Session,
        outgoing: Outgoing,
        authorization: Authorization,
        client: ClientInfo,
        services: Services,
    ) -> None:
        self._session = session
        self._outgoing = outgoing
        self._member = outgoing.member
        self._authorization = authorization
        self._client = client
        self._services = services
        self._broker = services.broker
        self.stopped = False

    async def enter(self, since: int | None, epoch: str | None) -> None:
        """Enter the session's room. Returns when `welcome` is on its way."""
        self._member.rights = self._session.rights
        await self._command(Enter(self._member, self._session.room, since, epoch))
        self._authorization.welcome()
        label = self._authorization.identity.label
        log_event(logging.INFO, "JOIN", **self._client.fields(), room=self._session.room, label=label)

    def log_forbidden(self, command: str, room: str) -> None:
        """Log that the client had no right to a command."""
        self._services.forbidden.log(self._client, command, room)

    def stop(self) -> None:
        """Take no further command. One that was handed to the broker isn't taken back."""
        self.stopped = True

    def carry_out_at_once(self, decision: Decision) -> bool:
        """Carry out a decision that needs no wait. False, and nothing is done, if it needs one."""
        if isinstance(decision, Post):  # nearly always
            return self._draft_at_once(MemberDraft(self._member, decision.text, decision.cid))
        if isinstance(decision, Change) and not isinstance(decision.act, Moderate):
            return self._draft_at_once(self._draft(decision))
        return isinstance(decision, Reply) and self._outgoing.reply_at_once(decision.payload)

    def _draft_at_once(self, draft: MemberDraft) -> bool:
        member = self._member
        if self._outgoing.at_limit:
            return False
        member.outstanding += 1
        if not self._broker.submit_nowait(draft):
            member.outstanding -= 1
            return False
        return True

    def _draft(self, write: Write) -> MemberDraft:
        act = write.act if isinstance(write, Change) else None
        return MemberDraft(self._member, write.text, write.cid, act)

    async def carry_out(self, decision: Decision) -> float:
        """Carry out a decision, and wait until it is answered. Returns its weight, see `Weight`."""
        match decision:
            case Change(act=Moderate(action, target), cid=cid) if self._protects(action, target):
                error = CommandError(ErrorCode.FORBIDDEN, "A moderator can't be sanctioned", cid=cid)
                await self._reply(events.error(error))
            case Post() | Change():
                await self._write(decision)
            case ListSanctions(past, cid):
                return await self._list_sanctions(past, cid)
            case ListRooms():
                return await self._list_rooms(decision)
            case FollowRooms(rooms, cid):
                return await self._follow(rooms, cid)
            case Reply(payload):
                await self._reply(payload)
            case Typing():
                await self._type(decision)
            case ListMembers(cid):
                return await self._list_members(cid)
            case SwitchRoom():
                return await self._switch(decision)
            case ReadHistory():
                return await self._history(decision)
            case Authenticate(token, cid):
                await self._authenticate(token, cid)
                return Weight.TOKEN
            case _:
                assert_never(decision)
        return 0.0

    async def _write(self, write: Write) -> None:
        await self._outgoing.wait_room()
        if self.stopped:
            return
        self._member.outstanding += 1
        try:
            await self._broker.submit(self._draft(write))
        except trio.Cancelled:
            self._member.outstanding -= 1
            raise

    async def _command(self, entry: Enter | TypingUpdate | MembersRequest) -> None:
        replied = self._outgoing.expect_reply()
        await self._broker.submit(entry)
        await replied.wait()

    async def _type(self, typing: Typing) -> None:
        """Pass on that the client types. Without a `cid` that is answered only by a refusal."""
        update = TypingUpdate(self._member, typing.active, typing.cid)
        if typing.cid is not None:
            await self._command(update)
        elif (refusal := self._broker.rooms.refusal_to_speak(self._member, None)) is not None:
            await self._reply(refusal)
        else:
            await self._broker.submit(update)

    async def _reply(self, payload: bytes) -> None:
        replied = self._outgoing.expect_reply()
        self._outgoing.reply(payload)
        await replied.wait()

    async def _list_members(self, cid: str | None) -> float:
        await self._command(MembersRequest(self._member, cid))
        subscription = self._member.current
        return 0.0 if subscription is None else Weight.of_members(len(subscription.room.roster))

    async def _switch(self, switch: SwitchRoom) -> float:
        old = self._member.current
        await self._command(
            Enter(self._member, switch.room, switch.since, switch.epoch, switch.cid, switch=True)
        )
        new = self._member.current
        if new is old or old is None or new is None:
            return 0.0
        self._enter_room(new.room.name)
        return Weight.of_switch(
            len(old.room.subscriptions) + len(new.room.subscriptions), new.room.head - new.begin
        )

    def _enter_room(self, room: str) -> None:
        log_event(logging.INFO, "SWITCH", **self._client.fields(), room=room, left=self._session.room)
        self._session.enter_room(room)
        self._authorization.check_room()  # the rights may have been replaced while the switch was under way

    async def _history(self, query: ReadHistory) -> float:
        """Answer with a page of history. It includes what this client posted before and comes behind it."""
        subscription = self._member.current
        assert subscription is not None
        if self._member.outstanding or (subscription.live and subscription.cursor < subscription.last_posted):
            await self._broker.wait_settled(self._member)
        payload, messages = await self._page(subscription, query)
        await self._reply_in_place(subscription, payload)
        return Weight.of_page(messages, len(payload))

    async def _reply_in_place(self, subscription: Subscription, payload: bytes) -> None:
        """Answer behind what this client posted, and before any change that the answer doesn't have."""
        if not subscription.live and subscription.cursor >= subscription.last_posted:
            await self._reply(payload)  # its writer gives it all that changes later
            return
        replied = self._outgoing.expect_reply()
        subscription.live = False
        subscription.answer_behind((text_frame(payload),), max(subscription.cursor, subscription.last_posted))
        self._outgoing.wake()
        await replied.wait()

    async def _page(self, subscription: Subscription, query: ReadHistory) -> tuple[bytes, int]:
        """The answer, and how many messages were read for it."""
        room = subscription.room
        changes = room.changes
        try:
            page = await self._services.engine.history(
                room.name,
                room.epoch,
                before=query.before,
                after=query.after,
                upto=subscription.cursor if subscription.live else room.head,
                limit=query.limit,
                max_bytes=events.HISTORY_BYTES,
            )
        except (Replaced, Unavailable):
            return self._broker.rooms.unavailable_error("The history can't be read now", query.cid), 0
        page = changes.applied_to_page(page)
        forward = query.after is not None
        return events.history(room.name, page, query.cid, forward=forward), len(page.messages)

    def _protects(self, action: Action, target: str) -> bool:
        """Whether an action is against somebody who may moderate the room, too."""
        return action not in TAKES_BACK and self._services.moderates(self._session.room, target)

    async def _list_sanctions(self, past: bool, cid: str | None) -> float:
        """Answer with the sanctions of the room. That includes what this client posted before."""
        subscription = self._member.current
        assert subscription is not None
        if self._member.outstanding:
            await self._broker.wait_settled(self._member)
        room, entries = subscription.room, None
        try:
            if past:
                entries = await self._services.engine.moderations(
                    room.name, room.epoch, upto=room.head, limit=MAX_PAGE
                )
        except (Replaced, Unavailable):
            payload = self._broker.rooms.unavailable_error("The sanctions can't be read now", cid)
        else:
            payload = events.sanctions(room.name, self._broker.rooms.sanctions(room), entries, cid)
        await self._reply(payload)
        return Weight.of_page(len(room.sanctions) + len(entries or ()), len(payload))

    async def _list_rooms(self, query: ListRooms) -> float:
        """Answer with a page of the rooms that this client may read."""
        if self._services.hide_rooms:
            error = CommandError(ErrorCode.FORBIDDEN, "The list of rooms is hidden here", cid=query.cid)
            await self._reply(events.error(error))
            return 0.0
        try:
            listed = await self._broker.rooms.directory.list()
        except Unavailable:
            await self._reply(self._broker.rooms.unavailable_error("The rooms can't be read now", query.cid))
            return 0.0
        try:
            page, more = page_of(listed, self._session.rights, query.after, query.limit)
        except LookupError:
            error = CommandError(
                ErrorCode.NOT_FOUND, "There is no such room now", field="after", cid=query.cid
            )
            await self._reply(events.error(error))
        else:
            await self._reply(events.rooms(page, more, query.cid))
        return Weight.of_rooms(len(listed))

    async def _follow(self, rooms: tuple[str, ...], cid: str | None) -> float:
        replied = self._outgoing.expect_reply()
        await self._broker.follow(self._member, rooms, cid)
        await replied.wait()
        return Weight.of_follow(len(rooms))

    async def _authenticate(self, token: str, cid: str | None) -> None:
        identity = self._services.renew(self._client.peer, self._session.username, token)
        if identity is None:
            self.log_forbidden("auth", self._session.room)
            error = CommandError(ErrorCode.FORBIDDEN, "Not a token for this name", cid=cid)
            await self._reply(events.error(error))
            return
        if identity.key != self._authorization.identity.key:  # the same token again isn't logged
            log_event(
                logging.INFO, "auth", **self._client.fields(), label=identity.label, expires=identity.expires
            )
        self._authorization.renew(identity)
        replied = self._outgoing.expect_reply()
        self._outgoing.reply(
            events.ack(cid) if identity.expires is None else events.renewed(identity.expires, cid)
        )
        self._authorization.watch()  # behind the answer: `expiring` may follow at once
        await replied.wait()
