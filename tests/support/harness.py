"""A broker at work in memory, and fake members whose sockets the test opens and shuts at will."""

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from chatroom.auth.rights import Rights
from chatroom.connections.ending import End, Ending
from chatroom.connections.outgoing import Outgoing
from chatroom.connections.services import ForbiddenCommands, Services
from chatroom.connections.timers import Timers
from chatroom.core.errors import Disconnect
from chatroom.core.limits import Limits
from chatroom.core.messages import Act
from chatroom.core.pace import RateLimiters
from chatroom.engines.engine import Engine
from chatroom.engines.memory import MemoryEngine
from chatroom.protocol.eventtext import EventTexts
from chatroom.rooms.broadcast import Broadcast, RoomEvent
from chatroom.rooms.broker import Broker
from chatroom.rooms.entries import Enter, MemberDraft, MembersRequest, TypingUpdate
from chatroom.rooms.fanout import FEW, GIVE_WAY, Fanout
from chatroom.rooms.room import Subscription
from chatroom.rooms.rooms import Rooms
from chatroom.websocket.framing import Pieces
from chatroom.websocket.outbound import Outbound
from tests.support.memory_transport import MemoryTransport

PLENTY = 1 << 40
TELLING = 12e-6
"""Seconds that an offer takes, by the clock of a harness's fan-out."""


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The payloads of the whole unmasked text frames in `data`, and what is left of it."""
    payloads = []
    while len(data) >= 2:
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4]), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10]), 10
        if len(data) < at + size or at > len(data):
            break
        if data[0] == 0x81:
            payloads.append(data[at : at + size])
        data = data[at + size :]
    return payloads, data


def broadcast_of(*frames: RoomEvent | bytes, after: int = 0) -> Broadcast:
    """Frames in their order; those of stored messages are bytes."""
    broadcast = Broadcast(after)
    for frame in frames:
        if isinstance(frame, RoomEvent):
            broadcast.add(frame)
        else:
            broadcast.frames.append(frame)
    return broadcast


class NoJoinReply:
    """The join reply of a subscription that a test takes as begun."""

    first = 0

    def begin(self, subscription: Subscription) -> None: ...

    def give(self, subscription: Subscription) -> Pieces:
        return (b"",)


class FakeMember:
    """A member with a real way out, on a connection in memory."""

    def __init__(
        self, harness: "BrokerHarness", username: str, room: int = PLENTY, *, tls: bool = False
    ) -> None:
        self.harness = harness
        self.username = username
        self.transport = MemoryTransport(room=room, tls=tls)
        self.end = End(self._on_end)
        self.outbound = Outbound(self.transport, self._on_pending)
        self.outgoing = Outgoing(username, self.outbound, self.end, harness.services)
        self.outgoing.offer = self._offer
        self.member = self.outgoing.member
        self.member.rights = Rights.everything()
        self.patience: float | None = None

    def _offer(self, data: bytes, ends: Sequence[int]) -> int:
        self.harness.offers += 1
        return self.outbound.offer(data, ends)

    def _on_pending(self) -> None:
        self.outgoing.wake()

    def _on_end(self, _ending: Ending) -> None:
        if self.patience is not None:
            self.outgoing.interrupt(self.patience)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event that has reached the fake member whole."""
        return [json.loads(payload) for payload in split_frames(bytes(self.transport.taken))[0]]

    def named(self, event: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [each for each in self.events if each["event"] == event]

    @property
    def ids(self) -> list[int]:
        """The ids of all messages that have come, in the order they came."""
        return [each["id"] for each in self.named("message")]

    async def enter(self, room: str, since: int | None = None, epoch: str | None = None) -> None:
        await self.harness.broker.submit(Enter(self.member, room, since, epoch))

    async def switch(
        self, room: str, since: int | None = None, epoch: str | None = None, cid: str | None = None
    ) -> None:
        await self.harness.broker.submit(Enter(self.member, room, since, epoch, cid, switch=True))

    async def say(self, text: str, cid: str | None = None) -> None:
        self.member.outstanding += 1
        await self.harness.broker.submit(MemberDraft(self.member, text, cid))

    async def change(self, act: Act, text: str = "", cid: str | None = None) -> None:
        self.member.outstanding += 1
        await self.harness.broker.submit(MemberDraft(self.member, text, cid, act))

    async def follow(self, *rooms: str, cid: str | None = None) -> None:
        await self.harness.broker.follow(self.member, rooms, cid)

    async def type(self, active: bool, cid: str | None = None) -> None:
        await self.harness.broker.submit(TypingUpdate(self.member, active, cid))

    async def request_members(self, cid: str) -> None:
        await self.harness.broker.submit(MembersRequest(self.member, cid))

    def leave(self) -> None:
        self.harness.broker.depart(self.member)

    async def write(self) -> None:
        try:
            await self.outgoing.write()
        except Disconnect as why:
            self.end.disconnect(why)
            self.leave()


class BrokerHarness:
    """An engine, rooms and a broker; and a nursery of the test's for the fake members' writers."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        engine: Engine | None = None,
        ring_bytes: int = 1 << 20,
        history: int = 50,
        give_way: int = GIVE_WAY,
        few: int = FEW,
    ) -> None:
        numbers = count(1)
        self.now_ms = 1_764_000_000_000
        self.engine = engine or MemoryEngine(lambda: f"epoch{next(numbers)}", now_ms=lambda: self.now_ms)
        self.rooms = Rooms(
            self.engine, history=history, ring_bytes=ring_bytes, limits=Limits(), now_ms=lambda: self.now_ms
        )
        self.commits: list[float] = []
        self.offers = 0
        self.broker = Broker(
            self.engine,
            self.rooms,
            fanout=Fanout(give_way, few, clock=lambda: self.offers * TELLING),
            now_ms=lambda: self.now_ms,
            observe_commit=self.commits.append,
        )
        self.services = Services(
            broker=self.broker,
            engine=self.engine,
            limits=Limits(),
            pace=RateLimiters(0, 1),
            requests=RateLimiters(0, 1),
            event_texts=EventTexts(),
            keepalive=Timers(),
            expiry=Timers(),
            renew=lambda *_: None,
            moderates=lambda *_: False,
            hide_rooms=False,
            forbidden=ForbiddenCommands(lambda _: None),
        )
        self._nursery = nursery

    def fake_member(self, username: str, room: int = PLENTY, *, tls: bool = False) -> FakeMember:
        """A new fake member, whose writer runs; it has not entered any room."""
        fake = FakeMember(self, username, room, tls=tls)
        self._nursery.start_soon(fake.write)
        return fake

    async def settle(self) -> None:
        """Wait until nothing moves any more, and nothing waits for its time. Needs a clock that jumps."""
        await trio.testing.wait_all_tasks_blocked()
        while (due := self.rooms.due) < math.inf:
            await trio.sleep_until(due)
            await trio.testing.wait_all_tasks_blocked()


async def arrive(harness: BrokerHarness, *names: str, room: str = "r") -> list[FakeMember]:
    """Fake members who come one after the other, each when nothing moves any more."""
    fakes = [harness.fake_member(name) for name in names]
    for fake in fakes:
        await fake.enter(room)
        await harness.settle()
    return fakes


@asynccontextmanager
async def open_broker(**options: Any) -> AsyncIterator[BrokerHarness]:
    """A harness with its broker running."""
    async with trio.open_nursery() as nursery:
        harness = BrokerHarness(nursery, **options)
        nursery.start_soon(harness.broker.run)
        yield harness
        nursery.cancel_scope.cancel()
