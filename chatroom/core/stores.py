"""Where a store that several nodes share is, and how its engine stands with it.

1. The password is in no text that is made of an address: neither in its `repr` nor in what is `shown`.

These values decide nothing. They don't know how a store is spoken to.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote


class StoreKind(StrEnum):
    """How the servers of a store stand to each other."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store on Valkey or Redis.

    `hosts` are the hosts to ask first, with their ports: the one server, the Sentinels, or some nodes of the
    Cluster. `hosts` is empty for a server at a Unix socket, whose path is `unix`. `db` is the number of the
    database, 0 in a Cluster. `primary` is the name by which Sentinels know the servers. `ca` is a PEM file of
    the authorities whose certificates are trusted; None: the system's.
    """

    kind: StoreKind
    hosts: tuple[tuple[str, int], ...] = ()
    unix: str | None = None
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    primary: str | None = None
    ca: str | None = None

    @property
    def shown(self) -> str:
        """The address as a log may show it: a URL without user and password."""
        if self.unix is not None:
            return f"unix://{quote(self.unix)}" + (f"?db={self.db}" if self.db else "")
        scheme = "rediss" if self.tls else "redis"
        if self.kind is not StoreKind.STANDALONE:
            scheme += f"+{self.kind}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = ("" if self.primary is None else f"/{self.primary}") + (f"/{self.db}" if self.db else "")
        return f"{scheme}://{hosts}{path}"


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How the engine for several nodes stands with its store. Names that end in `_total` only ever grow."""

    commands: int
    """Commands that wait for their answer."""
    reconnects_total: int
    """Connections that were made again."""
    gaps_total: int
    """Times that the store was found to have more of a room than had been pushed."""
    foreign_messages_total: int
    """Messages of other nodes that were handed on."""
    lease_age: float
    """Seconds since the node's lease was last renewed."""
    silence: float
    """Seconds since the subscription last brought anything."""
    nodes: int
    """Nodes that live, as far as this one knows; it counts itself."""
