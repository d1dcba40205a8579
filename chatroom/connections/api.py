"""Requests about rooms: carries out what a script or a backend asks for, and answers it.

Owns the steps and the answer of each command that comes by HTTP, and its pace. Rules:

1. A command is read by the same rules as a frame (`protocol/codec`), and has the same limits and effects. Who
   sends it isn't a member of the room by that.
2. Where a client's command would wait for its pace, a request is refused by 429, and the refused one isn't
   counted.
3. A post is answered when the room has been shown it, or its outcome is known. If nothing is known after some
   seconds, the answer is 503: the same key may be sent again.
4. Who is banned from a room is told that, whatever the request asks for; moderators aren't.

It doesn't know sockets, heads or tokens.
"""

import math
from collections.abc import Callable
from typing import assert_never

import trio

from chatroom.auth.tokens import OPERATOR, Identity
from chatroom.connections.services import Services
from chatroom.connections.visitor import Patience, Visitor, Visits
from chatroom.core.errors import CommandError, EngineError, ErrorCode, Refusal, Replaced, Unavailable
from chatroom.core.http import Response
from chatroom.core.messages import (
    STORED,
    Act,
    Conflict,
    Delete,
    Denied,
    Done,
    Duplicate,
    Edit,
    Failed,
    Message,
    Moderate,
    NotFound,
    Outcome,
    Record,
    Unknown,
)
from chatroom.core.sanctions import TAKES_BACK
from chatroom.http.api import EVENT_STREAM, WITH_BODY, Call, Caller
from chatroom.http.frontdoor import STREAM
from chatroom.http.handshake import CORS_HEADERS, JoinRequest
from chatroom.http.site import Admission
from chatroom.protocol import answers, codec, events
from chatroom.protocol.codec import (
    DeleteMessage,
    EditMessage,
    ListMembers,
    ListRooms,
    ListSanctions,
    ModerateUser,
    Post,
    ReadHistory,
)
from chatroom.protocol.session import Weight
from chatroom.rooms.directory import page_of
from chatroom.rooms.room import Room

READ_SECONDS = 4.0
"""How long a request may wait for what it reads."""
LOOK_AGAIN = 0.02
"""Seconds between two looks whether the list of members has come."""
RETRY_SECONDS = 1
"""When to try again where nobody knows when the store answers."""


_STATUS = {ErrorCode.TOO_LONG: 413}

Write = Post | EditMessage | DeleteMessage | ModerateUser
AdmitStream = Callable[[Caller[Identity], JoinRequest], Admission]


