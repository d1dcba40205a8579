"""How many connections there are, in all, per username and per address, and which addresses try wrong tokens.

1. A connection is counted from `take_slot` until its slot is released, exactly once, however often it is
   released. What has no count has no entry: when all connections are gone, nothing remains.
2. The checks are separate steps, because other steps of the handshake come between them. They count nothing.
   What they allow holds only until the caller lets other tasks run.
3. Addresses are counted by their owner: an IPv4 address (also when written as IPv4-mapped IPv6) for itself,
   an IPv6 address with its whole /64. Exempt peers (loopback, Unix sockets) have no address to count.
4. A right token is never refused for the wrong ones of its neighbours: an address is often shared, and any
   web page can have its visitors' browsers try wrong tokens. So tokens are verified first, and counted when
   they are wrong. Past the limit a wrong token is refused with 429 and isn't counted, so that ends by itself.
5. Wrong tokens are remembered for a bounded number of addresses. The address whose last one is longest ago is
   forgotten first.

It doesn't know sockets, nor HTTP beyond the Refusal that it raises, nor whether a token is right.
"""

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Self, TypeVar

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer
from chatroom.core.limits import Limits
from chatroom.core.pace import Window

Owner = bytes | str
"""The owner of an address: the 4 bytes of an IPv4 address, the first 8 of an IPv6 one, else its text."""

_Key = TypeVar("_Key")

_RETRY = 5
"""Seconds after which a client may ask again where nobody knows when a slot becomes free."""

_SWEEP = 2
"""Addresses that a wrong token has forgotten, at most: more than the one that it can add."""


@dataclass(frozen=True, slots=True)
class ConnectionCounts:
    """`connections` in all, their `usernames` and counted `addresses`; `suspects` tried wrong tokens."""

    connections: int
    usernames: int
    addresses: int
    suspects: int


class Slot:
    """One connection's part in the counts. Leave it when the connection is gone, or use it as a context."""

    __slots__ = ("_address", "_connection_limits", "_released", "_username")

    def __init__(
        self, connection_limits: "ConnectionLimits", address: Owner | None, username: str | None
    ) -> None:
        self._connection_limits = connection_limits
        self._address = address
        self._username = username
        self._released = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the slot back. Never fails; a second time does nothing."""
        if not self._released:
            self._released = True
            self._connection_limits._release(self._address, self._username)


class ConnectionLimits:
    """The counts of one server, held against its `limits`."""

    def __init__(self, limits: Limits, *, max_suspects: int = 10_000) -> None:
        self._limits = limits
        self._max_suspects = max_suspects
        self._connections = 0
        self._usernames: dict[str, int] = {}
        self._addresses: dict[Owner, int] = {}
        self._suspects: OrderedDict[Owner, Window] = OrderedDict()  # by last wrong token, the oldest first

    def check_address(self, peer: Peer) -> None:
        """Refuse (429) a peer whose address has all its connections."""
        address = _owner(peer)
        if address is not None and self._addresses.get(address, 0) >= self._limits.per_address:
            raise _refusal(429, "Too many connections from your address")

    def wrong_token(self, peer: Peer, now: float) -> None:
        """Count a wrong token against the peer's address.

        Raises Refusal (429), and counts nothing, if the address has tried too many lately.
        """
        address = _owner(peer)
        if address is None:
            return
        window = self._suspects.setdefault(
            address, Window(self._limits.wrong_tokens, self._limits.wrong_token_seconds)
        )
        self._suspects.move_to_end(address)
        if (wait := window.wait(now)) > 0:
            raise _refusal(429, "Too many wrong tokens from your address", wait)
        window.add(now)
        self._forget_suspects(now)

    def check_user(self, username: str) -> None:
        """Refuse (429) one more connection of a username that has all it may have."""
        if self._usernames.get(username, 0) >= self._limits.per_user:
            raise _refusal(429, "Too many connections of this username")

    def check_full(self) -> None:
        """Refuse (503) when the server has all the connections it takes."""
        if self._connections >= self._limits.connections:
            raise _refusal(503, "The server is full")

    def take_slot(self, peer: Peer, username: str | None) -> Slot:
        """Count a connection; None: one that is nobody's. The checks are the caller's, just before."""
        address = _owner(peer)
        self._connections += 1
        if username is not None:
            _increment(self._usernames, username)
        if address is not None:
            _increment(self._addresses, address)
        return Slot(self, address, username)

    def statistics(self) -> ConnectionCounts:
        """The counts of this moment."""
        return ConnectionCounts(
            self._connections, len(self._usernames), len(self._addresses), len(self._suspects)
        )

    def _release(self, address: Owner | None, username: str | None) -> None:
        self._connections -= 1
        if username is not None:
            _decrement(self._usernames, username)
        if address is not None:
            _decrement(self._addresses, address)

    def _forget_suspects(self, now: float) -> None:
        for _ in range(_SWEEP):
            address, window = next(iter(self._suspects.items()))
            if not window.idle(now) and len(self._suspects) <= self._max_suspects:
                return
            del self._suspects[address]


def _owner(peer: Peer) -> Owner | None:
    """The owner under which the peer's address is counted; None if it isn't."""
    if peer.exempt:
        return None
    try:
        address = ipaddress.ip_address(peer.address)
    except ValueError:
        return peer.address
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed
    if address.ipv4_mapped:
        return address.ipv4_mapped.packed
    return address.packed[:8]


def _increment(counts: dict[_Key, int], key: _Key) -> None:
    counts[key] = counts.get(key, 0) + 1


def _decrement(counts: dict[_Key, int], key: _Key) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1


def _refusal(status: int, text: str, wait: float = _RETRY) -> Refusal:
    return Refusal(status, text, (("Retry-After", str(max(1, math.ceil(wait)))),))
