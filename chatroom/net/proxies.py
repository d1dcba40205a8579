"""The clients of trusted proxies, as the PROXY protocol or headers of HTTP name them.

Owns which peers are trusted proxies, which of their headers count, and the parser of the PROXY protocol. The
rules of each stand at its class, ProxyHeaderReader and Proxies.

It doesn't know sockets, and it ignores the header `Forwarded` (RFC 7239).
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from chatroom.core.errors import Refusal
from chatroom.core.http import HOST, Peer, Request

# The PROXY protocol

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first bytes of a header of version 2."""

MOST_LINE = 107
"""Bytes of the longest header of version 1, with the end of its line."""

MOST_BYTES = 4096
"""Bytes of the longest header of version 2 that is read."""

_PREFIX = b"PROXY "
_FIXED = len(SIGNATURE) + 4
_PORT = "(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(rf"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ({_PORT}) ({_PORT})\r\n".encode())
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?\r\n")
_UNFIT = re.compile(rb"[^ -~\r\n]|\r(?=[^\n])|(?<!\r)\n")
_SEPARATORS = 5  # in a line that names addresses

_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_CHECKSUM, _TLS = 0x03, 0x20
_BY_TLS = 0x01


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """The client that a header names: its address in one spelling, or None for the proxy itself.

    `secure`: the client came to the proxy by TLS.
    """

    address: str | None = None
    secure: bool = False


class ProxyHeaderReader:
    """Reads one header of the PROXY protocol from pieces of any size up to `wanted`.

    It reads versions 1 and 2 of HAProxy's proxy-protocol.txt. Rules:

    1. It is strict: there is one way to write each thing, no value may exceed its bounds, and a checksum must
       be right. Bytes that are no header, or a header for another kind of connection than a stream, are
       refused at the first byte that shows it.
    2. It never asks for a byte behind the header (`wanted`), since TLS may begin there.
    3. A proxy may speak for itself (`LOCAL`, `UNKNOWN`, an unspecified or Unix address). Then no client is
       named.
    4. Of the further fields of version 2, only the one counts that says whether the client came by TLS.

    It doesn't know which proxies are trusted.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.wanted = len(SIGNATURE)
        """How many more bytes certainly belong to the header; 0 when it is complete."""
        self.header = ProxyHeader()
        """The content of the header, when it is complete."""

    @property
    def started(self) -> bool:
        """At least one byte has come."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Read the next bytes, at most `wanted`. Raises Refusal."""
        assert len(data) <= self.wanted
        self._buffer += data
        read = bytes(self._buffer)
        if SIGNATURE.startswith(read[: len(SIGNATURE)]):
            self._read_binary(read)
        elif _PREFIX.startswith(read[: len(_PREFIX)]):
            self._read_line(read)
        else:
            raise _malformed("it is missing")

    # Version 1

    def _read_line(self, read: bytes) -> None:
        if _UNFIT.search(read):
            raise _malformed("its line is malformed")
        if b"\n" in read:
            self.header = _line(read)
            self.wanted = 0
        elif len(read) < len(SIGNATURE):
            self.wanted = len(SIGNATURE) - len(read)
        else:
            self.wanted = _rest_of_line(read)
            if len(read) + self.wanted > MOST_LINE:
                raise _malformed("its line is too long")

    # Version 2

    def _read_binary(self, read: bytes) -> None:
        size = _FIXED if len(read) < _FIXED else _FIXED + _body_bytes(read)
        self.wanted = min(size, len(SIGNATURE) if len(read) < len(SIGNATURE) else size) - len(read)
        if not self.wanted:
            self.header = _binary(read)


def _rest_of_line(read: bytes) -> int:
    """How many more bytes at least the line has that begins with `read`."""
    if read.endswith(b"\r"):
        return 1
    if read.startswith((b"PROXY TCP4 ", b"PROXY TCP6 ")):
        separators = read.count(b" ")
        # A separator and at least one character for each field that hasn't begun, and the line's end.
        return 2 * max(_SEPARATORS - separators, 0) + read.endswith(b" ") + 2
    unknown = b"PROXY UNKNOWN"
    if read.startswith(unknown[: len(read)]):
        return max(len(unknown) - len(read), 0) + 2
    raise _malformed("its protocol is unknown")


def _line(read: bytes) -> ProxyHeader:
    if _UNKNOWN.fullmatch(read):
        return ProxyHeader()
    found = _LINE.fullmatch(read)
    if found is None or max(int(found[4]), int(found[5])) > 65535:
        raise _malformed("its line is malformed")
    kind = IPv4Address if found[1] == b"4" else IPv6Address
    try:
        source, _ = (kind(found[index].decode("ascii")) for index in (2, 3))
    except ValueError:
        raise _malformed("an address in it is malformed") from None
    return ProxyHeader(_normal(source))


def _body_bytes(read: bytes) -> int:
    """The bytes that the fixed part of a header of version 2 announces behind it. Raises Refusal."""
    command, family, size = struct.unpack_from("!BBH", read, len(SIGNATURE))
    if command not in {_LOCAL, _PROXY}:
        raise _malformed("its version or command is unknown")
    if _FIXED + size > MOST_BYTES:
        raise _malformed("it is too long")
    if command == _PROXY and size < _ADDRESS_BYTES.get(family, MOST_BYTES):
        raise _malformed("its addresses are unknown or cut short")
    return int(size)


