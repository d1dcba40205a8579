"""Logs: one event a line on standard error, as JSON or as text for a person, written by a thread.

Owns the two formats, the handler of the logger `chatroom`, and the thread that writes its lines. Rules:

1. **No forged line.** All that isn't printable (control characters, every kind of line end, bidirectional
   marks, escape sequences, lone surrogates) is escaped in both formats, and long values are cut.
2. **A log never holds up the server.** A full pipe, a stopped terminal or a closed descriptor blocks or fails
   a write. So lines go through a bounded queue to a daemon thread; see LineWriter. (A non-blocking standard
   error doesn't help: that flag belongs to the open file, which the shell and other processes share.)
3. Only the logger `chatroom` is written. Libraries stay quiet, whatever they log.

It doesn't know which events there are, nor how many of a kind are too many: that is for the callers of
`chatroom.core.logevents.log_event`.
"""

import json
import logging
import math
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import MappingProxyType

from chatroom.core.logevents import cut, escape, log_event, logger, whereabouts

# The writer

BUDGET_BYTES = 1024 * 1024
_WRITE_BYTES = 256 * 1024
_PAUSE_SECONDS = 0.01
_NOWHERE = -1


class LineWriter:
    """Writes lines to a descriptor that may block, fail or be closed, for a program that can't wait.

    1. `put` never blocks and never raises. A line that doesn't fit into the `budget` of waiting bytes is
       dropped and counted.
    2. Lines go out whole and in order. After a write that failed in the middle of a line, the next line
       starts on a line of its own.
    3. When lines get through again, one line that `report` makes says how many were lost in between.
    4. Waiting lines go out together, and after each write the thread pauses. So a storm of lines costs some
       hundred wake-ups a second, not one a line. (Each takes the interpreter's lock from the event loop.)
    5. The thread is a daemon: a descriptor that blocks doesn't keep the process from ending.
    6. The thread writes to a duplicate of `fd`, so that no line goes to a file that gets its number later.

    `put` is called by one thread at a time (logging's handlers hold a lock), so each counter has one writer.
    """

    def __init__(self, fd: int, report: Callable[[int], bytes], *, budget: int = BUDGET_BYTES) -> None:
        """`fd` stays the caller's, and may be closed already."""
        try:
            self._fd = os.dup(fd)
        except OSError:
            self._fd = _NOWHERE
        self._report = report
        self._budget = budget
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._taken = 0  # bytes, by `put`
        self._done = 0  # bytes, by the thread
        self._refused = 0  # lines, by `put`
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
        """Queue a line (with its line end) if there is room."""
        if self._taken - self._done + len(line) > self._budget:
            self._refused += 1
            return
        self._taken += len(line)
        self._queue.put(line)

    def drop(self) -> None:
        """Count a line that could not be formatted."""
        self._refused += 1

    def flush(self, seconds: float) -> bool:
        """Wait until all earlier lines are written or dropped. False if that takes more than `seconds`."""
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(seconds)

    def close(self, seconds: float) -> None:
        """Flush and end the thread. After `seconds` the remaining lines are dropped."""
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
                # time.sleep sleeps until a time, which fails where libfaketime sets the clock.
                select.select([], [], [], _PAUSE_SECONDS)
        if self._fd != _NOWHERE:
            os.close(self._fd)

    def _gather(self) -> tuple[list[bytes], bytes | threading.Event | None]:
        """Wait for lines. Returns the queued lines, and the item behind them that is no line, else b""."""
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
        """Write all of `data`, and wait as long as that takes. False if the descriptor fails."""
        rest = memoryview(b"\n" + data if self._torn else data)
        size = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # another process that shares the file has made it non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                self._torn = self._torn or len(rest) < size
                return False
        self._torn = False
        return True


# The formats

VALUE_CHARS = 300
TRACEBACK_CHARS = 20_000
FLUSH_SECONDS = 1.0

