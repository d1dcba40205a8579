"""A whole connection in memory: the test has its bytes; its tasks, rooms and engine are the real ones."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity
from chatroom.connections.acceptor import EXPIRY_CHECK_SECONDS
from chatroom.connections.connection import AcceptedHandshake, Connection
from chatroom.connections.ending import Ending
from chatroom.connections.services import ClientInfo, ForbiddenCommands, Services
from chatroom.connections.timers import Timers
from chatroom.core.http import Peer
from chatroom.core.limits import Limits
from chatroom.core.pace import RateLimiters
from chatroom.protocol.eventtext import EventTexts
from chatroom.websocket.upgrade import answer_handshake
from tests.support.client_frames import CLOSE, HANDSHAKE, TEXT, Frame, masked, read_frames
from tests.support.harness import BrokerHarness, open_broker
from tests.support.memory_transport import MemoryTransport

LIMITS = Limits(message_rate=0)
PEER = Peer("192.0.2.1")
MIDNIGHT = 1_764_000_000
"""The time of day at the start of the test's clock."""
FIRST_KEY = "first"
"""The key of the token by which everybody has come in."""


def command(event: str, cid: str | None = None, **data: object) -> bytes:
    """A client's frame."""
    value = {"event": event, "data": data} | ({} if cid is None else {"cid": cid})
    return masked(TEXT, json.dumps(value).encode())


def say(text: str, cid: str | None = None) -> bytes:
    """The frame of a message."""
    return command("message", cid, text=text)


class Caller:
    """One client's connection. `ending` is None while it lasts, `error` what it raised if it did."""

    def __init__(
        self,
        house: "House",
        username: str,
        *,
        rights: Rights,
        limits: Limits,
        transport: MemoryTransport,
        handshake: AcceptedHandshake,
        renew: Callable[[Peer, str, str], Identity | None],
        expires: int | None,
    ) -> None:
        self.transport = transport
        services = house.services(limits, renew)
        client = ClientInfo(f"run-{next(house.numbers)}", username, PEER)
        identity = Identity(None, rights, "static", FIRST_KEY, expires)
        self.connection = Connection(transport, client, identity, handshake, services)
        self.authorization = self.connection.authorization
        self.end = self.connection.end
        self.member = self.connection.member
        self.ending: Ending | None = None
        self.error: BaseException | None = None
        self.over_at: float | None = None

    async def run(self, house: "House") -> None:
        self.authorization.watch()
        try:
            self.ending = await self.connection.run()
        except* Exception as group:
            self.error = group
        finally:
            house.expiry.remove(self.authorization)
            self.over_at = trio.current_time()

    # What the test does as the client

    async def send(self, *frames: bytes) -> None:
        """Send bytes in one piece, and wait until nothing moves any more."""
        self.transport.arrive(b"".join(frames))
        await trio.testing.wait_all_tasks_blocked()

    @property
    def answer(self) -> bytes:
        """The head of the answer to the handshake."""
        return bytes(self.transport.taken).partition(b"\r\n\r\n")[0]

    @property
    def frames(self) -> list[Frame]:
        """All whole frames that have come; there must be nothing but frames."""
        return read_frames(bytes(self.transport.taken).partition(b"\r\n\r\n")[2])[0]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(frame.payload) for frame in self.frames if frame.opcode == TEXT]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    @property
    def texts(self) -> list[str]:
        return [each["data"]["text"] for each in self.named("message")]

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """Code and reason of the close frame that has come, if one has; nothing comes behind it."""
        closing = [frame for frame in self.frames if frame.opcode == CLOSE]
        if not closing:
            return None
        assert closing == [self.frames[-1]], "a close frame is the last thing that is sent"
        payload = closing[0].payload
        return (closing[0].close_code, payload[2:].decode()) if payload else (1005, "")


class House:
    """A harness, and whole connections to it."""

    def __init__(self, harness: BrokerHarness, nursery: trio.Nursery, pace: tuple[float, int]) -> None:
        self.harness = harness
        self.pace = RateLimiters(*pace)
        self.requests = RateLimiters(*pace)
        self.event_texts = EventTexts()
        self.moderators: set[str] = set()
        self.hide_rooms = False
        self.numbers = count(1)
        self.keepalive = Timers()
        self.jump = 0.0
        self.forbidden = ForbiddenCommands(self.keepalive.add)
        self.expiry = Timers(self.time_of_day, longest=EXPIRY_CHECK_SECONDS)
        self._nursery = nursery

    def services(
        self, limits: Limits = LIMITS, renew: Callable[[Peer, str, str], Identity | None] = lambda *_: None
    ) -> Services:
        """What a connection of this house shares with all others."""
        return Services(
            broker=self.harness.broker,
            engine=self.harness.engine,
            limits=limits,
            pace=self.pace,
            requests=self.requests,
            event_texts=self.event_texts,
            keepalive=self.keepalive,
            expiry=self.expiry,
            renew=renew,
            moderates=lambda _room, username: username in self.moderators,
            hide_rooms=self.hide_rooms,
            forbidden=self.forbidden,
        )

    def time_of_day(self) -> float:
        """It goes with the clock of the test, until that makes it jump."""
        return MIDNIGHT + trio.current_time() + self.jump

    async def call(
        self,
        username: str = "alice",
        *,
        room: str = "r",
        rights: Rights | None = None,
        limits: Limits = LIMITS,
        transport: MemoryTransport | None = None,
        early: bytes = b"",
        handshake: bytes = HANDSHAKE,
        subprotocol: str | None = None,
        since: int | None = None,
        epoch: str | None = None,
        renew: Callable[[Peer, str, str], Identity | None] = lambda *_: None,
        expires: int | None = None,
    ) -> Caller:
        """Connect, and wait until nothing moves any more; `early` came along with the handshake.

        `expires` is the `exp` of the token by which the client comes.
        """
        answer = await answer_handshake(handshake, subprotocol)
        caller = Caller(
            self,
            username,
            rights=rights or Rights.everything(),
            limits=limits,
            transport=transport or MemoryTransport(),
            handshake=AcceptedHandshake(room, answer, early, since, epoch),
            renew=renew,
            expires=expires,
        )
        self._nursery.start_soon(caller.run, self)
        await trio.testing.wait_all_tasks_blocked()
        return caller

    def names_in(self, room: str) -> list[str]:
        """Who is in a room, as the broker sees it."""
        found = self.harness.rooms.get(room)
        return [] if found is None else list(found.roster.names)


@asynccontextmanager
async def open_house(*, pace: tuple[float, int] = (0, 1), **options: Any) -> AsyncIterator[House]:
    """A house at work."""
    async with open_broker(**options) as harness, trio.open_nursery() as nursery:
        house = House(harness, nursery, pace)
        nursery.start_soon(house.keepalive.run)
        nursery.start_soon(house.expiry.run)
        yield house
        nursery.cancel_scope.cancel()
