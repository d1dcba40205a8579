"""Requests about rooms, and readers of streams, in a house of connections in memory."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity
from chatroom.connections.api import Api
from chatroom.connections.connection import AcceptedHandshake
from chatroom.connections.ending import Ending
from chatroom.connections.services import ClientInfo
from chatroom.connections.stream import EventStream
from chatroom.connections.visitor import Visits
from chatroom.core.connectionlimits import ConnectionLimits
from chatroom.core.errors import Refusal
from chatroom.core.http import Response
from chatroom.core.limits import Limits
from chatroom.http.api import Call
from chatroom.http.api import Caller as Asking
from chatroom.http.handshake import JoinRequest
from chatroom.http.site import Admission
from tests.support.line import FIRST_KEY, LIMITS, PEER, House, open_house
from tests.support.memory_transport import MemoryTransport

ALL = Rights.everything()
MODERATOR = Rights((("*", "rwm"),))


class RawJson(bytes):
    """A body that is sent as JSON, as it is."""


class Desk:
    """Where requests are carried out; `visits` are those of one connection that is kept."""

    def __init__(self, house: House, nursery: trio.Nursery, limits: Limits = LIMITS) -> None:
        self.house = house
        self.nursery = nursery
        self.limits = limits
        self.connection_limits = ConnectionLimits(limits)
        self.api = Api(house.services(limits), self._admit)
        self.visits = self.api.visits()

    def _admit(self, caller: Asking[Identity], join_request: JoinRequest) -> Admission:
        self.connection_limits.check_user(caller.username)
        slot = self.connection_limits.take_slot(caller.peer, caller.username)
        return Admission(slot, caller.peer, caller.username, caller.identity, join_request)

    async def carry_out(
        self,
        command: str,
        body: object = b"",
        *,
        room: str = "r",
        username: str = "alice",
        rights: Rights = ALL,
        key: str | None = None,
        head: bool = False,
        visits: Visits | None = None,
        **data: object,
    ) -> Response | Admission:
        """Carry out one request. A `body` that isn't bytes is sent as JSON. Raises Refusal."""
        is_json = not isinstance(body, bytes) or isinstance(body, RawJson)
        call = Call(command, room, data, key, is_json, head)
        identity = Identity(None, rights, "static", FIRST_KEY, None)
        given = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.api.carry_out(Asking(PEER, identity, username, call), given, visits or self.visits)

    async def ask(self, command: str, body: object = b"", **options: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer, or the status and the text of a refusal."""
        try:
            answer = await self.carry_out(command, body, **options)
        except Refusal as refusal:
            return refusal.status, refusal.text
        assert isinstance(answer, Response)
        assert answer.content_type == "application/json"
        assert answer.body.endswith(b"\n")
        return answer.status, json.loads(answer.body)

    async def refusal(self, command: str, body: object = b"", **options: Any) -> Refusal:
        """The refusal of a request that is refused."""
        try:
            await self.carry_out(command, body, **options)
        except Refusal as refusal:
            return refusal
        raise AssertionError("not refused")


class Reader:
    """A reader of a stream. `ending` is None while the stream lasts."""

    HEAD = b"HTTP/1.1 200 OK\r\n\r\n"

    def __init__(
        self, house: House, username: str, transport: MemoryTransport, limits: Limits, **options: Any
    ) -> None:
        self.transport = transport
        self.ending: Ending | None = None
        rights = options.get("rights", ALL)
        identity = Identity(None, rights, "static", FIRST_KEY, options.get("expires"))
        handshake = AcceptedHandshake(
            options.get("room", "r"), self.HEAD, b"", options.get("since"), options.get("epoch")
        )
        client = ClientInfo(f"run-{next(house.numbers)}", username, PEER)
        self.stream = EventStream(transport, client, identity, handshake, house.services(limits))

    async def run(self, stopping: Any = None) -> None:
        self.stream.authorization.watch()
        self.ending = await self.stream.run(stopping)

    @property
    def text(self) -> str:
        """What has come behind the head."""
        head, _, text = bytes(self.transport.taken).partition(b"\r\n\r\n")
        assert head + b"\r\n\r\n" == self.HEAD
        return text.decode()

    @property
    def blocks(self) -> list[str]:
        """The whole events and comments that have come."""
        return self.text.split("\n\n")[:-1]

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """The id and the frame of each event."""
        found = []
        for block in self.blocks:
            if block.startswith("id: "):
                number, data = block.split("\n")
                found.append((number.removeprefix("id: "), json.loads(data.removeprefix("data: "))))
        return found

    @property
    def ids(self) -> list[int]:
        """The ids of the records that have come."""
        return [frame["id"] for _, frame in self.events if "id" in frame]


@asynccontextmanager
async def open_desk(*, limits: Limits = LIMITS, **options: Any) -> AsyncIterator[Desk]:
    """A desk in a house at work."""
    async with open_house(**options) as house, trio.open_nursery() as nursery:
        yield Desk(house, nursery, limits)
        nursery.cancel_scope.cancel()


async def read_events(
    desk: Desk, username: str = "reader", transport: MemoryTransport | None = None, **options: Any
) -> Reader:
    """A new reader, when nothing moves any more."""
    reader = Reader(desk.house, username, transport or MemoryTransport(), desk.limits, **options)
    desk.nursery.start_soon(reader.run)
    await trio.testing.wait_all_tasks_blocked()
    return reader
