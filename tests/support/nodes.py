"""Several nodes on one log, in one process, with a feed as bad as the port allows.

Pushes to a node are dropped, doubled, delayed and reordered by chance. Outcomes come before or after the
pushes to other nodes. A room's log may be replaced. Only the order of presence is kept, as engines promise.
"""

import random
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from chatroom.core.errors import Replaced
from chatroom.core.messages import (
    STORED,
    Change,
    Draft,
    Head,
    Moderated,
    Outcome,
    Page,
    Record,
    RoomSummary,
    Unknown,
)
from chatroom.core.sanctions import Sanction
from chatroom.engines.engine import READ_BYTES, Engine, Feed
from tests.support.engines import Answered, Committed, append, open_room

HEADS_SECONDS = 1.0
"""Seconds between two messages to each node about the heads of logs, as an engine sends them."""


class SharedStore:
    """The store of all nodes: the logs of one engine, and the names in each room."""

    def __init__(
        self,
        engine: Engine,
        chance: random.Random,
        *,
        hostile: bool = True,
        longest: float = 1.0,
        lost: float = 0.1,
    ) -> None:
        """`longest` is how many seconds something may be late, `lost` the share of replies that get lost."""
        self.engine = engine
        self.chance = chance
        self.hostile = hostile
        self.longest = longest
        self.lost = lost
        self.nodes: list[Node] = []
        self.generations: dict[str, int] = defaultdict(int)
        self.present: dict[str, dict[str, set[Node]]] = defaultdict(lambda: defaultdict(set))
        self.lock = trio.Lock()  # one append at a time
        self.last_ids: dict[str, int] = defaultdict(int)
        self._opened: set[str] = set()

    def node(self, kind: "type[Node] | None" = None) -> "Node":
        """One node more, of this kind."""
        node = (kind or Node)(self)
        self.nodes.append(node)
        return node

    def log(self, room: str) -> str:
        """The name that the room's log has now in the engine below."""
        return f"{room}#{self.generations[room]}"

    def replace(self, room: str) -> None:
        """The room's log is lost, and another one begins."""
        self.generations[room] += 1

    async def head(self, room: str) -> Head:
        log = self.log(room)
        if log not in self._opened:
            self._opened.add(log)
            await open_room(self.engine, log)
        head = await self.engine.head(log)
        return replace(head, epoch=f"{head.epoch}.{self.generations[room]}")

    def names(self, room: str, node: "Node") -> dict[str, int]:
        """The roster as `node` is told it."""
        return {name: len(nodes - {node}) for name, nodes in self.present[room].items() if nodes}


