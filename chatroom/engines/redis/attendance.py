"""Who is in the rooms, told to the store and heard from it.

1. What a node tells of a room goes one piece at a time. What comes meanwhile waits, and goes as one.
2. Whatever happens to a piece, the store gets to know in the end: after a failure the node states the whole,
   with a higher number, so that what was sent before can't take effect any more.
3. What has changed comes as pushes, in the order of the room's versions, the node's own changes included;
   they stand in the function's reply, too, and whatever comes first counts. After a gap the whole is read.
4. At most MOST_ASKED rooms are under way: after an outage thousands of rooms don't come at once.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import count
from typing import Any

import trio

from chatroom.engines.engine import Feed
from chatroom.engines.redis import library
from chatroom.engines.redis.library import Command
from chatroom.engines.redis.pushes import Presence, read_push
from chatroom.engines.redis.sharedroom import SharedRoom

MOST_ASKED = 100
GAP_SECONDS = 1.0
"""How long a version may be missing before the whole is read."""


class Attendance:
    """The presence of all rooms of one engine."""

    def __init__(
        self,
        node: str,
        feed: Feed,
        ask: Callable[[SharedRoom, Command, Callable[[Any], None]], None],
        *,
        missing: Callable[[SharedRoom], None],
        replaced: Callable[[SharedRoom, str, int], None],
        lives: Callable[[], bool],
    ) -> None:
        """`ask` has a command done, once or twice. `missing`: the store has no such room; `replaced`: another
        one. `lives`: this node holds its lease.
        """
        self._node = node
        self._feed = feed
        self._ask = ask
        self._missing = missing
        self._replaced = replaced
        self._lives = lives
        self._numbers = count(1)
        self._wanting: dict[SharedRoom, None] = {}
        self._later: dict[SharedRoom, None] = {}
        self._gaps: dict[SharedRoom, None] = {}
        self._asked = 0
        self._pumping = False
        self._places: dict[str, set[SharedRoom]] = {}

    # Told by this node

    def attend(self, room: SharedRoom, came: Iterable[str], went: Iterable[str]) -> None:
        """Names begin and cease to be in the room on this node."""
        room.pending |= dict.fromkeys(came, True)
        room.pending |= dict.fromkeys(went, False)
        self._want(room)

    def restate(self, room: SharedRoom, *, reread: bool = False) -> None:
        """What the store knows of this node may be wrong; with `reread`, what this node knows as well."""
        room.stale = True
        room.reread = room.reread or reread
        self._want(room)

    def reap(self, nodes: Iterable[str]) -> None:
        """These nodes are dead: their names go from the rooms that are in use here."""
        for node in nodes:
            for room in self._places.pop(node, ()):
                room.nodes.discard(node)
                if room.used:
                    room.dead.add(node)
                    self._want(room)

    @property
    def nodes(self) -> Collection[str]:
        """The other nodes that have names in rooms in use here."""
        return list(self._places)

    def retry(self) -> None:
        """Try again what has failed; and read what has been missing for long."""
        now = trio.current_time()
        for room in list(self._gaps):
            if not room.versions.gap or not room.used:
                room.gap_since = None
                del self._gaps[room]
            elif room.gap_since is not None and now >= room.gap_since + GAP_SECONDS:
                room.gap_since = now
                room.reread = True
                self._wanting[room] = None
        self._wanting |= self._later
        self._later.clear()
        self._pump()

    def drop(self, room: SharedRoom) -> None:
        """The room is no longer listened to."""
        for several in (self._wanting, self._later, self._gaps):
            several.pop(room, None)
        self._place(room, set())

    def _want(self, room: SharedRoom) -> None:
        self._wanting[room] = None
        self._pump()

    def _pump(self) -> None:
        if self._pumping:
            return  # an answer that came at once
        self._pumping = True
        while self._wanting and self._asked < MOST_ASKED:
            room = next(iter(self._wanting))
            del self._wanting[room]
            if not room.busy:
                self._tell(room)
        self._pumping = False

    def _tell(self, room: SharedRoom) -> None:
        """The next piece, if there is one."""
        keys, context = room.keys, room.context
        then: Callable[[Any], None]
        if room.stale:
            room.stale = False
            room.pending.clear()
            command = library.state(keys, context, next(self._numbers), self._feed.here(room.name))
            then = partial(self._told, room)
        elif room.pending:
            came = [name for name, here in room.pending.items() if here]
            went = [name for name, here in room.pending.items() if not here]
            room.pending.clear()
            command = library.attend(keys, context, next(self._numbers), came, went)
            then = partial(self._told, room)
        elif room.dead:
            command = library.reap(keys, context, room.dead)
            then = partial(self._reaped, room, room.dead)
            room.dead = set()
        elif room.reread and room.used:
            room.reread = False
            command = library.who(keys)
            then = partial(self._read, room, room.versions.known)
        else:
            return
        room.busy = True
        self._asked += 1
        self._ask(room, command, partial(self._answered, room, then))

    def _answered(self, room: SharedRoom, then: Callable[[Any], None], reply: Any) -> None:
        room.busy = False
        self._asked -= 1
        then(reply)
        if room.pending or room.stale or room.dead or room.reread:
            done = isinstance(reply, list) and reply[0] == "ok"
            (self._wanting if done else self._later)[room] = None
        self._pump()

    def _told(self, room: SharedRoom, reply: Any) -> None:
        match reply:
            case ["ok", epoch, last, version, told]:
                self._take_all(room, epoch, last, version, told)
            case ["missing"]:
                room.stale = room.used  # where nobody is there is nothing to say of a room that is gone
                self._missing(room)
            case _:  # late, or nobody knows
                room.stale = True

    def _reaped(self, room: SharedRoom, dead: set[str], reply: Any) -> None:
        match reply:
            case ["ok", epoch, last, version, told]:
                self._take_all(room, epoch, last, version, told)
            case ["missing"]:
                self._missing(room)
            case _:
                room.dead |= dead

    def _take_all(self, room: SharedRoom, epoch: str, last: int, version: int, told: Any) -> None:
        if not room.used:
            return
        if epoch != room.versions.epoch:
            self._replaced(room, epoch, last)
            return
        for payload in told or ():
            push = read_push(payload.encode(), self._node)
            if isinstance(push, Presence):
                self.pushed(room, push)
        self.expect(room, epoch, version)

    # Heard from the store

    def pushed(self, room: SharedRoom, push: Presence) -> None:
        """Names came or went on a node."""
        for ready in room.versions.take(push):
            self._apply(room, ready)
        self._look_for_gap(room)

    def expect(self, room: SharedRoom, epoch: str, version: int) -> None:
        """The store is known to have reached a version."""
        if epoch == room.versions.epoch:
            room.versions.expect(version)
            self._look_for_gap(room)

    def relist(self, room: SharedRoom, epoch: str, last: int, version: int, who: dict[str, Any]) -> None:
        """The whole has been read."""
        counts: dict[str, int] = {}
        for node, names in who.items():
            for name in names or ():
                counts[name] = counts.get(name, 0) + (node != self._node)
        self._place(room, {node for node in who if node != self._node})
        later = room.versions.read(epoch, version)
        self._feed.roster(room.name, counts, last)
        self._insist(room, set(self._feed.here(room.name)).difference(who.get(self._node) or ()))
        for push in later:
            self._apply(room, push)
        self._look_for_gap(room)

    def _apply(self, room: SharedRoom, push: Presence) -> None:
        if (
            push.node != self._node
            and push.node not in room.nodes
            and any(each.here for each in push.changes)
        ):
            room.nodes.add(push.node)
            self._places.setdefault(push.node, set()).add(room)
        self._feed.present(room.name, push.changes, push.last)
        if push.node == self._node:
            self._insist(room, {each.username for each in push.changes if not each.here})

    def _insist(self, room: SharedRoom, missing: set[str]) -> None:
        """The store has not these names on this node: say so where that is wrong, unless it is being said.

        Another node has taken this one for dead, just before it came back. Without a lease it is: then it
        states all rooms when it has one again.
        """
        if not room.unsaid and self._lives() and not missing.isdisjoint(self._feed.here(room.name)):
            self.restate(room)

    def _look_for_gap(self, room: SharedRoom) -> None:
        if not room.versions.gap:
            room.gap_since = None
        elif room.gap_since is None:
            room.gap_since = trio.current_time()
            self._gaps[room] = None

    def _read(self, room: SharedRoom, known: int, reply: Any) -> None:
        """`known` was the version when the whole was asked for: the store has gone back if it is behind
        that."""
        match reply:
            case ["ok", epoch, last, version, who]:
                if not room.used or room.held is not None:
                    return
                if epoch != room.versions.epoch:
                    self._replaced(room, epoch, last)
                elif known <= version < room.versions.known:
                    return  # what was pushed meanwhile is newer, and complete
                else:
                    self.relist(room, epoch, last, version, who)
            case ["missing"]:
                self._missing(room)
            case _:
                room.reread = True

    def _place(self, room: SharedRoom, nodes: set[str]) -> None:
        for node in room.nodes - nodes:
            if (rooms := self._places.get(node)) is not None:
                rooms.discard(room)
                if not rooms:
                    del self._places[node]
        for node in nodes - room.nodes:
            self._places.setdefault(node, set()).add(room)
        room.nodes = nodes
