"""What a process is given by whoever started it: three standard descriptors and the signals.

1. A standard descriptor may be closed, full or cut off.
2. SIGTERM, SIGINT and SIGHUP may come at any moment. The built file blocks them in its first lines, so that
   they wait for what is done here: as process 1 of a container they would be lost, else they would kill.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from chatroom.core.logevents import cut, escape

STOPS = (signal.SIGTERM, signal.SIGINT)
SECOND_SIGNAL_SECONDS = 0.5
"""One request to stop may be two signals: terminals, npm and others send SIGINT and SIGTERM together."""
_COMPLAINT_CHARS = 1000


def catch_signals(numbers: Collection[signal.Signals] = STOPS) -> Callable[[], bool]:
    """From here on no signal ends the process by itself, but a second one; whether a stop has been asked for.

    SIGHUP means nothing before there is something to reload, where it isn't among the `numbers`.
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
    """Let those come that have been blocked from the first line on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOPS, signal.SIGHUP))


@contextmanager
def stopping_between_steps() -> Iterator[Callable[[], None]]:
    """Take signals for a command that works in steps: what it gets raises KeyboardInterrupt after one.

    Those that are ignored (by nohup, or in the background of a shell) stay so.
    A handler that raises does so wherever the main thread is. Where that is just behind the taking of a lock,
    the lock is never given back, and the clean-up waits for it until it is killed.
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


def fill_standard_descriptors() -> None:
    """Point those that are closed at the null device.

    Otherwise the next socket gets the number of standard error, and what is printed there goes to a stranger.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def print_out(text: str) -> bool:
    """Print `text` on standard output, at once; whether that worked.

    A reader that has gone (`| head -1`) is no error.
    """
    if sys.stdout is None:
        return False
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):
        _forget_stdout()
        return False
    return True


@contextmanager
def stderr_muted() -> Iterator[None]:
    """What is written to standard error meanwhile, by whatever code in the process, is lost."""
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
    """What is left in the buffer would fail again, loudly, when the interpreter flushes it at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def print_error(text: str) -> None:
    """Print `text` on standard error as one line that names the program."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"chatroom: {escape(cut(text, _COMPLAINT_CHARS))}\n")
            sys.stderr.flush()