class Node:
    """The engine of one node; see Engine."""

    durable = True
    shared = True

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._nursery: trio.Nursery | None = None
        self._feed: Feed | None = None
        self._open_rooms: set[str] = set()
        self._openings: dict[str, int] = defaultdict(int)
        self._presence: deque[Callable[[], Awaitable[None]]] = deque()
        self._pending = trio.Event()
        self.deaf = False  # nothing unasked comes at all

    async def serve(
        self, feed: Feed, /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._feed = feed
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._tell_heads)
            self._nursery.start_soon(self._tell_presence)
            task_status.started()

    def troubles(self) -> tuple[str, ...]:
        return ()

    def sizes(self) -> tuple[int, int]:
        return 0, 0

    @property
    def statistics(self) -> None:
        return None

    def open(self, room: str, opened: Answered) -> None:
        self._start(self._open, room, opened)

    async def _open(self, room: str, opened: Answered) -> None:
        head = await self._store.head(room)
        self._open_rooms.add(room)
        self._openings[room] += 1
        opened(head)
        self.feed.roster(room, self._store.names(room, self), head.last_id)

    def release(self, room: str) -> None:
        self._open_rooms.discard(room)

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        shown = {draft.room: self.feed.shown(draft.room) for draft in drafts}
        self._start(self._append, list(drafts), shown, committed)

    async def _append(self, drafts: list[Draft], shown: dict[str, Head | None], committed: Committed) -> None:
        store = self._store
        async with store.lock:
            heads = {room: await store.head(room) for room in shown}
            moved = {room for room, known in shown.items() if known and known.epoch != heads[room].epoch}
            stored = [draft for draft in drafts if draft.room not in moved]
            copies = [
                Draft(
                    *(store.log(each.room), each.username, each.text, each.cid, each.ts),
                    moderator=each.moderator,
                    act=each.act,
                )
                for each in stored
            ]
            results = iter(await append(store.engine, copies))
            outcomes: list[Outcome] = [Unknown() if each.room in moved else next(results) for each in drafts]
            between = {}
            for room, known in shown.items():
                if known and room not in moved and known.last_id < heads[room].last_id:
                    upto = heads[room].last_id
                    between[room] = await Node.read(self, room, known.epoch, known.last_id, upto, limit=200)
            for draft, outcome in zip(drafts, outcomes, strict=True):
                if isinstance(outcome, STORED):
                    store.last_ids[store.log(draft.room)] = outcome.id
            for node in store.nodes:
                node.hear(drafts, outcomes, heads, own=node is self)
        if self._chance(0.5):
            await self._delay()
        for room in moved:
            self.feed.ahead(room, heads[room].epoch, heads[room].last_id)
        if self._chance(store.lost):
            committed([Unknown() for _ in drafts])
            return
        for room, records in between.items():
            if self._chance(0.7):
                self.feed.arrived(room, heads[room].epoch, records)
        committed(outcomes)

    def hear(
        self, drafts: list[Draft], outcomes: list[Outcome], heads: dict[str, Head], *, own: bool
    ) -> None:
        """Something has been stored; tell the feed, perhaps."""
        for draft, outcome in zip(drafts, outcomes, strict=True):
            if isinstance(outcome, STORED) and draft.room in self._open_rooms:
                head = heads[draft.room]
                for _ in range(self._times()):
                    if own or self._chance(0.2):
                        self._later(partial(self.feed.ahead, draft.room, head.epoch, outcome.id))
                    else:
                        self._later(partial(self.feed.arrived, draft.room, head.epoch, [outcome]))

    async def head(self, room: str) -> Head:
        await self._delay()
        return await self._store.head(room)

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Record]:
        log, below = await self._log(room, epoch)
        return await self._store.engine.read(log, below, after, upto, limit=limit, max_bytes=max_bytes)

    async def history(
        self,
        room: str,
        epoch: str,
        *,
        before: int | None,
        after: int | None,
        upto: int,
        limit: int,
        max_bytes: int = READ_BYTES,
    ) -> Page:
        log, below = await self._log(room, epoch)
        return await self._store.engine.history(
            log, below, before=before, after=after, upto=upto, limit=limit, max_bytes=max_bytes
        )

    async def moderations(self, room: str, epoch: str, *, upto: int, limit: int) -> list[Moderated]:
        log, below = await self._log(room, epoch)
        return await self._store.engine.moderations(log, below, upto=upto, limit=limit)

    async def sanctions(self, room: str) -> tuple[Sanction, ...]:
        await self._delay()
        return await self._store.engine.sanctions(self._store.log(room))

    async def summaries(self) -> list[RoomSummary]:
        """Of the logs that the rooms have now, with their names on all nodes."""
        store, found = self._store, []
        for each in await store.engine.summaries():
            room, _, _ = each.room.rpartition("#")
            if each.room == store.log(room):
                names = sum(map(bool, store.present[room].values()))
                found.append(each._replace(room=room, members=names))
        return found

    async def _log(self, room: str, epoch: str) -> tuple[str, str]:
        """Its name below, and its epoch there. Raises Replaced."""
        head = await self._store.head(room)
        if head.epoch != epoch:
            raise Replaced
        return self._store.log(room), epoch.rpartition(".")[0]

    def first_id(self, room: str) -> int:
        return self._store.engine.first_id(self._store.log(room))

    def attend(self, room: str, came: Collection[str], went: Collection[str]) -> None:
        names = self._store.present[room]
        changes = []
        for name, here in [*((name, True) for name in came), *((name, False) for name in went)]:
            nodes = names[name]
            if (self in nodes) != here:
                (nodes.add if here else nodes.discard)(self)
                changes.append((name, here, len(nodes) == (1 if here else 0)))
        if changes:
            after = self._store.last_ids[self._store.log(room)]
            for node in self._store.nodes:
                node.hear_presence(room, changes, after, ours=node is self)

    def hear_presence(
        self, room: str, changes: list[tuple[str, bool, bool]], after: int, *, ours: bool
    ) -> None:
        if room not in self._open_rooms:
            return
        opening = self._openings[room]

        async def tell() -> None:
            if opening != self._openings[room]:
                return  # the roster that came when it was opened is newer
            if self._chance(0.2):  # lost: the whole is told instead, when that is seen
                await trio.sleep(self._store.chance.random())
                self.feed.roster(room, self._store.names(room, self), after)
            else:
                told = [Change(name, here, announced, ours) for name, here, announced in changes]
                self.feed.present(room, told, after)

        self._presence.append(tell)
        self._pending.set()

    def tell_typing(self, room: str, username: str, *, active: bool) -> None:
        for node in self._store.nodes:
            if node is not self and room in node._open_rooms:
                node._later(partial(node.feed.typed, room, username, active=active))

    @property
    def feed(self) -> Feed:
        assert self._feed is not None, "serve has started"
        return self._feed

    def _start(self, run: Callable[..., Awaitable[None]], *args: Any) -> None:
        assert self._nursery is not None, "serve has started"
        self._nursery.start_soon(run, *args)

    async def _tell_heads(self) -> None:
        while True:
            await trio.sleep(HEADS_SECONDS)
            for room in sorted(self._open_rooms):
                head = await self._store.head(room)
                self.feed.ahead(room, head.epoch, head.last_id)

    async def _tell_presence(self) -> None:
        while True:
            while self._presence:
                await self._delay()
                await self._presence.popleft()()
            self._pending = trio.Event()
            await self._pending.wait()

    def _chance(self, share: float) -> bool:
        return self._store.hostile and self._store.chance.random() < share

    def _times(self) -> int:
        """How often something comes: mostly once."""
        if self.deaf:
            return 0
        return self._store.chance.choice((0, 1, 1, 1, 2)) if self._store.hostile else 1

    def _later(self, call: Callable[[], None]) -> None:
        async def task() -> None:
            await self._delay()
            call()

        self._start(task)

    async def _delay(self) -> None:
        if self._store.longest and self._chance(0.6):
            await trio.sleep(self._store.longest * self._store.chance.random() ** 4)
        else:
            await trio.lowlevel.checkpoint()
