"""The three standard descriptors, which whoever started the process may have closed, filled or cut off."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from chatroom.pure.printable import cut, escape

_COMPLAINT_CHARS = 1000


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


def say(text: str) -> bool:
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
def unheard() -> Iterator[None]:
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


def complain(text: str) -> None:
    """Print `text` on standard error as one line that names the program."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"chatroom: {escape(cut(text, _COMPLAINT_CHARS))}\n")
            sys.stderr.flush()
