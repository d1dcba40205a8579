"""WebSocket frames as this server sends them (RFC 6455 section 5): unmasked, one to a message.

Does not know: text, JSON, UTF-8, sockets.
"""

from struct import pack

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
_CONTROL_BYTES = 125


def text_frame(payload: bytes) -> bytes:
    """One whole text message."""
    return _frame(TEXT, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping; the peer's pong will carry the same payload, of at most 125 bytes."""
    if len(payload) > _CONTROL_BYTES:
        raise ValueError("a control frame carries at most 125 bytes")
    return _frame(PING, payload)


def close_frame(code: int, reason: str) -> bytes:
    """A close frame; a reason too long for it is cut at a character boundary."""
    text = reason.encode("utf-8", "replace")
    if len(text) > _CONTROL_BYTES - 2:
        text = text[: _CONTROL_BYTES - 2].decode("utf-8", "ignore").encode()
    return _frame(CLOSE, pack("!H", code) + text)


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return pack("!BB", FIN | opcode, size) + payload
    if size < 1 << 16:
        return pack("!BBH", FIN | opcode, 126, size) + payload
    return pack("!BBQ", FIN | opcode, 127, size) + payload


def unmask(key: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """What a client masked with `key`, of four bytes (section 5.3).

    One operation on two long numbers, so that Python works as often for a byte as for a million.
    """
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)
