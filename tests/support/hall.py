"""A broker at work in memory, and guests whose sockets the test opens and shuts at will."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from chatroom.adapters.engine import Engine
from chatroom.adapters.memory import MemoryEngine
from chatroom.adapters.wire import Wire
from chatroom.tasks.broker import Broker
from chatroom.tasks.committer import AskMembers, Enter, Say, Type
from chatroom.tasks.ending import End
from chatroom.tasks.fanout import Fanout
from chatroom.tasks.outlet import ConnectionOutlet
from chatroom.tasks.programme import Programme
from chatroom.tasks.rooms import Rooms
from chatroom.tasks.stay import Member
from chatroom.tasks.writer import Writer
from chatroom.values.errors import Disconnect
from chatroom.values.limits import Limits
from tests.support.memory_transport import MemoryTransport

PLENTY = 1 << 40


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


class Guest:
    """A member with a real outlet, programme and writer, on a connection in memory."""

    def __init__(self, hall: "Hall", username: str, room: int = PLENTY, *, direct: bool = True) -> None:
        self.hall = hall
        self.username = username
        self.transport = MemoryTransport(room=room, direct=direct)
        self.end = End()
        self.outlet = ConnectionOutlet(self.end)
        self.wire = Wire(
            self.transport,
            Limits(send_timeout=1e6),
            initial=b"",
            on_pending=self.outlet.wake,
            on_fault=self.end.disconnect,
        )
        self.outlet.attach(self.wire)
        self.member = Member(username, self.outlet)
        self.programme = Programme(
            self.member,
            self.wire,
            hall.engine,
            let_go=hall.broker.let_go,
            delivered=hall.broker.fanout.count,
        )
        self.writer = Writer(self.wire, self.outlet, self.programme, self.end)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event that has reached the guest whole."""
        return [json.loads(payload) for payload in split_frames(bytes(self.transport.taken))[0]]

    def named(self, event: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [each for each in self.events if each["event"] == event]

    @property
    def ids(self) -> list[int]:
        """The ids of all messages that have come, in the order they came."""
        return [each["id"] for each in self.named("message")]

    async def enter(self, room: str, since: int | None = None, epoch: str | None = None) -> None:
        await self.hall.broker.submit(Enter(self.member, room, since, epoch))

    async def switch(
        self, room: str, since: int | None = None, epoch: str | None = None, cid: str | None = None
    ) -> None:
        await self.hall.broker.submit(Enter(self.member, room, since, epoch, cid, switch=True))

    async def say(self, text: str, cid: str | None = None) -> None:
        self.member.outstanding += 1
        await self.hall.broker.submit(Say(self.member, text, cid))

    async def type(self, active: bool, cid: str | None = None) -> None:
        await self.hall.broker.submit(Type(self.member, active, cid))

    async def ask_members(self, cid: str) -> None:
        await self.hall.broker.submit(AskMembers(self.member, cid))

    def leave(self) -> None:
        self.hall.broker.depart(self.member)

    async def write(self) -> None:
        try:
            await self.writer.write()
        except Disconnect as why:
            self.end.disconnect(why)
            self.leave()


class Hall:
    """An engine, rooms and a broker; and a nursery of the test's for the guests' writers."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        engine: Engine | None = None,
        ring_bytes: int = 1 << 20,
        history: int = 50,
        give_way: int = 256,
    ) -> None:
        numbers = count(1)
        self.engine = engine or MemoryEngine(lambda: f"epoch{next(numbers)}")
        self.rooms = Rooms(self.engine, history=history, ring_bytes=ring_bytes)
        self.commits: list[float] = []
        self.broker = Broker(
            self.engine,
            self.rooms,
            fanout=Fanout(give_way),
            now_ms=lambda: 1_764_000_000_000,
            observe_commit=self.commits.append,
        )
        self._nursery = nursery

    def guest(self, username: str, room: int = PLENTY, *, direct: bool = True) -> Guest:
        """A new guest, whose writer runs; it has not entered any room."""
        guest = Guest(self, username, room, direct=direct)
        self._nursery.start_soon(guest.write)
        return guest

    async def settle(self) -> None:
        """Wait until nothing moves any more, and nothing waits for its time. Needs a clock that jumps."""
        await trio.testing.wait_all_tasks_blocked()
        while (due := self.rooms.due) < math.inf:
            await trio.sleep_until(due)
            await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_hall(**options: Any) -> AsyncIterator[Hall]:
    """A hall with its broker running."""
    async with trio.open_nursery() as nursery:
        hall = Hall(nursery, **options)
        nursery.start_soon(hall.broker.run)
        yield hall
        nursery.cancel_scope.cancel()
