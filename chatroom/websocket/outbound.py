"""Outbound: the one ordered queue of bytes to a peer, and the only code that sends them.

Owns the queue, the sending half of the socket, and the close frame at the end. Rules:

1. Bytes go out in the order in which they were put, and frames are never cut or mixed. Bytes bypass the queue
   only if it is empty, and a chunk stays at its head until its last byte is out.
2. `offer` never waits and never raises. A broken connection is a state (`broken`), and waiting tasks are
   woken.
3. If the socket takes only part of an offered batch, we keep a copy of the current frame and drop the rest.
   The copy doesn't keep the batch in memory.
4. One task at a time flushes. If it is cancelled, the rest stays at the head of the queue.
5. A close frame is the last frame sent. It stands right behind the frame under way.
6. Bytes that the transport has taken count as sent here. If the transport holds some of them (`held`), the
   queue may be empty, but the connection is `pending`: a task has to flush.
7. Pings and pongs that are taken are no sign of life (`moved`). They are so few and small that the kernel
   takes them even for a peer that has vanished. The ping that a pong answers was a sign of life when it came
   in.

It doesn't know what the frames say, nor their source.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from chatroom.net.transport import Stalled, Transport
from chatroom.websocket.framing import Pieces, close_frame, ping_frame, pong_frame

_PING: Final = ping_frame()
_GOES_ON: Final = ()  # the `ends` of a chunk whose frame goes on in the next chunk
_CONTROL: Final = range(0)  # the `ends` of a chunk that is a ping or a pong
_PIECE: Final = 16 * 1024  # bytes that are queued at once for a peer that takes none


class Outbound:
    """The sending half of a Wire.

    `moved`: the socket has taken bytes other than pings and pongs since this was last cleared. `shut`: the
    last frame has been put, and later ones are ignored.
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
        self._clear = True  # bytes may be sent past the queue
        self._queue: list[
            tuple[bytes | memoryview, Sequence[int] | None]
        ] = []  # chunks with the ends of their frames
        self._within = False  # the frame under way goes on in the first chunk
        self._at = 0  # bytes of the first chunk that are sent
        self.broken = False
        self.moved = False
        self.shut = False

    @property
    def pending(self) -> bool:
        """Bytes wait for room at the peer."""
        return bool(self._queue) or (self._transport.held and not self.broken)

    def _offer(self, data: bytes, ends: Sequence[int]) -> int:
        """Send as much as the socket takes at once of the frames in `data`, which end at `ends`.

        Returns how many frames are sent, or under way with their rest queued.
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
        return self._enqueue_frame_under_way(data, ends, taken) if taken else 0

    offer = _offer  # by two names, so that a queue of another kind may turn what it is offered into bytes

    def feed(self, data: bytes, ends: Sequence[int]) -> int:
        """As offer, but if the socket takes nothing now, a small piece of `data` is queued.

        For the writer, which flushes between two calls. Returns 0 only if nothing may be sent any more.
        """
        if count := self._offer(data, ends):
            return count
        if self.broken or self.shut:
            return 0
        count = max(1, bisect_right(ends, _PIECE))
        self._enqueue(data[: ends[count - 1]], tuple(ends[:count]), 0)
        return count

    def put(self, data: bytes, ends: Sequence[int] | None = None) -> None:
        """Send `data`, at once or in its turn. Without `ends` it is one frame."""
        if not data or self.broken or self.shut:
            return
        self._append(data, ends)

    def put_pieces(self, frame: Pieces) -> None:
        """Send one frame in its turn. Pieces that have to wait aren't copied."""
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
        """Answer a ping in its turn, with its `payload` of at most 125 bytes.

        A pong that still waits is replaced (RFC 6455, section 5.5.3), so that a peer that pings but doesn't
        read is owed one pong.
        """
        if self.broken or self.shut:
            return
        pong = pong_frame(payload)
        for index in range(1 if self._at else 0, len(self._queue)):
            data, ends = self._queue[index]
            if ends is _CONTROL and data is not _PING:
                self._queue[index] = (pong, _CONTROL)
                return
        self._append(pong, _CONTROL)

    def close(self, code: int, reason: str) -> None:
        """Put a close frame as the last frame, and drop all that have not begun. The first call counts."""
        self.close_with(close_frame(code, reason))

    def close_with(self, frame: bytes) -> None:
        """As close, with a ready close frame."""
        if self.shut:
            return
        if not self.broken:
            self._drop_unbegun()
            self._append(frame, None)
        self._mark_shut()

    async def flush(self) -> None:
        """Send all pending bytes, or return when the connection is broken.

        Raises Stalled when the peer takes nothing for too long.
        """
        while self.pending:
            try:
                # No bytes are given to a call that waits: when there is room, the queue may have been cut.
                if not self._send_more():
                    await self._transport.wait_room()
            except Stalled:
                raise
            except OSError:
                self.hang_up()

    def _send_more(self) -> bool:
        """Send as much of the first chunk as the transport takes at once. False if it is full now."""
        if self._queue:
            taken = self._send_nowait(memoryview(self._queue[0][0])[self._at :])
            if taken:
                self._advance(taken)
        else:
            taken = self._send_nowait(b"")  # what is held
            self._update_clear()
        return not self._transport.held and (taken > 0 or not self._queue)

    def _append(self, data: bytes | memoryview, ends: Sequence[int] | None) -> None:
        """Put `data` at the end of the queue. If it is empty, send first what the socket takes at once."""
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
        self._enqueue(data, ends, taken)

    def _enqueue(self, data: bytes | memoryview, ends: Sequence[int] | None, taken: int) -> None:
        if not self._queue:
            self._at = taken
        self._queue.append((data, ends))
        self._hold()

    def remind(self) -> None:
        """Have the owner flush. Nothing else tells it of bytes that TLS holds."""
        self._on_pending()

    def _hold(self) -> None:
        """Bytes wait for room: let none bypass the queue, and have the owner flush."""
        self._clear = False
        self._on_pending()

    def _enqueue_frame_under_way(self, data: bytes, ends: Sequence[int], taken: int) -> int:
        self.moved = True
        whole = bisect_right(ends, taken)
        start = ends[whole - 1] if whole else 0
        if start == taken:
            return whole
        self._enqueue(data[start : ends[whole]], None, taken - start)
        return whole + 1

    def _advance(self, taken: int) -> None:
        """`taken` more bytes of the first chunk are sent."""
        data, ends = self._queue[0]
        if ends is not _CONTROL:
            self.moved = True
        self._at += taken
        if self._at == len(data):
            self._within = ends is _GOES_ON
            del self._queue[0]
            self._at = 0
            self._update_clear()

    def _update_clear(self) -> None:
        """Let bytes bypass the queue again if no bytes wait any more."""
        if self.pending:
            return
        self._clear = not (self.shut or self.broken)

    def _mark_shut(self) -> None:
        """Take no more frames."""
        self.shut = True
        self._clear = False
        if not (self.pending or self.broken):  # else the owner has been called already
            self._on_pending()

    def _drop_unbegun(self) -> None:
        """Drop all queued frames behind the frame under way."""
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
        self._update_clear()

    def hang_up(self) -> None:
        """The connection is broken: wake all tasks that wait to send or to receive."""
        if self.broken:
            return
        self.broken = True
        self._queue = []
        self._at = 0
        self._update_clear()
        self._transport.hang_up()
        self._on_pending()

    def forget(self) -> None:
        """The connection is over: drop the queue and the owner, so that no cycle of references is left."""
        self.hang_up()
        self._on_pending = _ignore


def _ignore() -> None:
    """The owner of a connection that is over."""
