"""WebSocket frames, as far as this server handles them itself (RFC 6455 section 5).

Owns: building the frames we send, and watching the bytes a client sends before the parser sees them.

1. What we send is one unmasked frame per message, never fragmented.
2. The scanner never unmasks and never keeps payload: at most one incomplete header.
3. A message is judged by what its headers declare, so that the bytes of a refused one are never parsed.
4. Framing errors are the parser's to answer. The scanner only notices that it can't follow any more.
5. After a client's close frame nothing may reach the parser: it has no state for it.
6. After a fault the scanner goes on following the frames, so that the client's close can still be found.

Does not know: text, JSON, UTF-8, sockets, clocks.
"""

from struct import pack

from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect
from chatroom.values.limits import Limits

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_CONTROL_BIT = 0x8
_FIN = 0x80
_RESERVED = 0x70
_MASKED = 0x80
_CONTROL_BYTES = 125
_KEY_BYTES = 4
_LONGEST_HEADER = 10  # without the key, which the scanner counts as payload


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
        return pack("!BB", _FIN | opcode, size) + payload
    if size < 1 << 16:
        return pack("!BBH", _FIN | opcode, 126, size) + payload
    return pack("!BBQ", _FIN | opcode, 127, size) + payload


class FrameScanner:
    """Follows a client's frames and says how far the parser may see them.

    `fault` is set once, when the client broke a limit; `closed` when its close frame is complete;
    `lost` when it broke the framing, so that nothing after can be told apart; `since` is the time of
    the first byte of a message or frame that is not finished yet.
    """

    __slots__ = (
        "_binary",
        "_fragments",
        "_head",
        "_in_message",
        "_left",
        "_limits",
        "_opcode",
        "_paid_until",
        "_size",
        "closed",
        "fault",
        "lost",
        "since",
    )

    def __init__(self, limits: Limits, *, binary: bool = False) -> None:
        self._limits = limits
        self._binary = binary
        self._head = b""  # of a header that has arrived in part
        self._left = 0  # bytes of the frame's key and payload still to come
        self._opcode = CONTINUATION
        self._in_message = False
        self._fragments = 0
        self._size = 0
        self._paid_until = 0.0
        self.since: float | None = None
        self.fault: Disconnect | None = None
        self.closed = False
        self.lost = False

    def pause(self, seconds: float) -> None:
        """Nobody was reading for so long: the time doesn't count against an unfinished message."""
        if self.since is not None:
            self.since += seconds

    def give_up_waiting(self) -> None:
        """The unfinished message has taken too long."""
        self._refuse(CloseCode.POLICY, f"message not finished in {self._limits.frame_seconds:g} seconds")

    def scan(self, data: bytes, now: float) -> int:
        """Follow what arrived at `now`; return how many of its bytes, from the start, the parser may have."""
        at, end, allowed = 0, len(data), 0
        while at < end and not self.closed:
            if self.since is None:
                self.since = now
            if self.lost:
                at = end
            elif self._left:
                step = min(self._left, end - at)
                at += step
                self._left -= step
                if not self._left:
                    self._end_frame()
            else:
                at = self._read_header(data, at, now)
            if self.fault is None:
                allowed = at
        return allowed

    def _read_header(self, data: bytes, at: int, now: float) -> int:
        """Take header bytes from `data` at `at`; return where they end."""
        known = len(self._head)
        head = self._head + data[at : at + _LONGEST_HEADER - known]
        if len(head) < 2:
            self._head = head
            return len(data)
        first, second = head[0], head[1]
        opcode, length = first & 0x0F, second & 0x7F
        control = opcode & _CONTROL_BIT
        if opcode not in _KNOWN or (control and (not first & _FIN or length > _CONTROL_BYTES)):
            self.lost = True
            return len(data)
        size = 2
        if length >= 126:
            size, least = (4, 126) if length == 126 else (10, 1 << 16)
            if len(head) < size:
                self._head = head
                return len(data)
            length = int.from_bytes(head[2:size])
            self.lost = length < least or length >> 63 != 0
        self._head = b""
        if self.lost or first & _RESERVED or not second & _MASKED:
            self.lost = True
            return len(data)
        self._left = length + _KEY_BYTES
        self._opcode = opcode
        if control:
            self._count_control(now)
        else:
            self._count_fragment(opcode, length, fin=bool(first & _FIN))
        return at + size - known

    def _count_control(self, now: float) -> None:
        """Each control frame takes its slice of a second; a second's worth may come at once."""
        rate = self._limits.control_rate
        if rate <= 0:  # lifted
            return
        self._paid_until = max(self._paid_until, now) + 1 / rate
        if self._paid_until > now + 1 + 0.5 / rate:  # half a frame is for rounding
            self._refuse(CloseCode.POLICY, f"more than {rate:g} control frames a second")

    def _count_fragment(self, opcode: int, length: int, *, fin: bool) -> None:
        begins = opcode != CONTINUATION
        if begins == self._in_message:
            self.lost = True
            return
        if begins:
            self._fragments = self._size = 0
        self._fragments += 1
        self._size += length
        self._in_message = not fin
        limits = self._limits
        if opcode == BINARY and not self._binary:
            self._refuse(CloseCode.UNSUPPORTED_DATA, "binary messages are not understood, send text")
        elif self._size > limits.frame_bytes:
            self._refuse(CloseCode.TOO_BIG, f"message of more than {limits.frame_bytes} bytes")
        elif self._fragments > limits.frame_fragments:
            self._refuse(CloseCode.POLICY, f"message in more than {limits.frame_fragments} fragments")

    def _end_frame(self) -> None:
        self.closed = self._opcode == CLOSE
        if self.closed or not self._in_message:
            self.since = None

    def _refuse(self, code: CloseCode, reason: str) -> None:
        if self.fault is None:
            self.fault = Disconnect(code, reason)
