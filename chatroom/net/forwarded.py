"""Forwarded: for whom a trusted proxy asks.

Owns which peers are trusted proxies, and what of their headers is believed. Rules:

1. Only who is a trusted proxy itself is believed; in anybody else's requests these headers mean nothing.
2. `X-Forwarded-For` is read from its right end, over all its lines, because each proxy adds there whom it
   was asked by. The first address that is no trusted proxy's is the client. Where an entry is no address, and
   where the list is out or too long, the last address read counts: that of the farthest proxy believed.
3. Exempt from the limits of an address are only those who connect to the server itself. Whom a proxy names is
   never exempt, and neither is a proxy that names somebody unreadable: else a header with 127.0.0.1 in it
   would lift the limits. A trusted proxy that names nobody asks for itself.
4. Nothing but an address comes out, in one spelling: without port and brackets, without zone, IPv4-mapped
   IPv6 as the IPv4 address that it holds. So nothing else can get into counts and logs.
5. `X-Forwarded-Proto` and `X-Forwarded-Host` say by which schemes and hosts the server is seen. In a row of
   proxies each may add its own, and any of them may be the one that the browser sees: so all count. Only the
   check of the server's own origin depends on them, and a web page can set neither.
6. A proxy that names its client by the PROXY protocol is believed in that; X-Forwarded-For is then only if
   the client so named is a trusted proxy itself.

It doesn't know sockets, and `Forwarded` (RFC 7239) is ignored.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from chatroom.core.http import HOST, Peer, Request

UNIX: Literal["unix"] = "unix"
"""The address of all peers of the Unix socket."""

HOPS = 32
"""More proxies than stand in any row; so many entries are read at most."""

Proxy = IPv4Network | IPv6Network | Literal["unix"]

_ZONE = r"(?:%[0-9A-Za-z._~-]{1,64})?"
_WITH_PORT = re.compile(rf"([0-9.]+|\[[0-9A-Fa-f:.]+{_ZONE}\])(?::[0-9]{{1,5}})?")
_ZONED = re.compile(rf"([0-9A-Fa-f:.]+){_ZONE}")
_SCHEMES = {"https": "https", "wss": "https", "http": "http", "ws": "http"}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The peers whose headers are believed."""

    trusted: frozenset[Proxy] = frozenset()

    def see_through(self, request: Request, *, introduced: bool = False) -> Request:
        """The request as its client made it, if its peer is a trusted proxy; else just as it is.

        `introduced`: a trusted proxy has named the peer when it opened the connection.
        """
        if not self.trusts(request.peer):
            return replace(request, seen_as=_seen_as(request)) if introduced else request
        return replace(request, peer=self._client(request), seen_as=_seen_as(request))

    def trusts(self, peer: Peer) -> bool:
        """The peer is a trusted proxy."""
        if not self.trusted:
            return False
        return self._trusts(UNIX if peer.address == UNIX else read_address(peer.address))

    def _client(self, request: Request) -> Peer:
        """Rules 2 and 3."""
        named = _members(request, "x-forwarded-for")
        if not named:
            return request.peer
        farthest = request.peer.address
        for text in reversed(named[-HOPS:]):
            address = read_address(text)
            if address is None:
                break
            farthest = str(address)
            if not self._trusts(address):
                break
        return Peer(farthest)

    def _trusts(self, who: IPv4Address | IPv6Address | Literal["unix"] | None) -> bool:
        if who is None or who == UNIX:
            return who in self.trusted
        return any(proxy != UNIX and who in proxy for proxy in self.trusted)


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `text`, which may bring a port or a zone; None if it is none."""
    match = _WITH_PORT.fullmatch(text)
    zoned = _ZONED.fullmatch(match[1].strip("[]") if match else text)
    if zoned is None:
        return None
    try:
        address = ip_address(zoned[1])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _seen_as(request: Request) -> tuple[str, ...]:
    """Rule 5: the origins that the proxies name, as far as they do; the connection and Host say the rest."""
    named = {_SCHEMES.get(each.lower()) for each in _members(request, "x-forwarded-proto")[-HOPS:]}
    schemes = named - {None} or {"https" if request.secure else "http"}
    seen = [each for each in _members(request, "x-forwarded-host")[-HOPS:] if HOST.fullmatch(each)]
    hosts = seen or request.values("host")
    return tuple(f"{scheme}://{host}" for scheme in sorted(filter(None, schemes)) for host in hosts)


def _members(request: Request, name: str) -> list[str]:
    """The members of a header that is a list, over all its lines, without the empty ones."""
    members = (part.strip(" \t") for part in ",".join(request.values(name)).split(","))
    return [member for member in members if member]
