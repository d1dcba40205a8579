"""LineWriter: lines to a descriptor that may block, fail or be gone, from a program that can't wait.

1. `put` never blocks and never raises. What doesn't fit into the budget of waiting bytes is dropped, and
   counted.
2. Lines go out whole and in order. After a write that failed in the middle of a line, the next starts on a
   line of its own.
3. When lines get through again, one line that `report` makes says how many were lost in between.
4. Waiting lines go out together, and after each write the thread pauses: a storm of lines costs some hundred
   wake-ups a second, not one a line (each takes the interpreter's lock from the event loop).
5. The thread is a daemon: a descriptor that blocks for ever doesn't keep the process.

`put` is called from one thread at a time (logging's handlers hold a lock), so each counter has one writer.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

BUDGET_BYTES = 1024 * 1024
_WRITE_BYTES = 64 * 1024
_PAUSE_SECONDS = 0.01


class LineWriter:
    """Writes lines to `fd`, which stays the caller's: it is neither closed nor changed."""

    def __init__(self, fd: int, report: Callable[[int], bytes], *, budget: int = BUDGET_BYTES) -> None:
        self._fd = fd
        self._report = report
        self._budget = budget
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._taken = 0  # bytes, by whoever puts
        self._done = 0  # bytes, by the thread
        self._refused = 0  # lines, by whoever puts
        self._failed = 0  # lines, by the thread
        self._reported = 0
        self._torn = False
        self._thread = threading.Thread(target=self._run, name="chatroom-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were not written, for lack of room or because the write failed."""
        return self._refused + self._failed

    def put(self, line: bytes) -> None:
        """Take a line (with its line end) if there is room."""
        if self._taken - self._done + len(line) > self._budget:
            self._refused += 1
            return
        self._taken += len(line)
        self._queue.put(line)

    def drop(self) -> None:
        """Count a line that could not even be made."""
        self._refused += 1

    def flush(self, seconds: float) -> bool:
        """Wait until what was put before has been dealt with, at most `seconds`; false if it wasn't."""
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(seconds)

    def close(self, seconds: float) -> None:
        """Flush and end the thread; after `seconds` it is left to the end of the process."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            lines: list[bytes] = []
            size = 0
            while isinstance(item, bytes):
                lines.append(item)
                size += len(item)
                item = self._next() if size < _WRITE_BYTES else b""
                if not item:
                    break
            self._write_lines(lines, size)
            if isinstance(item, threading.Event):
                item.set()
            elif item is None:
                return
            else:
                time.sleep(_PAUSE_SECONDS)

    def _next(self) -> bytes | threading.Event | None:
        """The next item, or b"" if none waits."""
        try:
            return self._queue.get_nowait()
        except Empty:
            return b""

    def _write_lines(self, lines: list[bytes], size: int) -> None:
        if lines and not self._write(b"".join(lines)):
            self._failed += len(lines)
        elif lines and (lost := self.dropped - self._reported) and self._write(self._report(lost)):
            self._reported += lost
        self._done += size

    def _write(self, data: bytes) -> bool:
        """Write all of `data`, waiting as long as it takes; false if the descriptor fails."""
        rest = memoryview(b"\n" + data if self._torn else data)
        size = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # someone who shares it has made it non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                self._torn = self._torn or len(rest) < size
                return False
        self._torn = False
        return True
