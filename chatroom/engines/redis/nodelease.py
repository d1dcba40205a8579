"""This node's lease in the store: taken, renewed and given up; and the nodes that it shows to be dead.

Owns: the line of this node among the leases, and when it was last renewed.

1. A node lives while it renews its lease. See `leases` for which nodes may say that another one is dead.
2. When the lease had ended before it was renewed, other nodes may have removed this node's names: the node
   states its names in all rooms again.
3. Each renewal shows which of the nodes that have names in rooms here are dead; their names are removed.
4. At the end the lease stays for a grace, so that a person who comes back on another node was never away.

Doesn't know: rooms' names, and how presence is told.
"""

import logging
import platform
import time
import unicodedata
from collections.abc import Collection, Iterable, KeysView
from contextlib import suppress
from functools import partial
from typing import Any

from chatroom.core.logevents import log_event
from chatroom.engines.redis import library
from chatroom.engines.redis.leases import Leases
from chatroom.engines.redis.library import Command, slot_of
from chatroom.engines.redis.presence import PresenceTracker
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import SharedRooms


class NodeLease:
    """The lease of one node. `key` holds the leases of all nodes, and lies in `slot`."""

    def __init__(
        self,
        store: Shards,
        rooms: SharedRooms,
        presence: PresenceTracker,
        *,
        prefix: str,
        node: str,
        version: str,
        life: float,
        beat: float,
        patience: float,
    ) -> None:
        """`life`: seconds for which the lease is taken; `beat`: seconds between two renewals; `patience`:
        seconds for an answer of the store. `version` is told to the other nodes.
        """
        self._store = store
        self._rooms = rooms
        self._presence = presence
        self._line = f"{node} {platform.python_version()} {unicodedata.unidata_version} {version}"
        self._life = life
        self._patience = patience
        self.key = f"{prefix}:nodes"
        self.slot = slot_of(self.key)
        self._leases = Leases(node, life, 2 * beat)
        self._leased_at = time.monotonic()
        self._warned_of: dict[str, str] = {}

    async def read(self) -> None:
        """Take the lease, and see which nodes live. Raises Unavailable."""
        command = self._lease(self._life)
        self._leased(frozenset(), await self._store.call(self.slot, command, patience=self._patience))

    def renew(self) -> None:
        """Take the lease for another life. Never waits."""
        then = partial(self._leased, frozenset(self._presence.nodes))
        self._store.submit(
            self.slot,
            self._lease(self._life),
            then,
            patience=self._patience,
            retry=True,
            urgent=True,
        )

    def leave(self, grace: float, *, patience: float) -> None:
        """Live for the grace alone. Never waits."""
        if self._store.all:
            self._store.submit(self.slot, self._lease(grace), _ignore, patience=patience, retry=False)

    @property
    def lives(self) -> bool:
        """This node holds its lease."""
        return time.monotonic() < self._leased_at + self._life

    @property
    def age(self) -> float:
        """Seconds since the lease was last renewed."""
        return time.monotonic() - self._leased_at

    @property
    def others(self) -> KeysView[str]:
        """The nodes that live beside this one."""
        return self._leases.others.keys()

    @property
    def leads(self) -> bool:
        """This node is the first of those that live, by name."""
        return self._leases.leads

    def dead(self, nodes: Iterable[str]) -> Collection[str]:
        """Those of these nodes that are known to be dead."""
        return self._leases.dead(nodes)

    def _lease(self, seconds: float) -> Command:
        return library.lease(self.key, self._line, seconds)

    def _leased(self, nodes: frozenset[str], reply: Any) -> None:
        """The lease is renewed, or not. `nodes` had names in rooms before the renewal was sent."""
        match reply:
            case ["ok", now, held, lines]:
                self._leased_at = time.monotonic()
                if not self._leases.renewed(now, held, lines):
                    for room in self._rooms.by_name.values():
                        self._presence.restate(room, reread=True)
                self._warn_of_others()
                self._presence.reap(self._leases.dead(nodes))

    def _warn_of_others(self) -> None:
        """Warn once of each node whose Unicode tables have another version: it judges names differently."""
        for node, about in self._leases.others.items():
            if self._warned_of.get(node) != about:
                self._warned_of[node] = about
                with suppress(ValueError):
                    _, tables, _ = about.split(" ")
                    if tables != unicodedata.unidata_version:
                        log_event(logging.WARNING, "node_differs", node=node, unicode=tables)


def _ignore(_reply: Any) -> None:
    pass
