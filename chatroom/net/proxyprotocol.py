"""The PROXY protocol: for whom a proxy has opened a connection, said in a header before everything else.

Reads versions 1 and 2 as HAProxy's proxy-protocol.txt describes them. Rules:

1. Strict: one way to write a thing, nothing beyond the bounds; a checksum that is there must be right. What
   is no header, or for another kind of connection than a stream, is refused at the first byte that shows it.
2. No byte behind the header is asked for (`wanted`), since TLS may begin there, in somebody else's hands.
3. A proxy may speak for itself (`LOCAL`, `UNKNOWN`, an unspecified or Unix address): then nobody is named.
4. Of what else version 2 can carry, only whether the client came by TLS is looked at.

It doesn't know who is trusted to send one.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from chatroom.core.errors import Refusal

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""How version 2 begins."""

MOST_LINE = 107
"""Bytes of a header of version 1, with the end of its line."""

MOST_BYTES = 4096
"""Bytes of a header of version 2."""

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
class Introduction:
    """Whom a header names: an address in one spelling, or None for the proxy itself.

    `secure` says that the client came to the proxy by TLS.
    """

    address: str | None = None
    secure: bool = False


class HeaderReader:
    """Reads one header from bytes that come in pieces of any size up to `wanted`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.wanted = len(SIGNATURE)
        """How many bytes are still part of the header for certain; 0 when it is complete."""
        self.introduction = Introduction()
        """What it says, when it is complete."""

    @property
    def started(self) -> bool:
        """At least one byte has come."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take the next bytes, at most `wanted`. Raises Refusal."""
        assert len(data) <= self.wanted
        self._buffer += data
        read = bytes(self._buffer)
        if SIGNATURE.startswith(read[: len(SIGNATURE)]):
            self._read_binary(read)
        elif _PREFIX.startswith(read[: len(_PREFIX)]):
            self._read_line(read)
        else:
            raise _wrong("it is missing")

    # Version 1

    def _read_line(self, read: bytes) -> None:
        if _UNFIT.search(read):
            raise _wrong("its line is malformed")
        if b"\n" in read:
            self.introduction = _line(read)
            self.wanted = 0
        elif len(read) < len(SIGNATURE):
            self.wanted = len(SIGNATURE) - len(read)
        else:
            self.wanted = _rest_of_line(read)
            if len(read) + self.wanted > MOST_LINE:
                raise _wrong("its line is too long")

    # Version 2

    def _read_binary(self, read: bytes) -> None:
        size = _FIXED if len(read) < _FIXED else _FIXED + _body_bytes(read)
        self.wanted = min(size, len(SIGNATURE) if len(read) < len(SIGNATURE) else size) - len(read)
        if not self.wanted:
            self.introduction = _binary(read)


def _rest_of_line(read: bytes) -> int:
    """At least so many bytes follow in the line that begins so."""
    if read.endswith(b"\r"):
        return 1
    if read.startswith((b"PROXY TCP4 ", b"PROXY TCP6 ")):
        separators = read.count(b" ")
        # A separator and at least one character for each field that hasn't begun, and the line's end.
        return 2 * max(_SEPARATORS - separators, 0) + read.endswith(b" ") + 2
    unknown = b"PROXY UNKNOWN"
    if read.startswith(unknown[: len(read)]):
        return max(len(unknown) - len(read), 0) + 2
    raise _wrong("its protocol is unknown")


def _line(read: bytes) -> Introduction:
    if _UNKNOWN.fullmatch(read):
        return Introduction()
    found = _LINE.fullmatch(read)
    if found is None or max(int(found[4]), int(found[5])) > 65535:
        raise _wrong("its line is malformed")
    kind = IPv4Address if found[1] == b"4" else IPv6Address
    try:
        source, _ = (kind(found[index].decode("ascii")) for index in (2, 3))
    except ValueError:
        raise _wrong("an address in it is malformed") from None
    return Introduction(_spelled(source))


def _body_bytes(read: bytes) -> int:
    """What the fixed part of a header of version 2 announces behind it."""
    command, family, size = struct.unpack_from("!BBH", read, len(SIGNATURE))
    if command not in {_LOCAL, _PROXY}:
        raise _wrong("its version or command is unknown")
    if _FIXED + size > MOST_BYTES:
        raise _wrong("it is too long")
    if command == _PROXY and size < _ADDRESS_BYTES.get(family, MOST_BYTES):
        raise _wrong("its addresses are unknown or cut short")
    return int(size)


def _binary(read: bytes) -> Introduction:
    command, family = read[len(SIGNATURE)], read[len(SIGNATURE) + 1]
    if command == _LOCAL:
        return Introduction()
    start = _FIXED + _ADDRESS_BYTES[family]
    secure = False
    for kind, at, value in _extensions(read, start):
        if kind == _CHECKSUM:
            _check(read, at, value)
        elif kind == _TLS:
            secure = _by_tls(read, at, value)
    if family == _TCP4:
        return Introduction(_spelled(IPv4Address(read[_FIXED : _FIXED + 4])), secure)
    if family == _TCP6:
        return Introduction(_spelled(IPv6Address(read[_FIXED : _FIXED + 16])), secure)
    return Introduction(None, secure)


def _extensions(read: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """What stands in `read` from `at` on: kinds, where their values are, and those; they must fill it."""
    while at < len(read):
        if len(read) - at < 3:
            raise _wrong("an extension in it is cut short")
        kind, size = struct.unpack_from("!BH", read, at)
        at += 3
        if len(read) - at < size:
            raise _wrong("an extension in it is cut short")
        yield kind, at, read[at : at + size]
        at += size


def _by_tls(read: bytes, at: int, value: bytes) -> bool:
    if len(value) < 5:
        raise _wrong("what it says of TLS is cut short")
    list(_extensions(read[: at + len(value)], at + 5))
    return bool(value[0] & _BY_TLS)


def _check(read: bytes, at: int, value: bytes) -> None:
    bare = read[:at] + bytes(4) + read[at + 4 :]
    if len(value) != 4 or int.from_bytes(value, "big") != crc32c(bare):
        raise _wrong("its checksum is wrong")


def _spelled(address: IPv4Address | IPv6Address) -> str:
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


def _wrong(why: str) -> Refusal:
    return Refusal(400, f"A header of the PROXY protocol must come first, and {why}")
