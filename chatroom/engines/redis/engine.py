"""The engine for several nodes: an Engine on one store of Valkey or Redis that all of them use.

1. The log is the queue, whatever is pushed is a hint. A room is subscribed to before its head is read; and
   every few seconds, and after each gap of the subscription, the heads of all rooms are read; in a Cluster
   a quarter of them each time, but after a gap all.
2. Each append says what was shown of the room: (epoch, last id). Where the store has less, or nothing, its
   log was replaced: the room gets a new epoch, by one node, and all hear of it.
3. Every call ends within the times of `Times`, whatever the store does; what an append has done may be
   unknown then.
4. A node lives while it renews its lease. See `pure.leases` for who may say that another one is dead.
5. Nothing here waits for the store but tasks of their own; the threads are the shards'.
"""

import logging
import platform
import time
import unicodedata
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import trio

from chatroom.core.errors import Replaced, StartError, Trimmed, Unavailable
from chatroom.core.logevents import log_event
from chatroom.core.messages import (
    Conflict,
    Draft,
    Duplicate,
    Failed,
    Head,
    Message,
    Outcome,
    Page,
    Retain,
    Unknown,
)
from chatroom.core.stores import StoreAddress, StoreStatistics
from chatroom.engines.engine import READ_BYTES, Feed
from chatroom.engines.redis import library
from chatroom.engines.redis.attendance import Attendance
from chatroom.engines.redis.commander import HEAVY, Pace
from chatroom.engines.redis.copying import renew_rooms
from chatroom.engines.redis.leases import Leases
from chatroom.engines.redis.library import Command, RoomKeys, context_of, slot_of
from chatroom.engines.redis.pushes import Own, Presence, Push, Stored, Typing, Versions, messages_of, typing
from chatroom.engines.redis.shard import Pushes, Shard
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import Opened, SharedRoom
from chatroom.engines.redis.sweeper import Sweeper

