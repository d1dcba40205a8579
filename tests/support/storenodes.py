"""Nodes over one store, for tests of the engine: each with a feed that keeps all that it gets.

    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open("r")
        await one.say("r", "hello")

1. A feed shows messages as a broker does: in the order of the ids, and it reads missing ones from the log.
2. The clock is the real one, since the store has no other: `until` waits for a condition, a few seconds.
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

import trio

from chatroom.core.errors import EngineError
from chatroom.core.messages import STORED, Change, Draft, Head, Outcome, Record, Retain
from chatroom.core.stores import StoreAddress
from chatroom.engines.redis.commander import Timing
from chatroom.engines.redis.engine import RedisEngine, Times
from chatroom.rooms.sequence import Sequence as Order
from tests.support.engines import append, open_room

QUICK = Times(
    beat=0.2,
    lease=1.0,
    grace=0.5,
    linger=0.3,
    ping=0.3,
    prune=0.2,
    keep=0.2,
    look=0.2,
    timing=Timing(answer=0.5, pipeline=1.0, longest_pause=0.2),
)
PATIENT = replace(QUICK, timing=Timing())
"""For a store that has just begun and is slow, which is not to be taken for one that is away."""
SELDOM = replace(PATIENT, beat=60, lease=120, ping=60)
"""Nobody looks at the heads, nor where a busy machine keeps the subscription silent or the lease waiting."""


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for something to become true."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it has not happened"
        await trio.sleep(0.005)


class Shown:
    """A room as this node's clients see it. `first_words`: whether who said something was there by then."""

    def __init__(self, name: str, head: Head) -> None:
        self.name = name
        self.epoch = head.epoch
        self.order = Order(head.last_id)
        self.records: list[Record] = []
        self.others: dict[str, int] = {}
        self.mine: set[str] = set()
        self.told: list[tuple[str, bool]] = []
        self.first_words: dict[str, bool] = {}
        self.rosters = 0
        self.reads = 0
        self.typed: list[tuple[str, bool]] = []
        self.replaced: tuple[str, int] | None = None

    @property
    def texts(self) -> list[str]:
        return [record.text for record in self.records]

    @property
    def names(self) -> set[str]:
        return set(self.others)

    def receive(self, records: Sequence[Record]) -> None:
        for record in records:
            for shown in self.order.receive(record):
                self.records.append(shown)
                self.first_words.setdefault(shown.username, shown.username in self.others)


class Node:
    """An engine and its feed."""

    def __init__(self, engine: RedisEngine) -> None:
        self.engine = engine
        self.rooms: dict[str, Shown] = {}
        self.arrivals: list[str] = []
        self._reading: set[str] = set()
        self._tasks: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._tasks:
            await self.engine.serve(self, task_status=task_status)

    async def open(self, name: str = "r") -> Shown:
        answers, answer = trio.open_memory_channel[object](1)

        def opened(head: Head | Exception) -> None:
            if isinstance(head, Head):
                self.rooms[name] = Shown(name, head)
            answers.send_nowait(head)

        self.engine.open(name, opened)
        head = await answer.receive()
        if isinstance(head, Exception):
            raise head
        return self.rooms[name]

    def release(self, name: str = "r") -> None:
        del self.rooms[name]
        self.engine.release(name)

    async def post(self, *drafts: Draft) -> list[Outcome]:
        outcomes = await append(self.engine, drafts)
        for draft, outcome in zip(drafts, outcomes, strict=True):
            if isinstance(outcome, STORED) and draft.room in self.rooms:
                self.rooms[draft.room].receive([outcome])
                self._look(draft.room)
        return outcomes

    async def say(
        self, *texts: str, room: str = "r", cid: str | None = None, username: str = "ann"
    ) -> list[Outcome]:
        return await self.post(*[Draft(room, username, text, cid, 0) for text in texts])

    def come(self, *names: str, room: str = "r") -> None:
        self.rooms[room].mine |= set(names)
        self.engine.attend(room, names, ())

    def go(self, *names: str, room: str = "r") -> None:
        self.rooms[room].mine -= set(names)
        self.engine.attend(room, (), names)

    # The feed

    def arrived(self, room: str, epoch: str, records: Sequence[Record]) -> None:
        self.arrivals += [record.text for record in records]
        if (shown := self.rooms.get(room)) is not None and shown.epoch == epoch:
            shown.receive(records)
            self._look(room)

    def ahead(self, room: str, epoch: str, last_id: int) -> None:
        if (shown := self.rooms.get(room)) is not None:
            if shown.epoch != epoch:
                shown.replaced = (epoch, last_id)
            else:
                shown.order.expect(last_id)
                self._look(room)

    def present(self, room: str, changes: Sequence[Change], after: int) -> None:
        if (shown := self.rooms.get(room)) is not None:
            for change in changes:
                count = shown.others.get(change.username, 0)
                if not change.ours:
                    count += 1 if change.here else -1
                shown.others[change.username] = count
                if change.announced:
                    shown.told.append((change.username, change.here))
                    if not change.here:
                        del shown.others[change.username]

    def roster(self, room: str, names: Mapping[str, int], after: int) -> None:
        if (shown := self.rooms.get(room)) is not None:
            shown.others = dict(names)
            shown.rosters += 1

    def typed(self, room: str, username: str, *, active: bool) -> None:
        if (shown := self.rooms.get(room)) is not None:
            shown.typed.append((username, active))

    def shown(self, room: str) -> Head | None:
        shown = self.rooms.get(room)
        return None if shown is None else Head(shown.epoch, shown.order.head)

    def here(self, room: str) -> Collection[str]:
        shown = self.rooms.get(room)
        return () if shown is None else shown.mine

    def _look(self, room: str) -> None:
        """Read what is missing."""
        shown = self.rooms[room]
        if shown.order.gap is not None and room not in self._reading and self._tasks is not None:
            self._reading.add(room)
            self._tasks.start_soon(self._read, shown)

    async def _read(self, shown: Shown) -> None:
        while (gap := shown.order.gap) is not None and self.rooms.get(shown.name) is shown:
            after, upto = gap
            shown.reads += 1
            try:
                shown.receive(await self.engine.read(shown.name, shown.epoch, after, upto, limit=200))
            except EngineError:
                await trio.sleep(0.05)
        self._reading.discard(shown.name)


_epochs = count(1)


@asynccontextmanager
async def node(
    address: StoreAddress,
    name: str,
    *,
    prefix: str = "chat",
    times: Times = QUICK,
    retain: Retain | None = None,
    renew_epoch: bool = False,
) -> AsyncIterator[Node]:
    """A node that serves."""
    engine = RedisEngine(
        address,
        lambda: f"e{next(_epochs)}",
        prefix=prefix,
        node=name,
        incarnation=secrets.token_hex(4),
        retain=retain,
        renew_epoch=renew_epoch,
        times=times,
    )
    one = Node(engine)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        yield one
        nursery.cancel_scope.cancel()


__all__ = ["PATIENT", "QUICK", "SELDOM", "Node", "Shown", "node", "open_room", "until"]
