"""WebSocket frames as this server sends them (RFC 6455 section 5): unmasked, one to a message.

Does not know: text, JSON, UTF-8, sockets.
"""

from collections.abc import Sequence
from struct import Struct, pack

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
_CONTROL_BYTES = 125
_short_head = Struct("!BB").pack
_medium_head = Struct("!BBH").pack
_long_head = Struct("!BBQ").pack
_number = int.from_bytes

Pieces = Sequence[bytes | memoryview]
"""Bytes that belong together, in pieces that may be shared with others."""
LARGE = 16 * 1024
"""From so many bytes on, a frame is worth leaving in pieces."""


def text_frame(payload: bytes) -> bytes:
    """One whole text message."""
    return _head(TEXT, len(payload)) + payload


def text_frame_of(pieces: Pieces) -> Pieces:
    """One whole text message whose payload comes in pieces; a large one stays in them."""
    size = sum(map(len, pieces))
    if size < LARGE:
        return (_frame(TEXT, b"".join(pieces)),)
    return (_head(TEXT, size) + pieces[0], *pieces[1:])


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping; the peer's pong will carry the same payload, of at most 125 bytes."""
    return _control(PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this payload, of at most 125 bytes."""
    return _control(PONG, payload)


def close_reply_frame(payload: bytes) -> bytes:
    """The answer to a close frame with this payload: it says the same."""
    return _frame(CLOSE, payload)


def close_frame(code: int, reason: str) -> bytes:
    """A close frame; a reason too long for it is cut at a character boundary."""
    text = reason.encode("utf-8", "replace")
    if len(text) > _CONTROL_BYTES - 2:
        text = text[: _CONTROL_BYTES - 2].decode("utf-8", "ignore").encode()
    return _frame(CLOSE, pack("!H", code) + text)


def _control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > _CONTROL_BYTES:
        raise ValueError("a control frame carries at most 125 bytes")
    return _frame(opcode, payload)


def _frame(opcode: int, payload: bytes) -> bytes:
    return _head(opcode, len(payload)) + payload


def _head(opcode: int, size: int) -> bytes:
    if size < 126:
        return _short_head(FIN | opcode, size)
    if size < 1 << 16:
        return _medium_head(FIN | opcode, 126, size)
    return _long_head(FIN | opcode, 127, size)


def unmask(key: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """What a client masked with `key`, of four bytes (section 5.3).

    One operation on two long numbers, so that Python works as often for a byte as for a million.
    """
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (_number(payload) ^ _number(mask)).to_bytes(size)