HEADS = 200
"""So many rooms' heads are read by one command."""
TURNS = 4
"""In a Cluster, after so many beats all rooms' heads have been read."""
MOST_IDLE = 1000
"""So many rooms that nobody uses are listened to at most: whoever switches on and on uses very many."""
TICK = 0.5
"""Seconds between two looks at what is to be tried again."""
UNREAD = "the store's log was replaced"
MOST_REFUSALS = 100


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `patience`: for all that is asked, and `append`, for appends: a bit less than is promised;
    `beat`: between two renewals of the lease and looks at the heads; `lease`: how long a node lives without
    one; `grace`: how long one that stops does; `linger`: how long a room that nobody uses is listened to;
    `ping`: after so long a silence the subscription is tried; `prune`: between two looks for what is too
    old; `keep`: between two words that rooms are used in which nothing was said, which live for an hour
    without; `look`: between two looks at how the store is set up."""

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
    pace: Pace = field(default_factory=Pace)


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
        self._line = f"{self._node} {platform.python_version()} {unicodedata.unidata_version} {version}"
        self._nodes = f"{prefix}:nodes"
        self._nodes_slot = slot_of(self._nodes)
        self._retain = retain or Retain()
        self._renew_epoch = renew_epoch
        self._observe = observe
        self._times = times or Times()
        self._rooms: dict[str, SharedRoom] = {}
        self._idle: dict[SharedRoom, None] = {}  # rooms that nobody uses
        self._by_channel: dict[bytes, SharedRoom] = {}
        self._shards: Shards | None = None
        self._feed: Feed | None = None
        self._presence: Attendance | None = None
        self._tasks: trio.Nursery | None = None
        self._leases = Leases(self._node, self._times.lease, 2 * self._times.beat)
        self._leased_at = time.monotonic()
        self._met: dict[str, str] = {}
        self._doubts: list[str] = []
        self._turn = 0
        self._gaps = 0
        self._foreign = 0
        self._refusals: set[str] = set()

    # Serving

    async def serve(
        self, feed: Feed, /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See Engine. At the end names stay for a grace, so that whoever comes back on another node was never
        away."""
        times = self._times
        self._feed = feed
        self._presence = Attendance(
            self._node,
            feed,
            self._ask,
            missing=self._missing,
            replaced=self._found_replaced,
            lives=self._lives,
        )
        self._shards = shards = Shards(
            self._address,
            self,
            node=self._node,
            pace=times.pace,
            ping=times.ping,
            observe=self._observe,
        )
        if self._renew_epoch:
            await trio.to_thread.run_sync(
                renew_rooms, self._address, self._prefix, self._new_epoch, abandon_on_cancel=True
            )
        refused: StartError | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await self._begin(nursery, shards)
                except StartError as error:
                    refused = error  # raised alone, not in the nursery's group
                    nursery.cancel_scope.cancel()
                else:
                    self._tasks = nursery
                    nursery.start_soon(self._beat)
                    nursery.start_soon(self._retry)
                    if not self._retain.everything:
                        nursery.start_soon(self._sweeper(shards).run)
                    task_status.started()
        finally:
            self._tasks = None
            with trio.move_on_after(times.close, shield=True):
                await shards.close(self._take_leave)
        if refused is not None:
            raise refused

    async def _begin(self, nursery: trio.Nursery, shards: Shards) -> None:
        """Reach the store, or raise StartError."""
        try:
            await nursery.start(shards.run)
            await self._read_leases()
            await self._prove_publishing()
        except StartError as error:
            raise StartError(f"{self._address.shown}: {error}") from None
        except Unavailable as error:
            if shards.of(self._nodes_slot).down is None:  # else it is one of several, and others have rooms
                raise StartError(f"{self._address.shown}: {error}") from None
        shards.begin()
        self._store.probe()
        self._tell_doubts()

    def _take_leave(self) -> None:
        """Live for the grace alone."""
        if self._shards is not None and self._shards.all:
            self._store.submit(
                self._nodes_slot,
                self._lease(self._times.grace),
                _ignore,
                patience=self._times.close,
                again=False,
            )

    async def _read_leases(self) -> None:
        """Take the lease, and see who lives. Raises Unavailable."""
        command = self._lease(self._times.lease)
        self._leased(
            frozenset(), await self._store.call(self._nodes_slot, command, patience=self._times.patience)
        )

    async def _prove_publishing(self) -> None:
        """Say nothing to nobody: a user's rights to channels are others than to keys. Raises Unavailable."""
        command = self._publish(f"{self._prefix}:nodes", "")
        await self._store.call(self._nodes_slot, command, patience=self._times.patience)

    def _publish(self, channel: str, push: str | bytes) -> Command:
        return ("SPUBLISH" if self._store.sharded else "PUBLISH", channel, push)

    def _tell_doubts(self) -> None:
        """Warn of what may lose acknowledged messages."""
        doubts = self._store.doubts
        for doubt in doubts:
            if doubt not in self._doubts:
                log_event(logging.WARNING, "store_unsafe", reason=doubt)
        self._doubts = doubts

    def troubles(self) -> tuple[str, ...]:
        """See Engine."""
        trouble = None if self._shards is None else self._shards.trouble
        return () if trouble is None else (trouble,)

    def sizes(self) -> tuple[int, int]:
        """See Engine. What is on the disk is the store's own affair."""
        return 0, 0

    @property
    def statistics(self) -> StoreStatistics:
        """How it stands with the store."""
        shards = self._store.all
        return StoreStatistics(
            commands=sum(shard.under_way for shard in shards),
            reconnects_total=sum(shard.reconnects for shard in shards),
            gaps_total=self._gaps,
            foreign_messages_total=self._foreign,
            lease_age=time.monotonic() - self._leased_at,
            silence=max((shard.silence for shard in shards), default=0.0),
            nodes=1 + len(self._leases.others),
        )

    @property
    def _store(self) -> Shards:
        assert self._shards is not None, "serve has started"
        return self._shards

    @property
    def _hearer(self) -> Feed:
        assert self._feed is not None, "serve has started"
        return self._feed

    @property
    def _attendance(self) -> Attendance:
        assert self._presence is not None, "serve has started"
        return self._presence

    # Opening and releasing

    def open(self, room: str, opened: Opened) -> None:
        """See Engine."""
        if self._tasks is None:
            opened(Unavailable("the store is closed"))
            return
        if (known := self._rooms.get(room)) is None:
            keys = RoomKeys.of(self._prefix, room)
            known = self._rooms[room] = SharedRoom(room, keys, self._context(keys))
            self._by_channel[keys.channel.encode()] = known
            self._store.subscribe(keys.slot, keys.channel)
        self._idle.pop(known, None)
        known.used = True
        known.held = []
        self._tasks.start_soon(self._open_room, known, opened)

    def _context(self, keys: RoomKeys) -> str:
        return context_of(
            keys,
            self._node,
            sharded=self._store.sharded,
            keep=self._retain.count,
            keep_seconds=self._retain.seconds,
        )

    async def _open_room(self, room: SharedRoom, opened: Opened) -> None:
        """The task of one room's opening."""
        answer: Any = Unavailable("the store does not answer")
        with trio.move_on_after(self._times.patience):
            try:
                await room.confirmed.wait()
                answer = await self._find(room)
            except Unavailable as error:
                answer = error
        held, room.held = room.held or (), None
        if isinstance(answer, Exception):
            self.release(room.name)
            opened(answer)
            return
        _, epoch, last, first, version, who = answer
        room.epoch, room.last, room.first, room.own_tip = epoch, last, first, None
        room.marks = {}
        room.versions = Versions(epoch, version)
        opened(Head(epoch, last))
        self._attendance.relist(room, epoch, last, version, who)
        for push in held:
            self._take(room, push)

    async def _find(self, room: SharedRoom) -> Any:
        """Where the room stands and who is there, without the dead as far as that may be judged."""
        patience = self._times.patience
        command = library.open_room(room.keys, self._new_epoch())
        found = await self._store.call(room.keys.slot, command, patience=patience, weight=HEAVY)
        if found[0] == "copying":
            raise Unavailable("the room is being copied into the store")
        strangers = {node for node, names in found[5].items() if names} - self._leases.others.keys()
        strangers.discard(self._node)
        if strangers:
            with suppress(Unavailable):  # they are judged later
                await self._read_leases()
            if dead := self._leases.dead(strangers):
                await self._store.call(
                    room.keys.slot, library.reap(room.keys, room.context, dead), patience=patience
                )
                found = await self._store.call(room.keys.slot, command, patience=patience)
        return found

    def release(self, room: str) -> None:
        """See Engine."""
        known = self._rooms[room]
        known.used = False
        known.idle_since = trio.current_time()
        self._idle[known] = None
        if len(self._idle) > MOST_IDLE:
            self._let_go()

    def _let_go(self) -> None:
        """Give up rooms that nobody has used for a while, or too many."""
        now = trio.current_time()
        too_many = len(self._idle) - MOST_IDLE
        for room in list(self._idle):  # the longest idle come first
            if too_many <= 0 and now < room.idle_since + self._times.linger:
                break
            if not room.unsaid:
                too_many -= 1
                self._give_up(room)

    def _give_up(self, room: SharedRoom) -> None:
        del self._idle[room], self._rooms[room.name], self._by_channel[room.keys.channel.encode()]
        self._attendance.drop(room)
        self._store.unsubscribe(room.keys.channel)
        self._store.tell(room.keys.slot, library.forget(room.keys))

    def _opened(self, room: str) -> SharedRoom:
        """The room, if it is listened to. Raises Unavailable."""
        if (known := self._rooms.get(room)) is None:
            raise Unavailable("the room has been given up")
        return known

    # Appending

    def append(self, drafts: Sequence[Draft], committed: Callable[[list[Outcome] | Exception], None]) -> None:
        """See Engine."""
        if not drafts:
            committed([])
            return
        rooms: dict[str, list[int]] = {}
        for number, draft in enumerate(drafts):
            rooms.setdefault(draft.room, []).append(number)
        batch = _Batch(drafts, len(rooms), committed)
        for name, numbers in rooms.items():
            if (room := self._rooms.get(name)) is None:  # of a log that was replaced, and long ago
                batch.done(numbers, [Unknown()] * len(numbers))
                continue
            shown = self._hearer.shown(name) or Head(room.epoch, room.last)
            own = [drafts[number] for number in numbers]
            room.appending += 1
            self._store.submit(
                room.keys.slot,
                library.append(
                    *(room.keys, room.context, shown.epoch, own),
                    known=shown.last_id,
                    ts=room.marks.get(shown.last_id, 0),
                ),
                partial(self._appended, batch, room, shown, numbers),
                patience=self._times.append,
                again=False,
                urgent=True,
            )

    def _appended(
        self, batch: "_Batch", room: SharedRoom, shown: Head, numbers: list[int], reply: Any
    ) -> None:
        room.appending -= 1
        outcomes: Sequence[Outcome] = [Unknown()] * len(numbers)
        match reply:
            case ["ok", first, lines, ts, between, refused]:
                self._store.of(room.keys.slot).accepted()
                self._first(room, first)
                if refused and refused != room.refused:
                    log_event(logging.ERROR, "append_refused", room=room.name, error=str(refused)[:200])
                room.refused = refused
                own = [batch.drafts[number] for number in numbers]
                outcomes = [_outcome(line, draft, ts) for line, draft in zip(lines, own, strict=True)]
                self._tell_between(room, shown, lines, messages_of(shown.last_id + 1, between or ()))
                room.mark((outcome for outcome in outcomes if isinstance(outcome, Message)), shown)
            case ["replaced", epoch, last]:
                self._found_replaced(room, epoch, last)
            case ["behind" | "missing", *_]:
                self._renew(room, shown.epoch)
        tip, room.own_tip = room.own_tip, None
        batch.done(numbers, outcomes)
        if tip is not None:
            self._tell_own(room, *tip)

    def _tell_own(self, room: SharedRoom, epoch: str, last: int) -> None:
        """Own messages are in the log. That is news only if their outcomes are not known: a reply was lost.

        Otherwise it may come before all of its batch is answered, and they would be read from the log again.
        """
        if epoch != room.epoch or last > room.last:
            self._hearer.ahead(room.name, epoch, last)

    def _tell_between(self, room: SharedRoom, shown: Head, lines: list[Any], between: list[Message]) -> None:
        """What others have stored, or its number alone where that is much, goes before the outcomes."""
        if between:
            self._foreign += len(between)
            room.mark(between, shown)
            self._hearer.arrived(room.name, shown.epoch, between)
        ids = [abs(line) for line in lines if line]
        if ids:
            room.last = max(room.last, *ids)
            complete = shown.last_id + len(between)
            before = min((line for line in lines if line and line > 0), default=max(ids) + 1) - 1
            if before > complete:
                self._hearer.ahead(room.name, shown.epoch, before)

    # Asking the log

    async def head(self, room: str) -> Head:
        """See Engine."""
        known = self._opened(room)
        reply = await self._store.call(
            known.keys.slot, library.heads([known.keys.meta]), patience=self._times.patience
        )
        if not reply[1][0]:
            self._renew(known, known.epoch)
            raise Unavailable(UNREAD)
        epoch, last, _ = reply[1][0]
        return Head(epoch, last)

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Message]:
        """See Engine."""
        known = self._opened(room)
        command = library.read(known.keys, epoch, after, upto, limit=limit, most=max_bytes)
        match await self._store.call(known.keys.slot, command, patience=self._times.patience, weight=HEAVY):
            case ["ok", first, lines]:
                self._first(known, first)
                messages = messages_of(after + 1, lines or ())
                shown = self._hearer.shown(room)
                if shown is not None and after >= shown.last_id:  # it is about to be shown
                    known.mark(messages, shown)
                elif shown is not None and not messages and shown.epoch == epoch:  # it has been
                    self._renew(known, epoch)
                    raise Replaced(UNREAD)
                return messages
            case ["trimmed", first]:
                self._first(known, first)
                raise Trimmed(first)
            case other:
                raise self._replacement(known, epoch, other)

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
        known = self._opened(room)
        command = library.history(known.keys, epoch, before, after, upto, limit=limit, most=max_bytes)
        match await self._store.call(known.keys.slot, command, patience=self._times.patience, weight=HEAVY):
            case ["ok", first, start, lines, more]:
                self._first(known, first)
                return Page(tuple(messages_of(start, lines or ())), more=more)
            case other:
                raise self._replacement(known, epoch, other)

    def first_id(self, room: str) -> int:
        """See Engine."""
        known = self._rooms.get(room)
        return 1 if known is None else known.first

    def _first(self, room: SharedRoom, first: int) -> None:
        room.first = max(room.first, first)

    def _replacement(self, room: SharedRoom, epoch: str, reply: Any) -> Replaced:
        """The room's log is another one, or gone."""
        match reply:
            case ["replaced", other, last]:
                self._found_replaced(room, other, last)
            case _:
                self._renew(room, epoch)
        return Replaced(UNREAD)

    # Replaced logs

    def _missing(self, room: SharedRoom) -> None:
        self._renew(room, room.epoch)

    def _renew(self, room: SharedRoom, epoch: str) -> None:
        """The store has less than was shown of this epoch: it gets another one, unless another node was
        first."""
        if not room.renewing and room.used:
            room.renewing = True
            command = library.renew(room.keys, epoch, self._new_epoch())
            self._store.submit(
                room.keys.slot,
                command,
                partial(self._renewed, room),
                patience=self._times.patience,
                again=True,
            )

    def _renewed(self, room: SharedRoom, reply: Any) -> None:
        room.renewing = False
        match reply:
            case ["ok", epoch, last]:
                self._found_replaced(room, epoch, last)

    def _found_replaced(self, room: SharedRoom, epoch: str, last: int) -> None:
        """The room has another epoch than on this node: tell, and state again who is here."""
        if not room.used:
            return
        self._hearer.ahead(room.name, epoch, last)
        if room.versions.epoch != epoch:
            room.versions = Versions(epoch, 0)
            self._attendance.restate(room, reread=True)

    # Presence and typing

    def attend(self, room: str, came: Collection[str], went: Collection[str]) -> None:
        """See Engine."""
        self._attendance.attend(self._rooms[room], came, went)

    def tell_typing(self, room: str, username: str, *, active: bool) -> None:
        """See Engine."""
        if (known := self._rooms.get(room)) is not None:
            push = typing(self._node, known.epoch, username, active=active)
            self._store.tell(known.keys.slot, self._publish(known.keys.channel, push))

    def _ask(self, room: SharedRoom, command: Command, answered: Callable[[Any], None]) -> None:
        self._store.submit(
            room.keys.slot,
            command,
            answered,
            patience=self._times.patience,
            again=True,
            urgent=True,  # as appends are: whoever says something has come before
        )

    # What the store tells (see Sink)

    def subscribed(self, channels: list[bytes]) -> None:
        """See Sink."""
        rooms = [room for channel in channels if (room := self._by_channel.get(channel)) is not None]
        for room in rooms:
            room.confirmed.set()
        self._look_at_heads([room for room in rooms if room.used and room.held is None])

    def deaf(self, shard: Shard) -> None:
        """See Sink."""
        for room in self._rooms.values():
            if room.confirmed.is_set() and self._store.of(room.keys.slot) is shard:
                room.confirmed = trio.Event()

    def pushed(self, pushes: Pushes) -> None:
        """See Sink."""
        for channel, push in pushes:
            room = self._by_channel.get(channel)
            if room is not None and room.used:
                if room.held is not None:
                    room.held.append(push)
                else:
                    self._take(room, push)

    def _take(self, room: SharedRoom, push: Push) -> None:
        feed = self._hearer
        match push:
            case Typing(username, active):
                feed.typed(room.name, username, active=active)
            case _ if push.epoch != room.versions.epoch:
                self._look_at_heads([room])  # it may be the old one or the new one: the log decides
            case Stored(epoch, messages):
                self._foreign += len(messages)
                room.mark(messages, feed.shown(room.name))
                feed.arrived(room.name, epoch, messages)
            case Own(epoch, last):
                if room.appending:
                    room.own_tip = (epoch, last)  # its outcome is on the way
                else:
                    self._tell_own(room, epoch, last)
            case Presence():
                self._attendance.pushed(room, push)

    def regained(self, shard: Shard, *, restarted: bool) -> None:
        """See Sink."""
        self._refusals.clear()
        self._tell_doubts()
        self._renew_lease()  # first, so that nobody takes for dead who says again who is there
        rooms = [
            room for room in self._rooms.values() if room.used and self._store.of(room.keys.slot) is shard
        ]
        if restarted:  # it may have gone back, and have got other messages under the same ids
            for room in rooms:
                self._verify(room)
                self._attendance.restate(room, reread=True)
        else:
            self._look_at_heads(rooms)
        self._attendance.retry()

    def looked_at(self) -> None:
        """See Sink."""
        self._tell_doubts()

    def refused(self, error: Exception) -> None:
        """See Sink. Each refusal is told once; a start that fails by it says so in one line."""
        text = str(error)[:200]
        if self._tasks is not None and text not in self._refusals:
            if len(self._refusals) >= MOST_REFUSALS:
                self._refusals.clear()
            self._refusals.add(text)
            log_event(logging.ERROR, "store_refused", error=text)

    # Again and again

    async def _beat(self) -> None:
        pruned = kept = looked = trio.current_time()
        while True:
            await trio.sleep(self._times.beat)
            self._turn += 1
            self._store.probe()
            self._renew_lease()
            self._look_at_heads([room for room in self._rooms.values() if room.used and self._in_turn(room)])
            self._let_go()
            if self._retain.seconds is not None and trio.current_time() >= pruned + self._times.prune:
                pruned = trio.current_time()
                for room in [room for room in self._rooms.values() if room.used]:
                    self._prune(room)
            if trio.current_time() >= looked + self._times.look:
                looked = trio.current_time()
                self._store.look_again()
            if trio.current_time() >= kept + self._times.keep:
                kept = trio.current_time()
                self._keep()

    def _keep(self) -> None:
        """Rooms in which nothing was said go by themselves, so that none is left behind by a node that has
        died: but for those that are used here."""
        for room in self._rooms.values():
            shown = self._hearer.shown(room.name)
            if room.used and shown is not None and shown.last_id == 0:
                self._store.tell(room.keys.slot, library.keep(room.keys))

    def _in_turn(self, room: SharedRoom) -> bool:
        """Whether this beat looks at the room. In a Cluster each slot takes a command of its own."""
        return not self._store.sharded or (room.keys.slot + self._turn) % TURNS == 0

    async def _retry(self) -> None:
        while True:
            await trio.sleep(TICK)
            self._attendance.retry()
            self._store.probe(troubled=True)

    def _renew_lease(self) -> None:
        then = partial(self._leased, frozenset(self._attendance.nodes))
        self._store.submit(
            self._nodes_slot,
            self._lease(self._times.lease),
            then,
            patience=self._times.patience,
            again=True,
            urgent=True,
        )

    def _lives(self) -> bool:
        return time.monotonic() < self._leased_at + self._times.lease

    def _lease(self, seconds: float) -> Command:
        return library.lease(self._nodes, self._line, seconds)

    def _leased(self, nodes: frozenset[str], reply: Any) -> None:
        """The lease is renewed, or not. `nodes` were known in rooms before it was asked for."""
        match reply:
            case ["ok", now, held, lines]:
                self._leased_at = time.monotonic()
                if not self._leases.renewed(now, held, lines):
                    for room in self._rooms.values():
                        self._attendance.restate(room, reread=True)
                self._meet()
                self._attendance.reap(self._leases.dead(nodes))

    def _meet(self) -> None:
        """Warn once of each node whose names may be others than ours: its Unicode tables are of another
        version."""
        for node, about in self._leases.others.items():
            if self._met.get(node) != about:
                self._met[node] = about
                with suppress(ValueError):
                    _, tables, _ = about.split(" ")
                    if tables != unicodedata.unidata_version:
                        log_event(logging.WARNING, "node_differs", node=node, unicode=tables)

    def _prune(self, room: SharedRoom) -> None:
        command = library.prune(room.keys, room.context)
        self._store.submit(
            room.keys.slot, command, partial(self._pruned, room), patience=self._times.patience, again=True
        )

    def _pruned(self, room: SharedRoom, reply: Any) -> None:
        match reply:
            case ["ok", first, more]:
                self._first(room, first)
                if more and room.used:
                    self._prune(room)

    def _sweeper(self, shards: Shards) -> Sweeper:
        def pruned(name: str, first: int) -> None:
            if (room := self._rooms.get(name)) is not None:
                self._first(room, first)

        return Sweeper(
            shards,
            self._prefix,
            lambda keys: library.prune(keys, self._context(keys)),
            leads=lambda: self._leases.leads,
            pruned=pruned,
            every=self._times.prune,
            patience=self._times.patience,
        )

    def _look_at_heads(self, rooms: list[SharedRoom]) -> None:
        """Read where these rooms stand."""
        slots: dict[int, list[SharedRoom]] = {}
        for room in rooms:
            if not room.looking:
                slots.setdefault(room.keys.slot if self._store.sharded else 0, []).append(room)
        for slot, together in slots.items():
            for start in range(0, len(together), HEADS):
                self._look_at_some(slot, together[start : start + HEADS])

    def _look_at_some(self, slot: int, rooms: list[SharedRoom]) -> None:
        known = [(room, self._hearer.shown(room.name), room.versions.known) for room in rooms]
        for room in rooms:
            room.looking = True
        self._store.submit(
            slot,
            library.heads([room.keys.meta for room in rooms]),
            partial(self._heads_read, known),
            patience=self._times.patience,
            again=True,
        )

    def _verify(self, room: SharedRoom) -> None:
        """Find out whether the store has what was shown."""
        if (shown := self._hearer.shown(room.name)) is not None:
            command = library.verify(room.keys, shown.last_id, room.marks.get(shown.last_id, 0))
            then = partial(self._verified, room, shown, room.versions.known)
            self._store.submit(room.keys.slot, command, then, patience=self._times.patience, again=True)

    def _verified(self, room: SharedRoom, shown: Head, version: int, reply: Any) -> None:
        match reply:
            case ["ok", epoch, last, newest, same] if room.used and room.held is None:
                if epoch == shown.epoch and not same:
                    self._renew(room, epoch)
                else:
                    self._compare(room, shown, version, (epoch, last, newest))
            case ["missing"]:
                self._renew(room, shown.epoch)

    def _heads_read(self, known: list[tuple[SharedRoom, Head | None, int]], reply: Any) -> None:
        """`known` is what had been shown, and heard of the presence, before the heads were asked for."""
        for room, _, _ in known:
            room.looking = False
        match reply:
            case ["ok", found]:
                for (room, shown, version), head in zip(known, found, strict=True):
                    if room.used and room.held is None and shown is not None:
                        self._compare(room, shown, version, head)

    def _compare(self, room: SharedRoom, shown: Head, version: int, head: Any) -> None:
        if not head:
            self._renew(room, shown.epoch)
            return
        epoch, last, newest = head
        if epoch != shown.epoch:
            self._found_replaced(room, epoch, last)
        elif last < shown.last_id:
            self._renew(room, epoch)
        else:
            now = self._hearer.shown(room.name)
            if now is not None and last > now.last_id:
                self._gaps += 1
                self._hearer.ahead(room.name, epoch, last)
            if newest < version:
                self._attendance.restate(room, reread=True)
            else:
                self._attendance.expect(room, epoch, newest)


class _Batch:
    """An append whose drafts go to several rooms: it is answered when all have their outcome."""

    __slots__ = ("_committed", "_left", "_outcomes", "drafts")

    def __init__(
        self, drafts: Sequence[Draft], rooms: int, committed: Callable[[list[Outcome] | Exception], None]
    ) -> None:
        self.drafts = drafts
        self._left = rooms
        self._committed = committed
        self._outcomes: list[Outcome] = [Unknown()] * len(drafts)

    def done(self, numbers: list[int], outcomes: Sequence[Outcome]) -> None:
        """A room's drafts have these outcomes."""
        for number, outcome in zip(numbers, outcomes, strict=True):
            self._outcomes[number] = outcome
        self._left -= 1
        if not self._left:
            self._committed(self._outcomes)


def _outcome(line: Any, draft: Draft, ts: int) -> Outcome:
    if line is False:
        return Failed()
    if line > 0:
        return Message(line, ts, draft.username, draft.text, draft.cid)
    return Duplicate(-line) if line else Conflict()


def _ignore(_reply: Any) -> None:
    pass
