"""Who is in the rooms, told to the store and heard from it.

Owns: what the store is still to be told of each room, and on which nodes a room has names.

1. A node tells the store one piece at a time for each room. Changes that come meanwhile wait, and go as one.
2. The store learns every change in the end: after a failure the node states all its names, with a higher
   number, so that an earlier command can't take effect any more.
3. Changes come as pushes, in the order of the room's versions, the node's own changes included. The reply of
   the function has them, too, and the first of the two counts. After a gap the whole presence is read.
4. At most MOST_ASKED rooms are under way: so after an outage thousands of rooms don't come at once.

Doesn't know: connections to the store, and how members are shown.
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
"""Seconds that a version may be missing before the whole presence is read."""


class PresenceTracker:
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
        """`ask` has a command done, once or twice. `missing` is called if the store has no such room,
        `replaced` if it has one of another epoch. `lives` tells whether this node holds its lease.
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
        self._rooms_of: dict[str, set[SharedRoom]] = {}

    # Told by this node

    def attend(self, room: SharedRoom, came: Iterable[str], went: Iterable[str]) -> None:
        """Names came into the room, or left it, on this node."""
        room.pending |= dict.fromkeys(came, True)
        room.pending |= dict.fromkeys(went, False)
        self._want(room)

    def restate(self, room: SharedRoom, *, reread: bool = False) -> None:
        """State all names of this node again, and with `reread` read all names of the room, too."""
        room.stale = True
        room.reread = room.reread or reread
        self._want(room)

    def reap(self, nodes: Iterable[str]) -> None:
        """These nodes are dead: remove their names from the rooms in use here."""
        for node in nodes:
            for room in self._rooms_of.pop(node, ()):
                room.nodes.discard(node)
                if room.used:
                    room.dead.add(node)
                    self._want(room)

    @property
    def nodes(self) -> Collection[str]:
        """The other nodes that have names in rooms in use here."""
        return list(self._rooms_of)

    def retry(self) -> None:
        """Retry what has failed, and read rooms whose gap has lasted too long."""
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
        self._set_nodes(room, set())

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
        """Send the next piece, if there is one."""
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
                self._apply_reply(room, epoch, last, version, told)
            case ["missing"]:
                room.stale = room.used  # of a room without people there is nothing to tell
                self._missing(room)
            case _:  # late, or unknown
                room.stale = True

    def _reaped(self, room: SharedRoom, dead: set[str], reply: Any) -> None:
        match reply:
            case ["ok", epoch, last, version, told]:
                self._apply_reply(room, epoch, last, version, told)
            case ["missing"]:
                self._missing(room)
            case _:
                room.dead |= dead

    def _apply_reply(self, room: SharedRoom, epoch: str, last: int, version: int, told: Any) -> None:
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
        for ready in room.versions.add(push):
            self._apply(room, ready)
        self._look_for_gap(room)

    def expect(self, room: SharedRoom, epoch: str, version: int) -> None:
        """The store has reached at least this version."""
        if epoch == room.versions.epoch:
            room.versions.expect(version)
            self._look_for_gap(room)

    def relist(self, room: SharedRoom, epoch: str, last: int, version: int, who: dict[str, Any]) -> None:
        """The whole presence has been read."""
        counts: dict[str, int] = {}
        for node, names in who.items():
            for name in names or ():
                counts[name] = counts.get(name, 0) + (node != self._node)
        self._set_nodes(room, {node for node in who if node != self._node})
        later = room.versions.reset(epoch, version)
        self._feed.roster(room.name, counts, last)
        self._restate_if_missing(room, set(self._feed.here(room.name)).difference(who.get(self._node) or ()))
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
            self._rooms_of.setdefault(push.node, set()).add(room)
        self._feed.present(room.name, push.changes, push.last)
        if push.node == self._node:
            self._restate_if_missing(room, {each.username for each in push.changes if not each.here})

    def _restate_if_missing(self, room: SharedRoom, missing: set[str]) -> None:
        """The store doesn't have these names on this node: state all names if it is wrong, unless they are
        under way.

        Another node took this one for dead, just before it came back. Without a lease the other node is
        right: then this one states its names when it has a lease again.
        """
        if not room.presence_pending and self._lives() and not missing.isdisjoint(self._feed.here(room.name)):
            self.restate(room)

    def _look_for_gap(self, room: SharedRoom) -> None:
        if not room.versions.gap:
            room.gap_since = None
        elif room.gap_since is None:
            room.gap_since = trio.current_time()
            self._gaps[room] = None

    def _read(self, room: SharedRoom, known: int, reply: Any) -> None:
        """`known` was the version when the whole presence was asked for: the store has gone back if it is
        behind it."""
        match reply:
            case ["ok", epoch, last, version, who]:
                if not room.used or room.held is not None:
                    return
                if epoch != room.versions.epoch:
                    self._replaced(room, epoch, last)
                elif known <= version < room.versions.known:
                    return  # the pushes that came meanwhile are newer, and complete
                else:
                    self.relist(room, epoch, last, version, who)
            case ["missing"]:
                self._missing(room)
            case _:
                room.reread = True

    def _set_nodes(self, room: SharedRoom, nodes: set[str]) -> None:
        for node in room.nodes - nodes:
            if (rooms := self._rooms_of.get(node)) is not None:
                rooms.discard(room)
                if not rooms:
                    del self._rooms_of[node]
        for node in nodes - room.nodes:
            self._rooms_of.setdefault(node, set()).add(room)
        room.nodes = nodes
