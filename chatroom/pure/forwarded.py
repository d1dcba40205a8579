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
5. The right-most `X-Forwarded-Proto` and `X-Forwarded-Host` say by which scheme and host the client sees the
   server, where they can be that. Only the check of the server's own origin depends on them, and a web page
   can set neither.

It doesn't know sockets, and `Forwarded` (RFC 7239) is ignored.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from chatroom.values.http import HOST, Peer, Request

UNIX: Literal["unix"] = "unix"
"""The address of all peers of the Unix socket."""

HOPS = 32
"""More proxies than stand in any row; so many entries are read at most."""

Proxy = IPv4Network | IPv6Network | Literal["unix"]

_WITH_PORT = re.compile(r"([0-9.]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SECURE = {"https": True, "wss": True, "http": False, "ws": False}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The peers whose headers are believed."""

    trusted: frozenset[Proxy] = frozenset()

    def see_through(self, request: Request) -> Request:
        """The request as its client made it, if its peer is a trusted proxy; else just as it is."""
        address = request.peer.address
        if not self.trusted or not self._trusts(UNIX if address == UNIX else read_address(address)):
            return request
        secure = _SECURE.get(_last(request, "x-forwarded-proto").lower(), request.secure)
        return replace(request, peer=self._client(request), secure=secure, headers=_headers(request))

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
    """The address in `text`, which may bring a port; None if it is none."""
    match = _WITH_PORT.fullmatch(text)
    bare = match[1].strip("[]") if match else text
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _headers(request: Request) -> tuple[tuple[str, str], ...]:
    """The headers, with the host that the client sees. A Host that is to be refused stays, to be refused."""
    seen = _last(request, "x-forwarded-host")
    hosts = request.values("host")
    if not HOST.fullmatch(seen) or len(hosts) > 1 or not all(map(HOST.fullmatch, hosts)):
        return request.headers
    return (*(each for each in request.headers if each[0] != "host"), ("host", seen))


def _members(request: Request, name: str) -> list[str]:
    """The members of a header that is a list, over all its lines, without the empty ones."""
    members = (part.strip(" \t") for part in ",".join(request.values(name)).split(","))
    return [member for member in members if member]


def _last(request: Request, name: str) -> str:
    """The last member of a header that is a list; "" if there is none."""
    return next(reversed(_members(request, name)), "")
