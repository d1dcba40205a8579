"""LineWriter: lines to a descriptor that may block, fail or be gone, from a program that can't wait.

1. `put` never blocks and never raises. What doesn't fit into the budget of waiting bytes is dropped, and
   counted.
2. Lines go out whole and in order. After a write that failed in the middle of a line, the next starts on a
   line of its own.
3. When lines get through again, one line that `report` makes says how many were lost in between.
4. Waiting lines go out together, and after each write the thread pauses: a storm of lines costs some hundred
   wake-ups a second, not one a line (each takes the interpreter's lock from the event loop).
5. The thread is a daemon: a descriptor that blocks for ever doesn't keep the process.
6. It writes to a duplicate that is its own, so that no line can go to whatever gets the same number later.

`put` is called from one thread at a time (logging's handlers hold a lock), so each counter has one writer.
"""

import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

BUDGET_BYTES = 1024 * 1024
_WRITE_BYTES = 256 * 1024
_PAUSE_SECONDS = 0.01
_NOWHERE = -1


class LineWriter:
    """Writes lines to where `fd` leads; `fd` itself stays the caller's, and may be closed already."""

    def __init__(self, fd: int, report: Callable[[int], bytes], *, budget: int = BUDGET_BYTES) -> None:
        try:
            self._fd = os.dup(fd)
        except OSError:
            self._fd = _NOWHERE
        self._report = report
        self._budget = budget
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._taken = 0  # bytes, by whoever puts
        self._done = 0  # bytes, by the thread
        self._refused = 0  # lines, by whoever puts
        self._failed = 0  # lines, by the thread
        self._reported = 0
        self._torn = False
        self._abandoned = False
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
        """Flush and end the thread; after `seconds` what is left is dropped."""
        self._queue.put(None)
        self._thread.join(seconds)
        self._abandoned = True

    def _run(self) -> None:
        after: bytes | threading.Event | None = b""
        while after is not None and not self._abandoned:
            lines, after = self._gather()
            if lines:
                self._write_lines(lines)
            if isinstance(after, threading.Event):
                after.set()
            elif after is not None:
                # Not by time.sleep: that sleeps until a time, and fails where libfaketime sets the clock.
                select.select([], [], [], _PAUSE_SECONDS)
        if self._fd != _NOWHERE:
            os.close(self._fd)

    def _gather(self) -> tuple[list[bytes], bytes | threading.Event | None]:
        """Wait for lines and take those that are there, up to what is no line (b"" if it is all lines)."""
        lines: list[bytes] = []
        size = 0
        item = self._queue.get()
        while isinstance(item, bytes):
            lines.append(item)
            size += len(item)
            if size >= _WRITE_BYTES:
                return lines, b""
            try:
                item = self._queue.get_nowait()
            except Empty:
                return lines, b""
        return lines, item

    def _write_lines(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        if not self._write(data):
            self._failed += len(lines)
        elif (lost := self.dropped - self._reported) and self._write(self._report(lost)):
            self._reported += lost
        self._done += len(data)

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
