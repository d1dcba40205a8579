"""A program at a pseudo-terminal, and its screen.

    with Terminal([sys.executable, "program.py"]) as terminal:
        terminal.wait_for("ready>")
        terminal.press("hello\r")
        assert terminal.wait() == 0

1. Nothing sleeps: it is waited for what is to be seen, up to SECONDS.
2. Everything that the program writes is in `written`, and on the strict `screen`.
3. Leaving hangs up, as a window that is closed does. What still runs then is killed.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.support.process import clean_environment, heeding
from tests.support.screen import Screen

SECONDS = 20.0
LEAVING_SECONDS = 5.0


class Terminal:
    """One program at its terminal."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        columns: int = 80,
        rows: int = 24,
        cwd: str | None = None,
    ) -> None:
        self.screen = Screen(columns, rows)
        self.written = b""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._ended = self._gone = False
        self.main, program = pty.openpty()
        self._set_size(columns, rows)
        self.modes_before: list[Any] = termios.tcgetattr(program)
        self._kept = program  # so that the modes can still be looked at when the program has ended
        with heeding(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.process = subprocess.Popen(
                command,
                env=clean_environment({"TERM": "xterm-256color", "LANG": "C.UTF-8", **(env or {})}),
                cwd=cwd,
                stdin=program,
                stdout=program,
                stderr=program,
                start_new_session=True,
                preexec_fn=_take_terminal,  # noqa: PLW1509  (a test has no other thread then)
            )

    # What is seen

    def wait_for(self, wanted: str | Callable[[Screen], bool], *, seconds: float = SECONDS) -> Screen:
        """Wait until a text, or what a function looks for, is to be seen."""
        deadline = time.monotonic() + seconds
        while not (wanted in self.screen.text if isinstance(wanted, str) else wanted(self.screen)):
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} is not to be seen in {seconds} s:\n{self.screen.text}"
            ended = self._ended
            self._take(min(left, 0.2))
            assert not ended, f"{wanted!r} is not to be seen at the end:\n{self.screen.text}"
        return self.screen

    def is_as_before(self) -> bool:
        """Whether the terminal has the modes that it had before the program, and none is left switched on."""
        return termios.tcgetattr(self._kept) == self.modes_before and self.screen.modes <= {7, 25}

    def _take(self, seconds: float) -> None:
        if not select.select([self.main], [], [], seconds)[0]:
            self._ended = self._ended or self.process.poll() is not None
            return
        data = os.read(self.main, 65536)
        self.written += data
        self.screen.feed(self._decode(data))

    # What is done

    def press(self, text: str) -> None:
        """Keys are pressed."""
        data = text.encode()
        while data:
            select.select([], [self.main], [], SECONDS)
            data = data[os.write(self.main, data[:1024]) :]
            self._take(0)

    def paste(self, text: str) -> None:
        """A text is pasted into a terminal that marks what is pasted."""
        assert 2004 in self.screen.modes
        self.press(f"\x1b[200~{text.replace(chr(10), chr(13))}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """The window gets another size; the system tells the program."""
        self.screen.resize(columns, rows)
        self._set_size(columns, rows)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """The terminal is gone."""
        if not self._gone:
            self._gone = True
            os.close(self.main)

    # Its life

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for its end, and for the last of what it has written: the exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running after {seconds} s:\n{self.screen.text}"
            if self._gone:
                self.process.wait(seconds)
                break
            self._take(0.02)
        while not self._gone and select.select([self.main], [], [], 0)[0]:
            self._take(0)
        self._ended = True
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.hang_up()
        os.close(self._kept)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVING_SECONDS)
        self.process.kill()
        self.process.wait()


def _take_terminal() -> None:
    """Make the terminal that of the new session, as a shell's would be."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
