"""Standard descriptors and signals of a process.

Owns what is printed on standard output and standard error, and what signals do before a server runs. Rules:

1. A standard descriptor may be closed, full or broken.
2. SIGTERM, SIGINT and SIGHUP may come at any moment. The built file blocks them in its first lines, so that
   they wait until they are caught here. Otherwise process 1 of a container would lose them, and any other
   process would be killed by them.

It doesn't know what a stop or a reload does.
"""

import atexit
import io
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn

from chatroom.core.logevents import cut, escape

STANDARD_IN, STANDARD_OUT = 0, 1
STOPS = (signal.SIGTERM, signal.SIGINT)
SECOND_SIGNAL_SECONDS = 0.5
"""One request to stop may be two signals: terminals, npm and others send SIGINT and SIGTERM together."""
_COMPLAINT_CHARS = 1000
_PIPE_BYTES = 4096
"""Bytes that a pipe takes at once, where it takes any."""
_READ_BYTES = 64 * 1024
_WAIT_SECONDS = 0.1
"""How long a descriptor is waited for before it is asked again whether to stop."""


def catch_signals(numbers: Collection[signal.Signals] = STOPS) -> Callable[[], bool]:
    """Catch the first signal, and end the process only at a second one.

    Returns a function that tells whether a stop has been asked for. SIGHUP is ignored unless it is among the
    `numbers`: there is nothing to reload yet.
    """
    first: list[float] = []

    def remember(number: int, frame: object) -> None:
        now = time.monotonic()
        if first and now - first[0] >= SECOND_SIGNAL_SECONDS:
            os._exit(1)
        first.append(now)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in numbers:
        signal.signal(number, remember)
    unblock_signals()
    return lambda: bool(first)


def unblock_signals() -> None:
    """Deliver the signals that the first lines of the built file have blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOPS, signal.SIGHUP))


def raise_at_stops() -> None:
    """Have SIGTERM, SIGINT and SIGHUP raise KeyboardInterrupt, but SIGINT and SIGHUP stay ignored.

    For what has nothing to clean up.
    """
    for number in (*STOPS, signal.SIGHUP):
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def stopping_between_steps() -> Iterator[Callable[[], None]]:
    """Catch signals for a command that works in steps. It gets a function to call after each step.

    That function raises KeyboardInterrupt if a stop has been asked for. Signals that are ignored (by nohup,
    or in the background of a shell) stay ignored.

    A handler that raises could do so right after the main thread has taken a lock. The lock would never be
    released, and the clean-up would wait for it without end.
    """
    before = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGHUP)}
    asked = catch_signals([number for number, handler in before.items() if handler is not signal.SIG_IGN])

    def check() -> None:
        if asked():
            raise KeyboardInterrupt

    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def takes_colours(environ: Mapping[str, str]) -> bool:
    """Whether a terminal may get colours and other escape sequences: no dumb one, and none with NO_COLOR."""
    return environ.get("TERM", "") not in ("", "dumb") and not environ.get("NO_COLOR")


def fill_standard_descriptors() -> None:
    """Open the null device for each standard descriptor that is closed.

    Otherwise the next socket would get the number of standard error, and its peer would get what is printed.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def end_process(code: int, last: Callable[[], None]) -> NoReturn:
    """End the process with the exit code `code`, at once behind `last`.

    What is registered for the end of a process runs before, and the interpreter isn't taken down: between
    `last` and the end no stop is heeded, and there is no moment in which a kill is likely.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, (*STOPS, signal.SIGHUP))
    last()
    os._exit(code)


def print_out(text: str) -> bool:
    """Print `text` on standard output at once. Returns whether that worked. Raises KeyboardInterrupt.

    A reader that has gone (`| head -1`) is no error. What its encoding lacks is written as escapes.
    """
    if sys.stdout is None:
        return False
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):
        _forget_stdout()
        return False
    except KeyboardInterrupt:
        _forget_stdout()  # it would be waited for again
        raise
    return True


def read_in(most: int) -> bytes:
    """The next bytes of standard input, `most` at most; none at its end. Raises OSError."""
    while True:
        try:
            return os.read(STANDARD_IN, most)
        except BlockingIOError:  # another process that has it doesn't want to wait
            select.select([STANDARD_IN], [], [])


def write_out(data: bytes, check: Callable[[], None]) -> bool:
    """Write `data` to standard output. False if its reader has gone. Raises OSError.

    `check` is called while a reader takes nothing; see `stopping_between_steps`.
    """
    rest = memoryview(data)
    try:
        while rest:
            if select.select([], [STANDARD_OUT], [], _WAIT_SECONDS)[1]:
                rest = rest[os.write(STANDARD_OUT, rest[:_PIPE_BYTES]) :]
            else:
                check()
    except BrokenPipeError:
        _forget_stdout()
        return False
    return True


def read_lines(longest: int, check: Callable[[], None]) -> Iterator[bytes]:
    """The lines of standard input, without their ends; of a line beyond `longest` bytes, its beginning.

    `check` is called while nothing comes; see `stopping_between_steps`. Raises OSError.
    """
    waiting = bytearray()
    while True:
        while not select.select([STANDARD_IN], [], [], _WAIT_SECONDS)[0]:
            check()
        check()
        piece = os.read(STANDARD_IN, _READ_BYTES)
        if not piece:
            break
        *whole, last = piece.split(b"\n")
        for line in whole:
            yield bytes(waiting + line)
            waiting.clear()
        waiting += last
        if len(waiting) > longest:
            break
    if waiting:
        yield bytes(waiting)


@contextmanager
def stderr_muted() -> Iterator[None]:
    """A context in which everything that the process writes to standard error is lost."""
    kept = os.dup(2)
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _forget_stdout() -> None:
    """Discard the rest of the buffer: at the interpreter's exit it would fail again, with a traceback."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def print_error(text: str) -> None:
    """Print `text` on standard error, as one line that begins with the program's name."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"chatroom: {escape(cut(text, _COMPLAINT_CHARS))}\n")
            sys.stderr.flush()
