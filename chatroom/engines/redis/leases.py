"""Which nodes live, by the leases that they hold in the store; times are the store's, in ms.

Owns: the leases of all nodes as they were at the last renewal.

1. A node lives while its lease lasts. A node without a lease is dead, once that may be judged.
2. A node may judge if it has held its own lease without a break for a whole life. So after an outage of the
   store, nodes that were cut off themselves declare no other node dead.
3. A node that has just started may judge only nodes whose leases ended a whole life ago, and only after
   `patience`: after an outage other nodes need a moment to come back.
4. One task for all nodes is done by the first of those that live. For a moment, no node may think that it is
   the first, or two nodes may.

Doesn't know: the store, clocks, and what a node is declared dead for.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple


class Lease(NamedTuple):
    """A node's lease: `node` is its name and incarnation, `about` says what it runs on."""

    node: str
    about: str
    ends: int


class Leases:
    """What one node knows of the leases."""

    def __init__(self, node: str, life: float, patience: float) -> None:
        """`life` and `patience` are in seconds."""
        self._node = node
        self._life = int(life * 1000)
        self._patience = int(patience * 1000)
        self._began: int | None = None
        self._unbroken = 0
        self._now = 0
        self._ends: dict[str, int] = {}
        self._abouts: dict[str, str] = {}

    def renewed(self, now: int, held: bool, lines: Iterable[tuple[str, int]]) -> bool:
        """The node's own lease was renewed; false if it had one before that ended meanwhile."""
        broken = self._began is not None and not held
        if not held:
            self._unbroken = now
        if self._began is None:
            self._began = now
        self._now = now
        found = [Lease(*_split(line), ends) for line, ends in lines]
        self._ends = {lease.node: lease.ends for lease in found}
        self._abouts = {lease.node: lease.about for lease in found if lease.ends > now}
        return not broken

    @property
    def others(self) -> dict[str, str]:
        """The nodes that live beside this one, and what they run on."""
        return {node: about for node, about in self._abouts.items() if node != self._node}

    @property
    def leads(self) -> bool:
        """This node is the first of those that live, by name."""
        return self._node in self._abouts and self._node == min(self._abouts)

    def dead(self, nodes: Iterable[str]) -> Collection[str]:
        """Those of these nodes that are known to be dead."""
        return [node for node in nodes if node != self._node and self._is_dead(node)]

    def _is_dead(self, node: str) -> bool:
        if self._began is None:
            return False
        ends = self._ends.get(node, 0)
        if ends > self._now:
            return False
        if self._now - self._unbroken >= self._life:
            return True
        fresh = self._unbroken == self._began  # it has never lost its lease: it is new
        return fresh and self._now - self._began >= self._patience and ends <= self._now - self._life


def _split(line: str) -> tuple[str, str]:
    node, _, about = line.partition(" ")
    return node, about
