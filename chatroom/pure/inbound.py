"""What a client sends, taken apart into messages and control frames (RFC 6455 section 5).

1. A message is judged by what its headers declare, so that not a byte of a refused one is kept.
2. Control frames are handed out as they came, for the library to answer; what breaks the framing is not.
3. Nothing is handed out behind a fault or a close frame. After a fault the frames are followed all the
   same, so that the client's close can still be found; where the framing is broken, they can't be.
4. What is kept is at most one unfinished message, and what one read brought and nobody has taken yet.

Does not know: JSON, sockets, clocks.
"""

from chatroom.pure.frames import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, unmask
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect
from chatroom.values.limits import Limits

_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_CONTROL_BIT = 0x8
_RESERVED = 0x70
_MASKED = 0x80
_CONTROL_BYTES = 125
_KEY_BYTES = 4
BROKEN_FRAMING = Disconnect(CloseCode.PROTOCOL_ERROR, "protocol error")
NOT_UTF8 = Disconnect(CloseCode.INVALID_UTF8, "text is not UTF-8")


class Inbound:
    """One client's bytes: `feed` it what arrives, and call `next` until it has nothing more.

    `control` is a control frame that `next` has come upon, to be taken from here. `fault` is set once, when
    the client broke a rule; `closed` when its close frame has come; `lost` when the framing is broken, so
    that nothing after can be told apart; `since` is the time of the first byte of a message or frame that is
    not finished yet.
    """

    __slots__ = (
        "_arrived",
        "_at",
        "_binary",
        "_closing",
        "_data",
        "_fragments",
        "_ignoring",
        "_judged",
        "_limits",
        "_paid_until",
        "_parts",
        "_size",
        "_skip",
        "_text",
        "closed",
        "control",
        "fault",
        "lost",
        "since",
    )

    def __init__(self, limits: Limits, *, binary: bool = False) -> None:
        self._limits = limits
        self._binary = binary
        self._data: bytes | bytearray = b""
        self._at = 0  # where in it the next frame begins
        self._arrived = 0.0  # when the last of it came
        self._judged = False  # the header there has been counted
        self._parts: list[bytes] | None = None  # of a message that is not finished
        self._text = True  # and whether it is text
        self._fragments = 0
        self._size = 0
        self._paid_until = 0.0
        self._ignoring = False  # nothing is handed out any more
        self._skip = 0  # bytes still to come of a frame that is not kept
        self._closing = False  # and whether it is a close frame
        self.control = b""
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

    def ignore(self) -> None:
        """Hand out nothing more, and only look for the client's close."""
        self._ignoring = True
        self._parts = None
        self._follow()

    def feed(self, data: bytes, now: float) -> None:
        """Take what arrived at `now`; the time that counts, however much later it is taken from here."""
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
        """The next message; None if there is none, or a control frame or a fault comes before it."""
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
            if first & _CONTROL_BIT:
                self.control = bytes(data[at:end])
                self.closed = first & 0x0F == CLOSE
                self._end_frame()
                break
            payload = unmask(data[at + start - _KEY_BYTES : at + start], data[at + start : end])
            message = self._add_fragment(first, payload)
            self._end_frame()
            if message is not None:
                return message
        return None

    def _header(self) -> tuple[int, int, int] | None:
        """First byte, size of header and key, declared length of the next frame; None if not there yet."""
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
        """Each control frame takes its slice of a second; a second's worth may come at once."""
        rate = self._limits.control_rate
        if rate <= 0:  # lifted
            return
        self._paid_until = max(self._paid_until, self._arrived) + 1 / rate
        if self._paid_until > self._arrived + 1 + 0.5 / rate:  # half a frame is for rounding
            self._refuse(CloseCode.POLICY, f"more than {rate:g} control frames a second")

    def _count_fragment(self, opcode: int, length: int) -> None:
        begins = opcode != CONTINUATION
        if begins == (self._parts is not None):
            self._lose()
            return
        if begins:
            self._fragments = self._size = 0
        self._fragments += 1
        self._size += length
        limits = self._limits
        if opcode == BINARY and not self._binary:
            self._refuse(CloseCode.UNSUPPORTED_DATA, "binary messages are not understood, send text")
        elif self._size > limits.frame_bytes:
            self._refuse(CloseCode.TOO_BIG, f"message of more than {limits.frame_bytes} bytes")
        elif self._fragments > limits.frame_fragments:
            self._refuse(CloseCode.POLICY, f"message in more than {limits.frame_fragments} fragments")

    def _add_fragment(self, first: int, payload: bytes) -> str | bytes | None:
        """The message, if this was the last of it."""
        if opcode := first & 0x0F:
            self._text = opcode == TEXT
        if not first & FIN:
            if self._parts is None:
                self._parts = []
            self._parts.append(payload)
            return None
        if self._parts is not None:
            payload = b"".join((*self._parts, payload))
            self._parts = None
        if not self._text:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            self._fail(NOT_UTF8)
            return None

    def _end_frame(self) -> None:
        """The clock of what is not finished starts anew with the next message."""
        rest = self._at < len(self._data)
        if not rest:
            self._data, self._at = b"", 0
        if self.closed or self._parts is None:
            self.since = self._arrived if rest and not self.closed else None

    def _follow(self) -> None:
        """Rule 3: skip frames up to a close frame."""
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
