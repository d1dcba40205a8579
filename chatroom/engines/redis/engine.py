"""The engine for several nodes: an Engine on one store of Valkey or Redis that all of them use.

Owns: the parts of the engine, put together while it serves, and the work of each beat.

1. The log is the queue, and a push is a hint: `storeevents` gives pushes out, `heads` finds those that were
   lost and logs that were replaced, `log` appends and reads.
2. A node lives while it renews its lease (`nodelease`); rooms are opened and given up by `opening`, and
   `presence` knows who is in them.
3. Every call ends within the times of `Times`, whatever the store does.
4. Only tasks of their own wait for the store; the threads belong to the shards.

Doesn't know: members, frames, and how a room is shown.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import trio

from chatroom.core.errors import StartError, Unavailable
from chatroom.core.messages import Draft, Head, Moderated, Outcome, Page, Record, Retain, RoomSummary
from chatroom.core.sanctions import Sanction
from chatroom.core.stores import StoreAddress, StoreStatistics
from chatroom.engines.engine import READ_BYTES, Feed
from chatroom.engines.redis import library
from chatroom.engines.redis.commander import Timing
from chatroom.engines.redis.copying import renew_rooms
from chatroom.engines.redis.heads import HeadCheck
from chatroom.engines.redis.library import Command, RoomKeys, context_of
from chatroom.engines.redis.log import StoreLog
from chatroom.engines.redis.nodelease import NodeLease
from chatroom.engines.redis.opening import RoomOpener
from chatroom.engines.redis.presence import PresenceTracker
from chatroom.engines.redis.pushes import typing
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import Opened, SharedRoom, SharedRooms
from chatroom.engines.redis.storeevents import StoreEvents
from chatroom.engines.redis.summaries import read_summaries
from chatroom.engines.redis.sweeper import Sweeper

TICK = 0.5
"""Seconds between two looks at what is to be tried again."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `patience`: for an answer of the store, and `append`, for one to an append: a bit less than
    the port promises; `beat`: between two renewals of the lease and looks at the heads; `lease`: how long a
    node lives without a renewal, and `grace`, after its stop; `linger`: how long an unused room is listened
    to; `ping`: after so long a silence the subscriber sends a ping; `prune`: between two searches for old
    messages; `keep`: between two renewals of rooms without messages, which live for an hour without;
    `look`: between two looks at the settings of the store."""

    patience: float = 2.7
    append: float = 1.8
    beat: float = 5.0
    lease: float = 20.0
    grace: float = 10.0
    linger: float = 30.0
    ping: float = 3.0
    prune: float = 60.0
    keep: float = 900.0
    look: float = 30.0
    close: float = 1.5
    timing: Timing = field(default_factory=Timing)


class RedisEngine:
    """An Engine whose store others write to as well."""

    durable = True
    shared = True

    def __init__(
        self,
        address: StoreAddress,
        new_epoch: Callable[[], str],
        *,
        prefix: str,
        node: str,
        incarnation: str,
        version: str = "",
        retain: Retain | None = None,
        renew_epoch: bool = False,
        observe: Callable[[float], None] = lambda _seconds: None,
        times: Times | None = None,
    ) -> None:
        """`prefix` begins all keys, and holds no brace. `node` and `incarnation` name this process, once and
        for all.

        `version` is told to the other nodes. `observe` is told how long each round trip took, in seconds.
        """
        assert "{" not in prefix, "the prefix holds a brace"
        self._address = address
        self._new_epoch = new_epoch
        self._prefix = prefix
        self._node = f"{quote(node, safe='')}#{incarnation}"
        self._version = version
        self._retain = retain or Retain()
        self._renew_epoch = renew_epoch
        self._observe = observe
        self._times = times or Times()
        self._built: _Parts | None = None

    # Serving

    async def serve(
        self, feed: Feed, /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See Engine. At the end names stay for a grace, so that a person who comes back on another node was
        never away."""
        times = self._times
        self._built = parts = self._build(feed)
        if self._renew_epoch:
            await trio.to_thread.run_sync(
                renew_rooms, self._address, self._prefix, self._new_epoch, abandon_on_cancel=True
            )
        refused: StartError | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await self._begin(nursery, parts)
                except StartError as error:
                    refused = error  # raised alone, not in the nursery's group
                    nursery.cancel_scope.cancel()
                else:
                    parts.events.begin()
                    await nursery.start(parts.opener.run)
                    nursery.start_soon(self._beat, parts)
                    nursery.start_soon(self._retry, parts)
                    if not self._retain.everything:
                        nursery.start_soon(self._sweeper(parts).run)
                    task_status.started()
        finally:
            parts.events.end()
            with trio.move_on_after(times.close, shield=True):
                await parts.store.close(partial(parts.lease.leave, times.grace, patience=times.close))
        if refused is not None:
            raise refused

    def _build(self, feed: Feed) -> "_Parts":
        def missing(room: SharedRoom) -> None:  # presence and the parts that these three use need each other
            heads.renew(room, room.epoch)

        def replaced(room: SharedRoom, epoch: str, last: int) -> None:
            heads.found_replaced(room, epoch, last)

        def lives() -> bool:
            return lease.lives

        times = self._times
        store = Shards(
            self._address,
            node=self._node,
            timing=times.timing,
            ping=times.ping,
            observe=self._observe,
        )
        rooms = SharedRooms()
        presence = PresenceTracker(
            self._node,
            feed,
            partial(_ask, store, times.patience),
            missing=missing,
            replaced=replaced,
            lives=lives,
        )
        heads = HeadCheck(store, feed, presence, self._new_epoch, patience=times.patience)
        lease = NodeLease(
            store,
            rooms,
            presence,
            prefix=self._prefix,
            node=self._node,
            version=self._version,
            life=times.lease,
            beat=times.beat,
            patience=times.patience,
        )
        log = StoreLog(store, feed, rooms, heads, append_patience=times.append, patience=times.patience)
        events = StoreEvents(store, feed, rooms, presence=presence, lease=lease, heads=heads, log=log)
        opener = RoomOpener(
            store,
            rooms,
            presence,
            lease,
            prefix=self._prefix,
            node=self._node,
            context=self._context,
            new_epoch=self._new_epoch,
            give_out=events.give_out,
            patience=times.patience,
            linger=times.linger,
        )
        return _Parts(store, feed, rooms, presence, lease, heads, log, events, opener)

    async def _begin(self, nursery: trio.Nursery, parts: "_Parts") -> None:
        """Reach the store, or raise StartError."""
        store, lease = parts.store, parts.lease
        try:
            await nursery.start(store.run, parts.events)
            await lease.read()
            # a user may have rights to keys and none to channels: publish nothing, to try
            await store.call(lease.slot, store.publish(lease.key, ""), patience=self._times.patience)
        except StartError as error:
            raise StartError(f"{self._address.shown}: {error}") from None
        except Unavailable as error:
            if store.of(lease.slot).down is None:  # else it is one of several servers; others have rooms
                raise StartError(f"{self._address.shown}: {error}") from None
        store.begin()
        store.probe()
        parts.events.looked_at()

    def _context(self, keys: RoomKeys) -> str:
        return context_of(
            keys,
            self._node,
            sharded=self._parts.store.sharded,
            keep=self._retain.count,
            keep_seconds=self._retain.seconds,
        )

    @property
    def _parts(self) -> "_Parts":
        assert self._built is not None, "serve has started"
        return self._built

    # How it stands

    def troubles(self) -> tuple[str, ...]:
        """See Engine."""
        trouble = None if self._built is None else self._built.store.trouble
        return () if trouble is None else (trouble,)

    def sizes(self) -> tuple[int, int]:
        """See Engine. The disk is the store's own."""
        return 0, 0

    @property
    def statistics(self) -> StoreStatistics:
        """The figures of the store and of this node; see StoreStatistics."""
        parts = self._parts
        shards = parts.store.all
        return StoreStatistics(
            commands=sum(shard.under_way for shard in shards),
            reconnects_total=sum(shard.reconnects for shard in shards),
            gaps_total=parts.heads.gaps,
            foreign_messages_total=parts.log.foreign + parts.events.foreign,
            lease_age=parts.lease.age,
            silence=max((shard.silence for shard in shards), default=0.0),
            nodes=1 + len(parts.lease.others),
        )

    # Rooms and their logs

    def open(self, room: str, opened: Opened) -> None:
        """See Engine."""
        self._parts.opener.open(room, opened)

    def release(self, room: str) -> None:
        """See Engine."""
        self._parts.opener.release(room)

    def append(self, drafts: Sequence[Draft], committed: Callable[[list[Outcome] | Exception], None]) -> None:
        """See Engine."""
        self._parts.log.append(drafts, committed)

    async def head(self, room: str) -> Head:
        """See Engine."""
        return await self._parts.log.head(room)

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Record]:
        """See Engine."""
        return await self._parts.log.read(room, epoch, after, upto, limit=limit, max_bytes=max_bytes)

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
        """See Engine."""
        return await self._parts.log.history(
            room, epoch, before=before, after=after, upto=upto, limit=limit, max_bytes=max_bytes
        )

    async def moderations(self, room: str, epoch: str, *, upto: int, limit: int) -> list[Moderated]:
        """See Engine."""
        return await self._parts.log.moderations(room, epoch, upto=upto, limit=limit)

    async def sanctions(self, room: str) -> tuple[Sanction, ...]:
        """See Engine."""
        return await self._parts.log.sanctions(RoomKeys.of(self._prefix, room))

    async def summaries(self) -> list[RoomSummary]:
        """See Engine."""
        return await read_summaries(self._parts.store, self._prefix, patience=self._times.patience)

    def first_id(self, room: str) -> int:
        """See Engine."""
        known = self._parts.rooms.by_name.get(room)
        return 1 if known is None else known.first

    # Presence and typing

    def attend(self, room: str, came: Collection[str], went: Collection[str]) -> None:
        """See Engine."""
        parts = self._parts
        parts.presence.attend(parts.rooms.by_name[room], came, went)

    def tell_typing(self, room: str, username: str, *, active: bool) -> None:
        """See Engine."""
        parts = self._parts
        if (known := parts.rooms.by_name.get(room)) is not None:
            push = typing(self._node, known.epoch, username, active=active)
            parts.store.send_and_forget(known.keys.slot, parts.store.publish(known.keys.channel, push))

    # Again and again

    async def _beat(self, parts: "_Parts") -> None:
        pruned = kept = looked = trio.current_time()
        while True:
            await trio.sleep(self._times.beat)
            parts.store.probe()
            parts.lease.renew()
            parts.heads.look_in_turn(parts.rooms.used)
            parts.opener.give_up_idle()
            if self._retain.seconds is not None and trio.current_time() >= pruned + self._times.prune:
                pruned = trio.current_time()
                for room in parts.rooms.used:
                    self._prune(room)
            if trio.current_time() >= looked + self._times.look:
                looked = trio.current_time()
                parts.store.look_again()
            if trio.current_time() >= kept + self._times.keep:
                kept = trio.current_time()
                self._keep(parts)

    @staticmethod
    def _keep(parts: "_Parts") -> None:
        """Keep the rooms without messages that are used here. The store removes others after an hour, so a
        node that has died leaves none behind."""
        for room in parts.rooms.used:
            shown = parts.feed.shown(room.name)
            if shown is not None and shown.last_id == 0:
                parts.store.send_and_forget(room.keys.slot, library.keep(room.keys))

    async def _retry(self, parts: "_Parts") -> None:
        while True:
            await trio.sleep(TICK)
            parts.presence.retry()
            parts.store.probe(troubled=True)

    def _prune(self, room: SharedRoom) -> None:
        command = library.prune(room.keys, room.context)
        self._parts.store.submit(
            room.keys.slot, command, partial(self._pruned, room), patience=self._times.patience, retry=True
        )

    def _pruned(self, room: SharedRoom, reply: Any) -> None:
        match reply:
            case ["ok", first, more]:
                room.trimmed(first)
                if more and room.used:
                    self._prune(room)

    def _sweeper(self, parts: "_Parts") -> Sweeper:
        def pruned(name: str, first: int) -> None:
            if (room := parts.rooms.by_name.get(name)) is not None:
                room.trimmed(first)

        return Sweeper(
            parts.store,
            self._prefix,
            lambda keys: library.prune(keys, self._context(keys)),
            leads=lambda: parts.lease.leads,
            pruned=pruned,
            every=self._times.prune,
            patience=self._times.patience,
        )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the engine is made of while it serves."""

    store: Shards
    feed: Feed
    rooms: SharedRooms
    presence: PresenceTracker
    lease: NodeLease
    heads: HeadCheck
    log: StoreLog
    events: StoreEvents
    opener: RoomOpener


def _ask(
    store: Shards, patience: float, room: SharedRoom, command: Command, answered: Callable[[Any], None]
) -> None:
    store.submit(
        room.keys.slot,
        command,
        answered,
        patience=patience,
        retry=True,
        urgent=True,  # as appends are: a person comes in before their first message
    )
