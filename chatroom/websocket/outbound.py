"""Outbound: the one ordered queue of bytes to a peer, and the only code that sends them.

Owns: the queue, the socket's sending side, and the end of what is sent.

1. Everything goes out in the order in which it was put, and frames are never cut or mixed: bytes go past
   the queue only if it is empty, and a chunk stays at its head until its last byte is out.
2. Offering never waits and never raises. A broken connection is a state (`broken`); whoever waits is woken.
3. Of an offered batch at most the frame under way is kept, as a copy that doesn't pin the batch.
4. One task at a time flushes. If it is cancelled, the rest stays first in line.
5. A close frame is the last thing sent. It stands right behind the frame under way.
6. Bytes that the transport has taken are sent, for this module. If the transport holds some of them back
   (`held`), nothing is queued but the connection is `pending` all the same: somebody has to flush.
7. Pings and pongs are no sign that the peer lives (`moved`): they are so few and small that the kernel takes
   them for a peer that has vanished. The ping that a pong answers was a sign of its own when it came in.

Does not know: what the frames say, or who reads.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from chatroom.net.transport import Stalled, Transport
from chatroom.websocket.framing import Pieces, close_frame, ping_frame, pong_frame

_PING: Final = ping_frame()
_GOES_ON: Final = ()  # the ends of a chunk whose frame goes on in the next one
_CONTROL: Final = range(0)  # the ends of a chunk that is a ping or a pong
_PIECE: Final = 16 * 1024  # bytes that are put in line at once for a peer that takes nothing


class Outbound:
    """The sending half of a Wire.

    `moved`: bytes other than pings and pongs have been taken since this was last cleared. `shut`: the last
    frame has been put, whatever comes after it is ignored.
    """

    __slots__ = (
        "_at",
        "_clear",
        "_on_pending",
        "_queue",
        "_send_nowait",
        "_transport",
        "_within",
        "broken",
        "moved",
        "shut",
    )

    def __init__(self, transport: Transport, on_pending: Callable[[], None]) -> None:
        self._transport = transport
        self._send_nowait = transport.send_nowait
        self._on_pending = on_pending
        self._clear = True  # nothing stands in the way of a direct send
        self._queue: list[tuple[bytes | memoryview, Sequence[int] | None]] = []  # with the ends of frames
        self._within = False  # a frame is under way that goes on in the first chunk
        self._at = 0  # bytes of the first chunk that are out
        self.broken = False
        self.moved = False
        self.shut = False

    @property
    def pending(self) -> bool:
        """Something waits for room at the peer."""
        return bool(self._queue) or (self._transport.held and not self.broken)

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        """Send what the socket takes at once of the frames in `data`, which end at `ends`.

        Returns how many frames are taken care of: out, or under way with their rest queued.
        """
        if not self._clear:
            return 0
        try:
            taken = self._send_nowait(data)
        except OSError:
            self.hang_up()
            return 0
        if taken == len(data):
            self.moved = True
            if self._transport.held:
                self._hold()
            return len(ends)
        return self._keep_frame_under_way(data, ends, taken) if taken else 0

    def feed(self, data: bytes, ends: Sequence[int]) -> int:
        """As offer, but for a peer that takes nothing now, something is put in line all the same.

        For the writer, which flushes between two calls: of `data` only a small piece is held at a time.
        Returns 0 only if nothing may be sent any more.
        """
        if count := self.offer(data, ends):
            return count
        if self.broken or self.shut:
            return 0
        count = max(1, bisect_right(ends, _PIECE))
        self._line_up(data[: ends[count - 1]], tuple(ends[:count]), 0)
        return count

    def put(self, data: bytes, ends: Sequence[int] | None = None) -> None:
        """Send `data`, at once or in its turn; without `ends` it is one frame."""
        if not data or self.broken or self.shut:
            return
        self._append(data, ends)

    def put_pieces(self, frame: Pieces) -> None:
        """Send one frame in its turn; of what has to wait, no copy is made."""
        if self.broken or self.shut:
            return
        for piece in frame[:-1]:
            self._append(piece, _GOES_ON)
        self._append(frame[-1], None)

    def ping(self) -> None:
        """Send a ping in its turn."""
        if not (self.broken or self.shut):
            self._append(_PING, _CONTROL)

    def pong(self, payload: bytes) -> None:
        """Answer a ping in its turn; `payload`, at most 125 bytes, is that of the ping.

        A pong that still waits is replaced by this one (RFC 6455 section 5.5.3), so that a peer that pings
        but doesn't read is owed one pong.
        """
        if self.broken or self.shut:
            return
        pong = pong_frame(payload)
        for place in range(1 if self._at else 0, len(self._queue)):
            data, ends = self._queue[place]
            if ends is _CONTROL and data is not _PING:
                self._queue[place] = (pong, _CONTROL)
                return
        self._append(pong, _CONTROL)

    def close(self, code: int, reason: str) -> None:
        """Make a close frame the last thing sent; what has not begun is dropped. The first call counts."""
        self.close_with(close_frame(code, reason))

    def close_with(self, frame: bytes) -> None:
        """As close does, with a ready close frame."""
        if self.shut:
            return
        if not self.broken:
            self._cut()
            self._append(frame, None)
        self._shut_up()

    async def flush(self) -> None:
        """Send all that is pending, or return when the connection is broken.

        Raises Stalled when the peer takes nothing for too long.
        """
        while self.pending:
            try:
                # Nothing is handed to a waiting call: by the time there is room, the queue may have been cut.
                if not self._send_more():
                    await self._transport.wait_room()
            except Stalled:
                raise
            except OSError:
                self.hang_up()

    def _send_more(self) -> bool:
        """Send what the transport takes at once of the first chunk; false if there is no room for more."""
        if self._queue:
            taken = self._send_nowait(memoryview(self._queue[0][0])[self._at :])
            if taken:
                self._advance(taken)
        else:
            taken = self._send_nowait(b"")  # what is held
            self._settle()
        return not self._transport.held and (taken > 0 or not self._queue)

    def _append(self, data: bytes | memoryview, ends: Sequence[int] | None) -> None:
        """Put `data` last in line, and send of it what can go at once if it is the first, too."""
        if self.broken:
            return
        taken = 0
        if self._clear:
            try:
                taken = self._send_nowait(data)
            except OSError:
                self.hang_up()
                return
            self.moved = self.moved or (taken > 0 and ends is not _CONTROL)
            if taken == len(data):
                self._within = ends is _GOES_ON
                if self._transport.held:
                    self._hold()
                return
        self._line_up(data, ends, taken)

    def _line_up(self, data: bytes | memoryview, ends: Sequence[int] | None, taken: int) -> None:
        if not self._queue:
            self._at = taken
        self._queue.append((data, ends))
        self._hold()

    def remind(self) -> None:
        """Have the owner flush what is pending: of what TLS holds by itself it has not been told."""
        self._on_pending()

    def _hold(self) -> None:
        """Something waits for room: nothing goes past it, and somebody has to flush."""
        self._clear = False
        self._on_pending()

    def _keep_frame_under_way(self, data: bytes, ends: Sequence[int], taken: int) -> int:
        self.moved = True
        whole = bisect_right(ends, taken)
        start = ends[whole - 1] if whole else 0
        if start == taken:
            return whole
        self._line_up(data[start : ends[whole]], None, taken - start)
        return whole + 1

    def _advance(self, taken: int) -> None:
        """`taken` more bytes of the first chunk are out."""
        data, ends = self._queue[0]
        if ends is not _CONTROL:
            self.moved = True
        self._at += taken
        if self._at == len(data):
            self._within = ends is _GOES_ON
            del self._queue[0]
            self._at = 0
            self._settle()

    def _settle(self) -> None:
        """Something that waited may be out or dropped. If nothing waits any more, sending is direct again."""
        if self.pending:
            return
        self._clear = not (self.shut or self.broken)

    def _shut_up(self) -> None:
        """Take nothing more."""
        self.shut = True
        self._clear = False
        if not (self.pending or self.broken):  # of which the owner has been told
            self._on_pending()

    def _cut(self) -> None:
        """Drop all that is queued behind the frame under way."""
        kept: list[tuple[bytes | memoryview, Sequence[int] | None]] = []
        for data, ends in self._queue if self._at or self._within else ():
            if ends is _GOES_ON:
                kept.append((data, ends))
                continue
            end = ends[bisect_left(ends, self._at)] if ends else len(data)
            if kept or self._at < end:
                kept.append((data[:end], ends if ends is _CONTROL else None))
            break
        self._queue = kept
        self._at = self._at if kept else 0
        self._settle()

    def hang_up(self) -> None:
        """Nothing can be sent any more: say so to whoever waits, to receive as well."""
        if self.broken:
            return
        self.broken = True
        self._queue = []
        self._at = 0
        self._settle()
        self._transport.hang_up()
        self._on_pending()

    def forget(self) -> None:
        """It is over: let go of the queue and of the owner, who is not to wait for the collector of
        cycles."""
        self.hang_up()
        self._on_pending = _nobody


def _nobody() -> None:
    """Stands for the owner when the connection is over."""
