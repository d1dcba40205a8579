"""WebSocket framing in both directions (RFC 6455, section 5).

Owns the frames that the server sends, and the parser of those that a client sends. Rules:

1. The server sends one unmasked frame for each message.
2. A message is judged by the headers of its frames, so that no byte of a refused message is kept.
3. A ping is to be answered by a pong, and a close frame by the same close frame. A pong is only a sign of
   life. A close frame with an invalid code or reason is a fault, and closes all the same.
4. No message is returned behind a fault or a close frame. After a fault the parser still follows the frames,
   so that it finds the client's close. It can't where the framing itself is broken.
5. At most one unfinished message is kept, and the bytes of one read that nobody has taken yet.
6. A text message in one frame, by far the most frequent case, takes a short way to the same result.

It doesn't know JSON, sockets or clocks.
"""

from collections.abc import Sequence
from struct import Struct, pack

from chatroom.core.errors import CloseCode, Disconnect
from chatroom.core.limits import Limits

# Frames to send

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
"""Frames of at least so many bytes stay in pieces."""


def text_frame(payload: bytes) -> bytes:
    """One whole text message."""
    return _head(TEXT, len(payload)) + payload


def text_frame_of(pieces: Pieces) -> Pieces:
    """One whole text message with a payload in pieces. A large one stays in pieces."""
    size = sum(map(len, pieces))
    if size < LARGE:
        return (_frame(TEXT, b"".join(pieces)),)
    return (_head(TEXT, size) + pieces[0], *pieces[1:])


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping. The peer's pong will carry the same payload, of at most 125 bytes."""
    return _control(PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this payload, of at most 125 bytes."""
    return _control(PONG, payload)


def close_reply_frame(payload: bytes) -> bytes:
    """The answer to a close frame: one with the same payload."""
    return _frame(CLOSE, payload)


def close_frame(code: int, reason: str) -> bytes:
    """A close frame. A reason that is too long is cut at a character boundary."""
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
    """The payload that a client masked with `key`, of four bytes (RFC 6455, section 5.3).

    It is one operation on two long numbers, so Python's work doesn't grow with the number of bytes.
    """
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (_number(payload) ^ _number(mask)).to_bytes(size)


# Frames of a client

_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_CONTROL_BIT = 0x8
_RESERVED = 0x70
_MASKED = 0x80
_KEY_BYTES = 4
_WHOLE_TEXT = FIN | TEXT
_SHORT_HEADER = 2 + _KEY_BYTES
_MEDIUM_HEADER = 4 + _KEY_BYTES
_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1014), *range(3000, 5000)))
"""The codes that a client may close with (RFC 6455, section 7.4, and the IANA registry until 1013)."""
BROKEN_FRAMING = Disconnect(CloseCode.PROTOCOL_ERROR, "protocol error")
NOT_UTF8 = Disconnect(CloseCode.INVALID_UTF8, "text is not UTF-8")


class Inbound:
    """The parser of one client's bytes. `feed` it what arrives, and call `next` until it returns None.

    `pings` are the payloads of the pings that `next` has passed, or None. The caller answers and clears them
    before it takes the message that `next` returned, since that came behind them.

    `fault` is set once, when the client has broken a rule. `lost` is set when the framing is broken, so that
    later frames can't be told apart. `closed` is set when the client's close frame has come. Then
    `close_reply` is the frame that answers it, unless there is a fault to send instead, or the client is
    ignored.

    `since` is the time of the first byte of a message or frame that isn't finished yet.
    """

    __slots__ = (
        "_arrived",
        "_at",
        "_binary",
        "_closing",
        "_data",
        "_fragment_count",
        "_fragments",
        "_ignoring",
        "_judged",
        "_limits",
        "_paid_until",
        "_size",
        "_skip",
        "_text",
        "close_reply",
        "closed",
        "fault",
        "lost",
        "pings",
        "since",
    )

    def __init__(self, limits: Limits, *, binary: bool = False) -> None:
        self._limits = limits
        self._binary = binary
        self._data: bytes | bytearray = b""
        self._at = 0  # where the next frame begins in it
        self._arrived = 0.0  # when its last bytes came
        self._judged = False  # the header of the next frame has been counted
        self._fragments: list[bytes] | None = None  # of a message that is not finished
        self._text = True  # whether that message is text
        self._fragment_count = 0
        self._size = 0
        self._paid_until = 0.0
        self._ignoring = False  # no message is returned any more
        self._skip = 0  # further bytes of a frame that isn't kept
        self._closing = False  # whether that frame is a close frame
        self.pings: list[bytes] | None = None
        self.since: float | None = None
        self.fault: Disconnect | None = None
        self.closed = False
        self.close_reply = b""
        self.lost = False

    def pause(self, seconds: float) -> None:
        """Nobody has read for so many seconds. They don't count against an unfinished message."""
        if self.since is not None:
            self.since += seconds

    def give_up_waiting(self) -> None:
        """The unfinished message has taken too long."""
        self._refuse(CloseCode.POLICY, f"message not finished in {self._limits.frame_seconds:g} seconds")

    def ignore(self) -> None:
        """Return no more messages, and only look for the client's close frame."""
        self._ignoring = True
        self._fragments = None
        self._follow()

    def feed(self, data: bytes, now: float) -> None:
        """Take the bytes that arrived at `now`. That time counts, whenever the messages are taken."""
        if self.closed or self.lost or not data:
            return
        self._arrived = now
        if self.since is None:
            self.since = now
        if self._at == len(self._data):
            self._data = data
        else:
            if self._at or isinstance(self._data, bytes):
                self._data = bytearray(self._data[self._at :])
            self._data += data
        self._at = 0
        if self._ignoring:
            self._follow()

    def next(self) -> str | bytes | None:
        """The next message. None if a fault, a close frame or the end of the bytes comes first."""
        if not self._data:
            return None
        if (text := self._whole_text()) is not None:
            return text
        while not (self._ignoring or self.closed) and (header := self._header()) is not None:
            first, start, length = header
            if not self._judged:
                self._judge(first, length)
                if self._ignoring:
                    break
            data, at = self._data, self._at
            end = at + start + length
            if end > len(data):
                break
            self._judged = False
            self._at = end
            payload = unmask(data[at + start - _KEY_BYTES : at + start], data[at + start : end])
            message = None
            if first & _CONTROL_BIT:
                self._note_control(first & 0x0F, payload)
            else:
                message = self._add_fragment(first, payload)
            self._end_frame()
            if message is not None:
                return message
        return None

    def _whole_text(self) -> str | None:
        """The next message, if it is a valid text message in one whole frame (rule 6)."""
        data, at = self._data, self._at
        if len(data) - at < _SHORT_HEADER or data[at] != _WHOLE_TEXT or self._fragments is not None:
            return None
        size = data[at + 1] - _MASKED
        if 0 <= size < 126:
            start, length = at + _SHORT_HEADER, size
        elif size == 126 and (length := int.from_bytes(data[at + 2 : at + 4])) >= 126:
            start = at + _MEDIUM_HEADER
        else:
            return None
        end = start + length
        if end > len(data) or length > self._limits.frame_bytes:
            return None
        try:
            text = unmask(data[start - _KEY_BYTES : start], data[start:end]).decode()
        except UnicodeDecodeError:
            return None
        self._judged = False
        self._at = end
        self._end_frame()
        return text

    def _header(self) -> tuple[int, int, int] | None:
        """First byte, size of header and key, and length of the next frame. None if it hasn't come yet."""
        data, at = self._data, self._at
        have = len(data) - at
        if have < 2:
            return None
        first, second = data[at], data[at + 1]
        length, size = second & 0x7F, 2
        sound = not first & _CONTROL_BIT or (first & FIN and length <= _CONTROL_BYTES)
        if sound and length >= 126:
            size, least = (4, 126) if length == 126 else (10, 1 << 16)
            if have < size:
                return None
            length = int.from_bytes(data[at + 2 : at + size])
            sound = least <= length < 1 << 63
        if not sound or first & 0x0F not in _KNOWN or first & _RESERVED or not second & _MASKED:
            self._lose()
            return None
        return first, size + _KEY_BYTES, length

    def _lose(self) -> None:
        self.lost = True
        self._data, self._at = b"", 0
        if not self._ignoring:
            self._fail(BROKEN_FRAMING)

    def _judge(self, first: int, length: int) -> None:
        """Count a frame by its header."""
        self._judged = True
        if first & _CONTROL_BIT:
            self._count_control()
        else:
            self._count_fragment(first & 0x0F, length)

    def _count_control(self) -> None:
        """Each control frame takes its share of a second. As many as one second holds may come at once."""
        rate = self._limits.control_rate
        if rate <= 0:  # lifted
            return
        self._paid_until = max(self._paid_until, self._arrived) + 1 / rate
        if self._paid_until > self._arrived + 1 + 0.5 / rate:  # half a frame is for rounding
            self._refuse(CloseCode.POLICY, f"more than {rate:g} control frames a second")

    def _count_fragment(self, opcode: int, length: int) -> None:
        begins = opcode != CONTINUATION
        if begins == (self._fragments is not None):
            self._lose()
            return
        if begins:
            self._fragment_count = self._size = 0
        self._fragment_count += 1
        self._size += length
        limits = self._limits
        if opcode == BINARY and not self._binary:
            self._refuse(CloseCode.UNSUPPORTED_DATA, "binary messages are not understood, send text")
        elif self._size > limits.frame_bytes:
            self._refuse(CloseCode.TOO_BIG, f"message of more than {limits.frame_bytes} bytes")
        elif self._fragment_count > limits.frame_fragments:
            self._refuse(CloseCode.POLICY, f"message in more than {limits.frame_fragments} fragments")

    def _note_control(self, opcode: int, payload: bytes) -> None:
        """Note the ping or the close frame that is to be answered."""
        if opcode == PING:
            if self.pings is None:
                self.pings = []
            self.pings.append(payload)
        elif opcode == CLOSE:
            self.closed = True
            self._fragments = None
            if (fault := _fault_of_close(payload)) is None:
                self.close_reply = close_reply_frame(payload)
            else:
                self._fail(fault)

    def _add_fragment(self, first: int, payload: bytes) -> str | bytes | None:
        """Add a fragment. Returns the message if this was its last fragment."""
        if opcode := first & 0x0F:
            self._text = opcode == TEXT
        if not first & FIN:
            if self._fragments is None:
                self._fragments = []
            self._fragments.append(payload)
            return None
        if self._fragments is not None:
            payload = b"".join((*self._fragments, payload))
            self._fragments = None
        if not self._text:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            self._fail(NOT_UTF8)
            return None

    def _end_frame(self) -> None:
        """Restart the clock of unfinished messages with the next message."""
        rest = self._at < len(self._data) and not self.closed
        if not rest:
            self._data, self._at = b"", 0
        if self._fragments is None:
            self.since = self._arrived if rest else None

    def _follow(self) -> None:
        """Skip frames up to a close frame (rule 4)."""
        while not (self.closed or self.lost):
            if not self._skip:
                if self._closing:
                    self.closed = True
                    break
                if (header := self._header()) is None:
                    break
                first, size, self._skip = header
                self._skip += size
                self._closing = first & 0x0F == CLOSE
            step = min(self._skip, len(self._data) - self._at)
            self._at += step
            self._skip -= step
            if self._skip:
                break
        if self._at == len(self._data) or self.closed:
            self._data, self._at = b"", 0

    def _refuse(self, code: CloseCode, reason: str) -> None:
        self._fail(Disconnect(code, reason))

    def _fail(self, fault: Disconnect) -> None:
        self.fault = self.fault or fault
        self.ignore()


def _fault_of_close(payload: bytes) -> Disconnect | None:
    """The fault of a close frame. It must be empty, or have a valid code and a reason in UTF-8."""
    if payload and int.from_bytes(payload[:2]) not in _CLOSE_CODES:
        return BROKEN_FRAMING
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    return None
