"""Outbound: the one ordered queue of bytes to a peer, and the only code that sends them.

Owns: the queue, the socket's sending side, and the end of what is sent.

1. Everything goes out in the order in which it was put, and frames are never cut or mixed: bytes go past
   the queue only if it is empty, and a chunk stays at its head until its last byte is out.
2. Offering never waits and never raises. A broken connection is a state (`broken`); whoever waits is woken.
3. Of an offered batch at most the frame under way is kept, as a copy that doesn't pin the batch.
4. One task at a time flushes. What a cancelled flush has not sent stays first in line, unless the
   transport was torn: then nothing may follow.
5. A close frame is the last thing sent. It stands right behind the frame under way.

Does not know: what the frames say, or who reads.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Final

import trio

from chatroom.adapters.transport import Stalled, Transport
from chatroom.pure.frames import close_frame, ping_frame

_PING: Final = ping_frame()
_PIECE: Final = 16 * 1024  # what is put under way at once for a peer that takes nothing directly


class Outbound:
    """The sending half of a Wire.

    `pending`: something is queued, or on its way. `moved`: the peer's side has taken bytes since this
    was last cleared. `shut`: the last frame has been put, whatever comes after it is ignored.
    """

    __slots__ = (
        "_at",
        "_clear",
        "_flying",
        "_gone",
        "_on_pending",
        "_progress",
        "_put",
        "_queue",
        "_send_nowait",
        "_transport",
        "broken",
        "moved",
        "shut",
    )

    def __init__(self, transport: Transport, on_pending: Callable[[], None]) -> None:
        self._transport = transport
        self._send_nowait = transport.send_nowait
        self._on_pending = on_pending
        self._clear = transport.direct  # nothing stands in the way of a direct send
        self._queue: list[tuple[bytes, Sequence[int] | None]] = []  # chunks, with the ends of their frames
        self._at = 0  # bytes of the first chunk that are out
        self._flying = 0  # bytes after those that the transport is busy with
        self._put = 0  # bytes ever queued
        self._gone = 0  # of those, bytes sent or dropped
        self._progress: trio.Event | None = None
        self.broken = False
        self.moved = False
        self.shut = False

    @property
    def pending(self) -> bool:
        return bool(self._queue)

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        """Send what the socket takes at once of the frames in `data`, which end at `ends`.

        Returns how many frames are taken care of: out, or under way with their rest queued.
        """
        if not self._clear:
            return 0
        try:
            taken = self._send_nowait(data)
        except OSError:
            self._break()
            return 0
        if taken == len(data):
            self.moved = True
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

    def ping(self) -> None:
        """Send a ping, which as the only thing sent is no sign that the peer lives."""
        self.put(_PING)

    def close(self, code: int, reason: str) -> None:
        """Make a close frame the last thing sent; what has not begun is dropped. The first call counts."""
        self._close_with(close_frame(code, reason))

    async def flush(self) -> None:
        """Send all that is queued, or return when the connection is broken.

        Raises Stalled when the peer takes nothing for too long.
        """
        while self._queue and not self.broken:
            try:
                taken = await self._send_first()
            except Stalled:
                raise
            except OSError:
                self._break()
            else:
                self._advance(taken)

    async def _send_first(self) -> int:
        """Send something of the first chunk, or wait for room without sending anything."""
        view = memoryview(self._queue[0][0])[self._at :]
        if not self._transport.direct:
            return await self._send_piece(view[:_PIECE])
        if taken := self._send_nowait(view):
            return taken
        # Nothing is handed to a waiting call: by the time there is room, the queue may have been cut.
        await self._transport.wait_room()
        return 0

    async def _send_piece(self, piece: memoryview) -> int:
        self._flying = len(piece)
        try:
            return await self._transport.send_some(piece)
        finally:
            self._flying = 0
            if self._transport.torn:
                self._break()

    async def _wait_out(self) -> None:
        """Wait until all that is queued now is sent or dropped. The connection may be broken then."""
        mark = self._put
        while self._gone < mark and not self.broken:
            if self._progress is None:
                self._progress = trio.Event()
            await self._progress.wait()

    def _append(self, data: bytes, ends: Sequence[int] | None) -> None:
        """Put `data` last in line, and send of it what can go at once if it is the first, too."""
        taken = 0
        if self._clear:
            try:
                taken = self._send_nowait(data)
            except OSError:
                self._break()
                return
            self.moved = self.moved or (taken > 0 and data is not _PING)
            if taken == len(data):
                return
        self._line_up(data, ends, taken)

    def _line_up(self, data: bytes, ends: Sequence[int] | None, taken: int) -> None:
        if not self._queue:
            self._at = taken
        self._clear = False
        self._put += len(data) - taken
        self._queue.append((data, ends))
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
        if not taken or self.broken:
            return
        data = self._queue[0][0]
        if data is not _PING:
            self.moved = True
        self._at += taken
        self._gone += taken
        if self._at == len(data):
            del self._queue[0]
            self._at = 0
            self._clear = not self._queue and not self.shut and self._transport.direct
        self._wake()

    def _close_with(self, last: bytes) -> None:
        if self.shut:
            return
        if not self.broken:
            self._cut()
            self._append(last, None)
        self._shut_up()

    def _shut_up(self) -> None:
        """Take nothing more."""
        self.shut = True
        self._clear = False

    def _cut(self) -> None:
        """Drop all that is queued behind the frame under way."""
        begun = self._at + self._flying
        kept: list[tuple[bytes, Sequence[int] | None]] = []
        if begun:
            data, ends = self._queue[0]
            end = len(data) if ends is None else ends[bisect_left(ends, begun)]
            if self._at < end:
                kept.append((data[:end], None))
        self._queue = kept
        self._at = self._at if kept else 0
        self._gone = self._put - sum(len(data) for data, _ in kept) + self._at
        self._clear = not kept and self._transport.direct and not self.broken
        self._wake()

    def _break(self) -> None:
        """Nothing can be sent any more: say so to whoever waits, the reader's side included."""
        if self.broken:
            return
        self.broken = True
        self._clear = False
        self._queue = []
        self._at = 0
        self._gone = self._put
        self._wake()
        self._transport.hang_up()
        self._on_pending()

    def _wake(self) -> None:
        if self._progress is not None:
            self._progress.set()
            self._progress = None