_PLAIN = re.compile(r"[\w.:/@#+-]+")
_NO_FIELDS: Mapping[str, object] = MappingProxyType({})


def json_line(record: logging.LogRecord) -> str:
    """A record as one JSON object: `ts`, `level`, `event`, then its fields."""
    entry: dict[str, object] = {"ts": _time(record), "level": _level(record), "event": _event(record)}
    for name, value in _fields(record).items():
        if name not in entry:
            entry[name] = _simple(name, value)
    return escape(json.dumps(entry, ensure_ascii=False)) + "\n"


def text_line(record: logging.LogRecord) -> str:
    """A record for a person: time, level, event, `name=value`…; then its traceback, behind bars."""
    fields = dict(_fields(record))
    traceback = fields.pop("traceback", None)
    words = [_time(record), f"{_level(record):<7}", escape(_event(record))]
    words += [f"{escape(name)}={_word(_simple(name, value))}" for name, value in fields.items()]
    lines = [" ".join(words)]
    if traceback is not None:
        lines += [f"  | {escape(line)}" for line in cut(str(traceback), TRACEBACK_CHARS).splitlines()]
    return "\n".join(lines) + "\n"


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _event(record: logging.LogRecord) -> str:
    return cut(record.getMessage(), VALUE_CHARS)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", _NO_FIELDS)
    return fields


def _simple(name: str, value: object) -> object:
    """`value` as JSON: finite numbers stay numbers, all else becomes text of bounded length."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return cut(str(value), TRACEBACK_CHARS if name == "traceback" else VALUE_CHARS)


def _word(value: object) -> str:
    """One value in a text line, quoted unless it is plain."""
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.isprintable()):
        return escape(json.dumps(value, ensure_ascii=False))
    return value if isinstance(value, str) else json.dumps(value)


# The handler


class LineHandler(logging.Handler):
    """Formats records and hands the lines to a LineWriter. A record that can't be formatted is dropped."""

    def __init__(self, fd: int, line: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._line = line
        self.writer = LineWriter(fd, self._report)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.put(self._line(record).encode())
        except Exception:  # a field that can't be formatted is no reason to end a connection
            self.writer.drop()

    def _report(self, count: int) -> bytes:
        record = logging.LogRecord(logger.name, logging.WARNING, "", 0, "log_lines_dropped", (), None)
        record.fields = {"count": count}
        return self._line(record).encode()


@contextmanager
def logging_to(fd: int, level: str, style: str) -> Iterator[None]:
    """Write the log to `fd` while the block runs. `style` is text, json or auto (text on a terminal).

    Resource handling: lines that wait at the end are written, for at most FLUSH_SECONDS. `fd` stays open.
    """
    if style == "auto":
        style = "text" if os.isatty(fd) else "json"
    handler = LineHandler(fd, text_line if style == "text" else json_line)
    quiet = logging.NullHandler()  # without any handler, logging would print the warnings of libraries
    saved = logger.level, logger.propagate, sys.unraisablehook
    logger.setLevel(level.upper())
    logger.propagate = False
    sys.unraisablehook = _log_unraisable
    logger.addHandler(handler)
    logging.getLogger().addHandler(quiet)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(quiet)
        logger.removeHandler(handler)
        level_before, logger.propagate, sys.unraisablehook = saved
        logger.setLevel(level_before)
        handler.writer.close(FLUSH_SECONDS)


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Log an exception that no code can catch (in a finaliser). Python would print several lines."""
    error = unraisable.exc_value
    log_event(logging.ERROR, "unraisable", **(whereabouts(error) if error else {}))


def _writers() -> list[LineWriter]:
    return [handler.writer for handler in logger.handlers if isinstance(handler, LineHandler)]


def lines_dropped() -> int:
    """How many log lines could not be written so far."""
    return sum(writer.dropped for writer in _writers())


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Wait, at most `seconds`, until all log lines are written. For a process that is ended by force."""
    for writer in _writers():
        writer.flush(seconds)