def _binary(read: bytes) -> ProxyHeader:
    command, family = read[len(SIGNATURE)], read[len(SIGNATURE) + 1]
    if command == _LOCAL:
        return ProxyHeader()
    start = _FIXED + _ADDRESS_BYTES[family]
    secure = False
    for kind, at, value in _extensions(read, start):
        if kind == _CHECKSUM:
            _check(read, at, value)
        elif kind == _TLS:
            secure = _by_tls(read, at, value)
    if family == _TCP4:
        return ProxyHeader(_normal(IPv4Address(read[_FIXED : _FIXED + 4])), secure)
    if family == _TCP6:
        return ProxyHeader(_normal(IPv6Address(read[_FIXED : _FIXED + 16])), secure)
    return ProxyHeader(None, secure)


def _extensions(read: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """The extensions in `read` from `at` on: kind, offset and value of each. They must fill it exactly."""
    while at < len(read):
        if len(read) - at < 3:
            raise _malformed("an extension in it is cut short")
        kind, size = struct.unpack_from("!BH", read, at)
        at += 3
        if len(read) - at < size:
            raise _malformed("an extension in it is cut short")
        yield kind, at, read[at : at + size]
        at += size


def _by_tls(read: bytes, at: int, value: bytes) -> bool:
    if len(value) < 5:
        raise _malformed("what it says of TLS is cut short")
    list(_extensions(read[: at + len(value)], at + 5))
    return bool(value[0] & _BY_TLS)


def _check(read: bytes, at: int, value: bytes) -> None:
    bare = read[:at] + bytes(4) + read[at + 4 :]
    if len(value) != 4 or int.from_bytes(value, "big") != crc32c(bare):
        raise _malformed("its checksum is wrong")


def _normal(address: IPv4Address | IPv6Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960, appendix B."""
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    return tuple(_remainder(byte) for byte in range(256))


def _remainder(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


def _malformed(why: str) -> Refusal:
    return Refusal(400, f"A header of the PROXY protocol must come first, and {why}")


# Trusted proxies

UNIX: Literal["unix"] = "unix"
"""The address of all peers of the Unix socket."""

HOPS = 32
"""The most entries of a list that are read: more proxies than any row has."""

Proxy = IPv4Network | IPv6Network | Literal["unix"]

_ZONE = r"(?:%[0-9A-Za-z._~-]{1,64})?"
_WITH_PORT = re.compile(rf"([0-9.]+|\[[0-9A-Fa-f:.]+{_ZONE}\])(?::[0-9]{{1,5}})?")
_ZONED = re.compile(rf"([0-9A-Fa-f:.]+){_ZONE}")
_SCHEMES = {"https": "https", "wss": "https", "http": "http", "ws": "http"}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The trusted proxies, and the headers of HTTP by which they name their clients.

    1. Only the headers of a trusted proxy count. In a request of any other peer they mean nothing.
    2. `X-Forwarded-For` is read from its right end, over all its lines, because each proxy adds its own peer
       there. The first address that isn't a trusted proxy's is the client. Where an entry is no address, and
       where the list ends or is too long, the last address read counts: that of the farthest trusted proxy.
    3. Only peers that connect to the server itself are exempt from the limits per address. A client that a
       proxy names is never exempt, and neither is a proxy that names an unreadable address: else a header
       with 127.0.0.1 in it would lift the limits. A trusted proxy that names no client asks for itself.
    4. The result is always an address in one spelling: without port and brackets, without zone, IPv4-mapped
       IPv6 as the IPv4 address that it holds. So nothing else gets into counts and logs.
    5. `X-Forwarded-Proto` and `X-Forwarded-Host` are the schemes and hosts by which browsers see the server.
       In a row of proxies each may add its own, and the browser may see any of them: so all of them count.
       Only the check of the server's own origin depends on them, and a web page can set neither.
    6. A proxy that names its client by the PROXY protocol is trusted in that. X-Forwarded-For then counts
       only if the named client is a trusted proxy itself.
    """

    trusted: frozenset[Proxy] = frozenset()

    def resolve_client(self, request: Request, *, named_by_proxy: bool = False) -> Request:
        """The request as its client made it, if its peer is a trusted proxy; else the request as it is.

        `named_by_proxy`: a trusted proxy has named the peer by the PROXY protocol.
        """
        if not self.trusts(request.peer):
            return replace(request, public_origins=_public_origins(request)) if named_by_proxy else request
        return replace(request, peer=self._client(request), public_origins=_public_origins(request))

    def trusts(self, peer: Peer) -> bool:
        """The peer is a trusted proxy."""
        if not self.trusted:
            return False
        return self._trusts(UNIX if peer.address == UNIX else read_address(peer.address))

    def _client(self, request: Request) -> Peer:
        """The client that a trusted proxy asks for (rules 2 and 3)."""
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
    """The address in `text`, which may have a port or a zone. None if `text` is no address."""
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


def _public_origins(request: Request) -> tuple[str, ...]:
    """The server's origins as browsers see them (rule 5). The connection and Host give what is missing."""
    named = {_SCHEMES.get(each.lower()) for each in _members(request, "x-forwarded-proto")[-HOPS:]}
    schemes = named - {None} or {"https" if request.secure else "http"}
    seen = [each for each in _members(request, "x-forwarded-host")[-HOPS:] if HOST.fullmatch(each)]
    hosts = seen or request.values("host")
    return tuple(f"{scheme}://{host}" for scheme in sorted(filter(None, schemes)) for host in hosts)


def _members(request: Request, name: str) -> list[str]:
    """The members of a header that is a list, over all its lines, without the empty ones."""
    members = (part.strip(" \t") for part in ",".join(request.values(name)).split(","))
    return [member for member in members if member]
