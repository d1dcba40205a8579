"""Standard output for lines that have to get through, each once, however slow their reader is.

    put ─► pieces of whole lines ─► a thread that writes ─► reached: how far the reader has got

Owns what is written and the count of it. Rules:

1. `put` waits while more than WAITING_BYTES wait. So a slow reader slows whoever puts, and nothing piles up.
2. A descriptor is shared with other processes, so it stays as it is, blocking mostly, and a thread writes.
3. A piece has PIPE_BYTES at most, and is written when there is room for it: a pipe takes it as a whole then.
   Whoever cancels `run` has the thread stop behind a line. So `reached` is exact at the end.
4. A reader that has gone ends it: at the next write, or at once where standard output is a pipe.

It doesn't know what a line says.
"""

import fcntl
import os
import select
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import trio

from chatroom.core.errors import StartError
from chatroom.system.stdio import STANDARD_OUT

WAITING_BYTES = 256 * 1024
PIPE_BYTES = 4096
_WAIT_SECONDS = 0.05
"""How long the reader is waited for before the thread looks again whether to stop."""
_STOP_SECONDS = 0.5
"""How long the thread is waited for. It may hang if another process has filled the pipe in between."""

Mark = TypeVar("Mark")


class Output(Generic[Mark]):
    """Writes lines to standard output; each has a mark by which one knows it again."""

    def __init__(self, reached: Mark) -> None:
        """`reached` is the mark of what was written before."""
        self.reached = reached
        """The mark of the last line that was written as a whole."""
        self.gone = False
        """Whether nobody reads any more."""
        self._waiting: list[tuple[bytes, Mark]] = []
        self._bytes = 0
        self._changed = trio.Event()
        self._stopping = False
        self._idle = threading.Event()
        self._idle.set()

    def begin(self, mark: Mark) -> None:
        """Nothing has to be written up to `mark`."""
        self.reached = mark
        self._tell()

    async def put(self, line: bytes, mark: Mark) -> None:
        """Have a line written. It waits while too much is waiting."""
        self._waiting.append((line, mark))
        self._bytes += len(line)
        self._tell()
        while self._bytes > WAITING_BYTES and not self.gone:
            await self._changed.wait()

    async def drained(self) -> None:
        """Wait until all is written, or nobody reads any more."""
        while self._waiting and not self.gone:
            await self._changed.wait()

    async def run(self) -> None:
        """Write until nobody reads any more. Raises StartError, where something else is wrong."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            await self._write()
            nursery.cancel_scope.cancel()
        self.gone = True
        self._tell()

    async def changed(self) -> None:
        """Wait until something was put or written."""
        await self._changed.wait()

    async def _write(self) -> None:
        while True:
            while not self._waiting:
                await self._changed.wait()
            lines = list(self._waiting)
            try:
                await trio.to_thread.run_sync(self._write_lines, lines, abandon_on_cancel=True)
            except trio.Cancelled:
                self._stopping = True
                self._idle.wait(_STOP_SECONDS)
                raise
            except BrokenPipeError:
                return
            except OSError as error:
                raise StartError(f"standard output can't be written ({error.strerror})") from None
            del self._waiting[: len(lines)]
            self._bytes -= sum(len(line) for line, _ in lines)
            self._tell()

    def _write_lines(self, lines: Sequence[tuple[bytes, Mark]]) -> None:
        """Write them, in a thread."""
        self._idle.clear()  # before it looks whether to stop: whoever stops it says so before waiting
        try:
            piece = b""
            for number, (line, mark) in enumerate(lines):
                piece += line
                following = len(lines[number + 1][0]) if number + 1 < len(lines) else PIPE_BYTES
                if len(piece) + following > PIPE_BYTES:
                    if self._stopping or not self._write_piece(piece):
                        return
                    self.reached = mark
                    piece = b""
        finally:
            self._idle.set()

    def _write_piece(self, piece: bytes) -> bool:
        """Returns False if it is to stop, and the reader takes nothing."""
        rest = memoryview(piece)
        while rest:
            if select.select([], [STANDARD_OUT], [], _WAIT_SECONDS)[1]:
                with suppress(BlockingIOError):  # another process was faster
                    rest = rest[os.write(STANDARD_OUT, rest[:PIPE_BYTES]) :]
            elif self._stopping:
                return False
        return True

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Notice that the other end of a pipe was closed, though nothing is written."""
        if _is_writing_end():
            with suppress(OSError):  # a system that can't tell: the next write does
                await trio.lowlevel.wait_readable(STANDARD_OUT)
                scope.cancel()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _is_writing_end() -> bool:
    """Whether standard output is the end of a pipe that is for writing alone. Another one becomes readable by
    what is written.
    """
    is_pipe = stat.S_ISFIFO(os.fstat(STANDARD_OUT).st_mode)
    return is_pipe and fcntl.fcntl(STANDARD_OUT, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
