"""Headers of the PROXY protocol: what they say, what is refused, and that no byte behind them is taken."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatroom.core.errors import Refusal
from chatroom.net.proxies import (
    MOST_BYTES,
    MOST_LINE,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderReader,
    crc32c,
    read_address,
)

LINE = b"PROXY TCP4 203.0.113.5 198.51.100.1 56324 443\r\n"
BEHIND = b"\x16\x03\x01PROXY GET / HTTP/1.1\r\n\r\n" * 20
INCOMPLETE = "incomplete"


def read(data: bytes, size: int = MOST_BYTES) -> tuple[ProxyHeader, int] | int | str:
    """What a reader makes of `data` in pieces of at most `size`, and how many bytes of it it has taken.

    The status of its refusal, or that the header isn't complete yet.
    """
    reader = ProxyHeaderReader()
    taken = 0
    while reader.wanted:
        piece = data[taken : taken + min(size, reader.wanted)]
        if not piece:
            return INCOMPLETE
        taken += len(piece)
        try:
            reader.feed(piece)
        except Refusal as refusal:
            assert taken <= MOST_BYTES
            return refusal.status
    return reader.header, taken


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def tls(client: int, inner: bytes = b"") -> bytes:
    return extension(0x20, struct.pack("!BI", client, 0) + inner)


def binary(family: int = 0x11, body: bytes = b"", *, command: int = 0x21, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if size is None else size) + body


def addresses(source: str, port: int = 56324) -> bytes:
    one = ip_address(source)
    other = ip_address("198.51.100.1" if one.version == 4 else "2001:db8::1")
    return one.packed + other.packed + struct.pack("!HH", port, 443)


def checked(family: int, body: bytes) -> bytes:
    """A header with its checksum."""
    bare = binary(family, body + extension(3, bytes(4)))
    return bare[:-4] + crc32c(bare).to_bytes(4, "big")


NOBODY = ProxyHeader()
CLIENT = ProxyHeader("203.0.113.5")
FOUR, SIX = addresses("203.0.113.5"), addresses("2001:db8::5")

SOUND: dict[str, tuple[bytes, ProxyHeader]] = {
    "TCP4": (LINE, CLIENT),
    "TCP6": (b"PROXY TCP6 2001:DB8:0::5 ::1 1 65535\r\n", ProxyHeader("2001:db8::5")),
    "TCP6 of an IPv4 address": (b"PROXY TCP6 ::ffff:203.0.113.5 ::1 0 0\r\n", CLIENT),
    "the shortest TCP4": (b"PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n", ProxyHeader("1.1.1.1")),
    "the shortest TCP6": (b"PROXY TCP6 :: :: 0 0\r\n", ProxyHeader("::")),
    "the longest": (
        b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2 + [b"65535"] * 2) + b"\r\n",
        ProxyHeader("ffff:" * 7 + "ffff"),
    ),
    "loopback": (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", ProxyHeader("127.0.0.1")),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", NOBODY),
    "UNKNOWN and what is ignored": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NOBODY),
    "UNKNOWN with addresses": (LINE.replace(b"TCP4", b"UNKNOWN"), NOBODY),
    "binary TCP4": (binary(0x11, FOUR), CLIENT),
    "binary TCP6": (binary(0x21, SIX), ProxyHeader("2001:db8::5")),
    "binary TCP6 of an IPv4 address": (binary(0x21, addresses("::ffff:203.0.113.5")), CLIENT),
    "LOCAL": (binary(0, command=0x20), NOBODY),
    "LOCAL with anything": (binary(0x77, b"\x01\xff\xff", command=0x20), NOBODY),
    "unspecified": (binary(0), NOBODY),
    "Unix": (binary(0x31, b"/run/x".ljust(216, b"\0")), NOBODY),
    "extensions": (binary(0x11, FOUR + extension(1, b"h2") + extension(0xEA, b"\x01vpce")), CLIENT),
    "by TLS": (binary(0x11, FOUR + tls(1, extension(0x21, b"TLSv1.3"))), ProxyHeader("203.0.113.5", True)),
    "not by TLS": (binary(0x11, FOUR + tls(0x06)), CLIENT),
    "by TLS, nobody named": (binary(0, tls(0x01)), ProxyHeader(None, True)),
    "checksum": (checked(0x11, FOUR + tls(0x07)), ProxyHeader("203.0.113.5", True)),
    "the longest binary": (binary(0x11, FOUR + extension(4, bytes(MOST_BYTES - 16 - 12 - 3))), CLIENT),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7, MOST_BYTES])
@pytest.mark.parametrize(("header", "said"), SOUND.values(), ids=SOUND)
def test_a_header_is_read_however_it_is_cut_and_nothing_behind_it(
    header: bytes, said: ProxyHeader, size: int
) -> None:
    assert read(header + BEHIND, size) == (said, len(header))
    assert read(header, size) == (said, len(header))
    for end in range(len(header) if size == MOST_BYTES else 0):
        assert read(header[:end]) == INCOMPLETE


WRONG = {
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "an empty line": b"\r\nPROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
    "lower case": b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
    "nothing but the word": b"PROXY\r\n",
    "the word and a space": b"PROXY \r\n",
    "another protocol": LINE.replace(b"TCP4", b"UDP4"),
    "another word": LINE.replace(b"TCP4", b"TCPX"),
    "unknown in lower case": b"PROXY unknown\r\n",
    "more than UNKNOWN": b"PROXY UNKNOWNS\r\n",
    "UNKNOWN and a tab": b"PROXY UNKNOWN\tx\r\n",
    "UNKNOWN and an escape": b"PROXY UNKNOWN \x1b[2J\r\n",
    "a bare line feed": LINE.replace(b"\r", b""),
    "a bare carriage return": b"PROXY TCP4 1.1.1.1\r 1.1.1.1 1 1\r\n",
    "two spaces": LINE.replace(b" 4", b"  4"),
    "a space at the end": LINE.replace(b"\r", b" \r"),
    "a field too many": LINE.replace(b"\r", b" 1\r"),
    "a field too few": LINE.replace(b" 443", b""),
    "no fields": b"PROXY TCP4\r\n\r\n",
    "TCP4 of IPv6": LINE.replace(b"203.0.113.5", b"2001:db8::5"),
    "TCP6 of IPv4": LINE.replace(b"TCP4", b"TCP6"),
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
    "brackets": b"PROXY TCP6 [::1] ::1 1 1\r\n",
    "zeros in front": LINE.replace(b"203.0.113.5", b"203.0.113.005"),
    "a short address": LINE.replace(b"203.0.113.5", b"203.0.113"),
    "an address too large": LINE.replace(b"203.0.113.5", b"203.0.113.256"),
    "a wrong other end": LINE.replace(b"198.51.100.1", b"198.51.100"),
    "a port too large": LINE.replace(b"443", b"65536"),
    "a port with zeros in front": LINE.replace(b"443", b"0443"),
    "a signed port": LINE.replace(b"443", b"+443"),
    "no port": LINE.replace(b"443", b"https"),
    "a port in other digits": LINE.replace(b"443", "٤".encode()),
    "a line too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "a line without an end": b"PROXY UNKNOWN " + b"x" * 200,
    "an address without an end": b"PROXY TCP6 " + b"1:" * 200,
    "a broken signature": SIGNATURE[:-1] + b"\r" + bytes(50),
    "version 1 in binary": binary(0x11, FOUR, command=0x11),
    "version 3": binary(0x11, FOUR, command=0x31),
    "another command": binary(0x11, FOUR, command=0x22),
    "datagrams": binary(0x12, FOUR),
    "another family": binary(0x41, FOUR),
    "an unspecified stream": binary(0x01, FOUR),
    "TCP4 cut short": binary(0x11, FOUR[:-1]),
    "TCP6 cut short": binary(0x21, FOUR),
    "Unix cut short": binary(0x31, bytes(215)),
    "too long": binary(0x11, FOUR + extension(4, bytes(MOST_BYTES - 16 - 12 - 2))),
    "much too long": binary(0x11, FOUR, size=65535),
    "an extension cut short": binary(0x11, FOUR + b"\x04\x00"),
    "an extension's value cut short": binary(0x11, FOUR + b"\x04\x00\x02x"),
    "a wrong checksum": checked(0x11, FOUR)[:-1] + b"\x00",
    "a short checksum": binary(0x11, FOUR + extension(3, b"\x00")),
    "an empty checksum": binary(0x11, FOUR + extension(3, b"")),
    "two checksums": checked(0x11, FOUR + extension(3, bytes(4))),
    "TLS cut short": binary(0x11, FOUR + extension(0x20, b"\x01\x00\x00\x00")),
    "what stands in TLS cut short": binary(0x11, FOUR + tls(1, b"\x21\x00\x09x") + extension(4, bytes(20))),
}


@pytest.mark.parametrize("size", [1, 5, MOST_BYTES])
@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_none_is_refused(data: bytes, size: int) -> None:
    assert read(data + bytes(200), size) == 400


@pytest.mark.parametrize(
    "start", [b"G", b"P\r", b"PROXY TCP4 1.1.1.1\n", b"\r\n\r\n\x00\r\nQUIX", b"PROXY \x00"]
)
def test_it_is_refused_at_the_first_byte_that_shows_it(start: bytes) -> None:
    assert read(start, 1) == 400
    assert read(start[:-1], 1) == INCOMPLETE


def test_a_refusal_says_what_was_expected_and_nothing_of_what_came() -> None:
    reader = ProxyHeaderReader()
    with pytest.raises(
        Refusal, match="A header of the PROXY protocol must come first, and it is missing"
    ) as caught:
        reader.feed(b"GET /?token"[: reader.wanted])
    assert "token" not in caught.value.text


def test_the_checksum_is_the_usual_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


PORTS = st.integers(0, 65535)
KINDS = st.integers(0, 255).filter(lambda kind: kind not in {0x03, 0x20})
EXTENSIONS = st.lists(st.builds(extension, KINDS, st.binary(max_size=40)), max_size=4).map(b"".join)


@st.composite
def lines(draw: st.DrawFn) -> tuple[bytes, ProxyHeader]:
    kind = draw(st.sampled_from([IPv4Address, IPv6Address]))
    source, other = (draw(st.ip_addresses(v=4 if kind is IPv4Address else 6)) for _ in range(2))
    family = b"TCP4" if kind is IPv4Address else b"TCP6"
    fields = [str(each).encode() for each in (source, other, draw(PORTS), draw(PORTS))]
    said = read_address(str(source))
    return b" ".join([b"PROXY", family, *fields]) + b"\r\n", ProxyHeader(str(said))


@st.composite
def binaries(draw: st.DrawFn) -> tuple[bytes, ProxyHeader]:
    source = draw(st.ip_addresses())
    body = addresses(str(source), draw(PORTS)) + draw(EXTENSIONS)
    secure = draw(st.booleans())
    if secure:
        body += tls(0x01)
    family = 0x11 if source.version == 4 else 0x21
    header = checked(family, body) if draw(st.booleans()) else binary(family, body)
    return header, ProxyHeader(str(read_address(str(source))), secure)


@given(lines() | binaries(), st.binary(max_size=50), st.integers(1, 40))
def test_every_header_is_read_to_its_last_byte_and_no_further(
    header_and_said: tuple[bytes, ProxyHeader], behind: bytes, size: int
) -> None:
    header, said = header_and_said
    assert read(header + behind, size) == (said, len(header))
    assert read(header + behind) == (said, len(header))
    assert read(header[:-1], size) == INCOMPLETE


@given(lines() | binaries(), st.data())
def test_a_byte_that_was_changed_proves_nothing_and_breaks_nothing(
    header_and_said: tuple[bytes, ProxyHeader], data: st.DataObject
) -> None:
    header = bytearray(header_and_said[0])
    header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    check_whatever(bytes(header))


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(lambda end: SIGNATURE + end)
    | st.binary(max_size=150).map(lambda end: b"PROXY " + end)
)
@example(b"PROXY TCP4 " + b" " * 100)
@example(b"PROXY TCP4 " + b"\r" * 5)
@example(b"PROXY UNKNOWN" + b"\r\n" * 3)
def test_whatever_comes_an_address_comes_out_or_a_refusal(data: bytes) -> None:
    check_whatever(data)  # fmt: skip


def check_whatever(data: bytes) -> None:
    found = read(data, 1)
    assert read(data) == found or INCOMPLETE in (found, read(data))
    assert (
        read(data + bytes(MOST_BYTES), 1)
        == read(data + bytes(MOST_BYTES), 11)
        == read(data + bytes(MOST_BYTES))
    )
    if isinstance(found, tuple):
        said, taken = found
        assert taken <= (MOST_BYTES if data.startswith(SIGNATURE) else MOST_LINE)
        assert said.address is None or str(read_address(said.address)) == said.address
