"""Frames as a client sends them, right ones and wrong ones, and a strict reading of what a server sends."""

from dataclasses import dataclass
from struct import pack, unpack_from

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True, key: bytes = b"\x11\x22\x33\x44") -> bytes:
    """A client's frame."""
    body = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return head(opcode, len(payload), fin=fin) + key + body


def head(
    opcode: int, length: int, *, fin: bool = True, bits: int = 0, mask: bool = True, form: int = 0
) -> bytes:
    """A header without its key, declaring `length`; `form` 126 or 127 asks for a longer form than needed."""
    first, mask_bit = fin << 7 | bits << 4 | opcode, mask << 7
    if form == 127 or length >= 1 << 16:
        return pack("!BBQ", first, mask_bit | 127, length)
    if form == 126 or length > 125:
        return pack("!BBH", first, mask_bit | 126, length)
    return pack("!BB", first, mask_bit | length)


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame of the server."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE
        return int(unpack_from("!H", self.payload)[0])


def read_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames in what a server sent, and what is left; anything not a plain final frame fails."""
    frames = []
    while len(data) >= 2:
        first, length, start = data[0], data[1], 2
        assert first & 0xF0 == 0x80, f"not a final, plain frame: {data[:20]!r}"
        assert first & 0x0F in {TEXT, CLOSE, PING, PONG}, f"unexpected frame: {data[:20]!r}"
        assert length < 128, f"a server doesn't mask: {data[:20]!r}"
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(data) < start:
                break
            length = int.from_bytes(data[2:start])
        if len(data) < start + length:
            break
        frames.append(Frame(first & 0x0F, data[start : start + length]))
        data = data[start + length :]
    return frames, data
