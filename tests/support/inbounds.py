"""What a client may send; what comes out of an Inbound, and what it still holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import pack

from hypothesis import strategies as st

from chatroom.websocket.framing import Inbound
from tests.support.client_frames import BINARY, CLOSE, PING, PONG, TEXT, head, masked, read_frames

CONTINUATION = 0


@dataclass(frozen=True, slots=True)
class Control:
    """A ping to be answered, or a close frame by what it is answered with."""

    opcode: int
    payload: bytes = b""


Received = str | bytes | Control


def handed_out(inbound: Inbound) -> list[Received]:
    """Everything there is to take, in order: pings are found before the message that `next` goes on to."""
    items: list[Received] = []
    while True:
        message = inbound.next()
        if inbound.pings is not None:
            assert inbound.pings, "None where there are none"
            items += [Control(PING, payload) for payload in inbound.pings]
            inbound.pings = None
        if message is None:
            break
        items.append(message)
    if inbound.close_reply:
        [reply], rest = read_frames(inbound.close_reply)
        assert inbound.closed
        assert (reply.opcode, rest) == (CLOSE, b"")
        inbound.close_reply = b""
        items.append(Control(CLOSE, reply.payload))
    return items


def feed(inbound: Inbound, pieces: Iterable[bytes], now: float = 0.0) -> list[Received]:
    """What comes out while the pieces arrive."""
    items: list[Received] = []
    for piece in pieces:
        inbound.feed(piece, now)
        items += handed_out(inbound)
    return items


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The data in pieces of these sizes, and what is left."""
    at = 0
    for size in cuts:
        yield data[at : at + size]
        at += size
    yield data[at:]


def held(inbound: Inbound) -> int:
    """How many bytes it keeps, wherever in it they are."""
    total, found = 0, [getattr(inbound, name) for name in Inbound.__slots__]
    while found:
        match found.pop():
            case bytes() | bytearray() | str() as data:
                total += len(data)
            case list() | tuple() as more:
                found += more
    return total


def close_payloads() -> st.SearchStrategy[bytes]:
    code = st.integers(990, 1020) | st.integers(0, 65_535)
    reason = st.text(max_size=10).map(str.encode) | st.binary(max_size=3)
    return st.builds(lambda code, reason: pack("!H", code) + reason, code, reason)


def frames() -> st.SearchStrategy[bytes]:
    """Frames, mostly right, with something wrong in some."""
    opcode = st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, PING, PONG, CLOSE, 3, 15])
    key = st.sampled_from([b"\x11\x22\x33\x44", bytes(4)])
    payload = st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode), close_payloads())
    right = st.builds(masked, opcode, payload, fin=st.booleans(), key=key)
    large = st.builds(masked, opcode, st.sampled_from([b"x" * 126, b"y" * 70_000]), fin=st.booleans())
    length = st.sampled_from([0, 1, 125, 126, 65_535, 65_536, 1 << 62, 1 << 63])
    wrong = st.builds(
        head,
        opcode,
        length,
        fin=st.booleans(),
        bits=st.sampled_from([0, 0, 0, 1, 4]),
        mask=st.booleans(),
        form=st.sampled_from([0, 127]),
    )
    return st.one_of(right, right, right, large, wrong, st.binary(max_size=6))
