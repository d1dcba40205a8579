"""What comes out of an Inbound, and what it still holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chatroom.pure.frames import unmask
from chatroom.pure.inbound import Inbound


@dataclass(frozen=True, slots=True)
class Control:
    """A control frame that was handed out, without its mask."""

    opcode: int
    payload: bytes = b""


Item = str | bytes | Control


def handed_out(inbound: Inbound) -> list[Item]:
    """Everything there is to take, in order."""
    items: list[Item] = []
    while True:
        message = inbound.next()
        assert message is None or not inbound.control, "one thing at a time"
        if message is not None:
            items.append(message)
        elif control := inbound.control:
            inbound.control = b""
            assert len(control) == 6 + (control[1] & 0x7F), "one whole frame, with its mask"
            items.append(Control(control[0] & 0x0F, unmask(control[2:6], control[6:])))
        else:
            return items


def feed(inbound: Inbound, pieces: Iterable[bytes], now: float = 0.0) -> list[Item]:
    """What comes out while the pieces arrive."""
    items: list[Item] = []
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