class Api:
    """Carries out the requests of all connections."""

    def __init__(self, services: Services, admit_stream: AdmitStream) -> None:
        """`admit_stream` takes the slot of a stream, and raises Refusal if none is free."""
        self._services = services
        self._broker = services.broker
        self._patience = Patience(services.keepalive.add)
        self._admit_stream = admit_stream

    def visits(self) -> Visits:
        """The visits of one connection."""
        return Visits(self._broker)

    async def carry_out(self, caller: Caller[Identity], body: bytes, visits: Visits) -> Response | Admission:
        """The answer to an authorized request, or the admission of a stream. Raises Refusal."""
        call = caller.call
        command = self._read(call, body)
        if isinstance(command, ListRooms):
            return await self._rooms(caller, command)
        try:
            visitor = await visits.begin(caller.username, call.room, caller.identity.rights)
        except (EngineError, trio.TooSlowError):
            raise self._unavailable("The room can't be read now") from None
        self._check_ban(visitor)
        match command:
            case Post() | EditMessage() | DeleteMessage() | ModerateUser():
                return await self._write(visitor, command)
            case None:
                visits.end()
                return self._open_stream(caller)
            case ReadHistory():
                self._keep_pace(caller.username)
                return await self._history(visitor, command)
            case ListMembers():
                self._keep_pace(caller.username)
                return await self._members(visitor)
            case ListSanctions():
                self._keep_pace(caller.username)
                return await self._sanctions(visitor, command)
            case _:
                raise AssertionError(command)

    def _read(self, call: Call, body: bytes) -> codec.Command | None:
        """The command of a request; None for a stream. Raises Refusal."""
        if call.command == EVENT_STREAM:
            return None
        try:
            data, cid = _read_body(call, body)
            if call.key is not None and cid not in (None, call.key):
                raise Refusal(400, "cid and Idempotency-Key are different")
            cid = call.key if call.key is not None else cid
            limits = self._services.limits
            command = codec.read_command(call.command, data | call.data, cid, max_text=limits.text_chars)
        except CommandError as error:
            raise Refusal(_STATUS.get(error.code, 400), error.message) from None
        if command is None:
            raise Refusal(400, "text is empty")
        return command

    # What is refused

    def _check_ban(self, visitor: Visitor) -> None:
        if visitor.member.moderator:
            return
        ban = self._broker.rooms.ban_against(visitor.member, visitor.room)
        if ban is not None:
            raise Refusal(403, "Banned from this room", self._until(ban.until))

    def _until(self, until: int | None) -> tuple[tuple[str, str], ...]:
        return () if until is None else _retry_after(self._broker.rooms.seconds_until(until))

    def _keep_pace(self, username: str) -> None:
        wait = self._services.requests.take(username, trio.current_time())
        if wait:
            raise Refusal(429, "Too many requests of this username", _retry_after(wait))

    def _charge(self, username: str, weight: float) -> None:
        self._services.requests.charge(username, weight, trio.current_time())

    def _unavailable(self, sentence: str) -> Refusal:
        self._broker.rooms.unavailable += 1
        return _unavailable(sentence)

    # What is written

    async def _write(self, visitor: Visitor, command: Write) -> Response:
        wait = self._services.pace.take(visitor.member.username, trio.current_time())
        if wait:
            raise Refusal(429, "Too many messages of this username", _retry_after(wait))
        act: Act | None = None
        match command:
            case Post(text, cid):
                pass
            case EditMessage(number, text, cid):
                act = Edit(number, self._edit_ms)
            case DeleteMessage(number, cid):
                text, act = "", Delete(number, self._edit_ms)
            case ModerateUser(action, target, seconds, text, cid):
                if action not in TAKES_BACK and self._services.moderates(visitor.room.name, target):
                    raise Refusal(403, "A moderator can't be sanctioned")
                act = Moderate(action, target, seconds)
            case _:
                assert_never(command)
        outcome = await visitor.post(text, cid, act, self._patience)
        return await self._answer_outcome(visitor.room, command, outcome)

    @property
    def _edit_ms(self) -> int:
        return int(self._services.limits.edit_seconds * 1000)

    async def _answer_outcome(self, room: Room, command: Write, outcome: Outcome) -> Response:
        duplicate = False
        match outcome:
            case Duplicate(number):
                record, duplicate = await self._look_up(room, number), True
            case Done():
                if not isinstance(command, DeleteMessage):
                    return _json(200, answers.NOTHING)
                record, duplicate = await self._look_up_deletion(room, command.id), True
            case NotFound():
                raise Refusal(404, "There is no such message")
            case Denied(why, until):
                raise Refusal(403, why.value, self._until(until))
            case Conflict():
                raise Refusal(409, "This cid stands for something else")
            case Failed():
                raise Refusal(500, "Not stored")
            case Unknown():
                raise _unavailable("Not known to be stored: send it again with the same key")
            case _:
                record = outcome
        assert isinstance(record, STORED)
        if not isinstance(record, Message):
            return _json(200, answers.entry(room.name, record, duplicate=duplicate))
        posted = answers.posted(
            room.name, room.epoch, record.id, record.ts, record.username, duplicate=duplicate
        )
        return _json(200 if duplicate else 201, posted)

    async def _look_up(self, room: Room, number: int) -> Record:
        """A record that is stored. It is read for an answer to somebody who wrote it."""
        try:
            (record,) = await self._services.engine.read(room.name, room.epoch, number - 1, number, limit=1)
        except (EngineError, ValueError):
            raise self._unavailable("The room can't be read now") from None
        return record

    async def _look_up_deletion(self, room: Room, number: int) -> Record:
        message = await self._look_up(room, number)
        assert isinstance(message, Message)
        assert message.deleted is not None
        return await self._look_up(room, message.deleted)

    # What is read

    async def _history(self, visitor: Visitor, query: ReadHistory) -> Response:
        room, changes = visitor.room, visitor.room.changes
        try:
            with trio.fail_after(READ_SECONDS):
                page = await self._services.engine.history(
                    room.name,
                    room.epoch,
                    before=query.before,
                    after=query.after,
                    upto=room.head,
                    limit=query.limit,
                    max_bytes=events.HISTORY_BYTES,
                )
        except (Replaced, Unavailable, trio.TooSlowError):
            raise self._unavailable("The history can't be read now") from None
        page = changes.applied_to_page(page)
        body = answers.history(page, forward=query.after is not None)
        self._charge(visitor.member.username, Weight.of_page(len(page.messages), len(body)))
        return _json(200, body)

    async def _members(self, visitor: Visitor) -> Response:
        roster = visitor.room.roster
        with trio.move_on_after(READ_SECONDS):
            while not roster.known:  # noqa: ASYNC110  (a roster is pure, and has no event)
                await trio.sleep(LOOK_AGAIN)
        if not roster.known:
            raise self._unavailable("The members can't be read now")
        self._charge(visitor.member.username, Weight.of_members(len(roster)))
        return _json(200, answers.members((roster.as_json(),)))

    async def _sanctions(self, visitor: Visitor, query: ListSanctions) -> Response:
        room, entries = visitor.room, None
        try:
            if query.past:
                with trio.fail_after(READ_SECONDS):
                    entries = await self._services.engine.moderations(
                        room.name, room.epoch, upto=room.head, limit=codec.MAX_PAGE
                    )
        except (Replaced, Unavailable, trio.TooSlowError):
            raise self._unavailable("The sanctions can't be read now") from None
        in_force = self._broker.rooms.sanctions(room)
        body = answers.sanctions(in_force, entries)
        weight = Weight.of_page(len(in_force) + len(entries or ()), len(body))
        self._charge(visitor.member.username, weight)
        return _json(200, body)

    async def _rooms(self, caller: Caller[Identity], query: ListRooms) -> Response:
        self._keep_pace(caller.username)
        if self._services.hide_rooms and caller.identity is not OPERATOR:
            raise Refusal(403, "The list of rooms is hidden here")
        try:
            with trio.fail_after(READ_SECONDS):
                listed = await self._broker.rooms.directory.list()
        except (Unavailable, trio.TooSlowError):
            raise self._unavailable("The rooms can't be read now") from None
        self._charge(caller.username, Weight.of_rooms(len(listed)))
        try:
            page, more = page_of(listed, caller.identity.rights, query.after, query.limit)
        except LookupError:
            raise Refusal(404, "There is no such room now") from None
        return _json(200, answers.rooms(page, more))

    def _open_stream(self, caller: Caller[Identity]) -> Response | Admission:
        call = caller.call
        if call.head:
            return STREAM
        since, epoch = call.data["since"], call.data["epoch"]
        assert since is None or isinstance(since, int)
        assert epoch is None or isinstance(epoch, str)
        return self._admit_stream(caller, JoinRequest(caller.username, call.room, since, epoch))


def _read_body(call: Call, body: bytes) -> tuple[dict[str, object], str | None]:
    """The data in a body, and its `cid`. Raises Refusal, CommandError."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, "The body is not UTF-8") from None
    if call.command not in WITH_BODY or (call.command == "delete" and not text):
        return {}, None
    if call.is_json:
        return codec.decode_object(text)
    if call.command == "moderate":
        raise Refusal(415, "Content-Type must be application/json")
    if call.command == "delete":
        raise Refusal(400, "A deletion has no text")
    return {"text": text}, None


def _json(status: int, body: bytes) -> Response:
    return Response(status, body + b"\n", "application/json", CORS_HEADERS)


def _retry_after(seconds: float) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(max(1, math.ceil(seconds)))),)


def _unavailable(sentence: str) -> Refusal:
    return Refusal(503, sentence, _retry_after(RETRY_SECONDS))
