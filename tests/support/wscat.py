"""The real wscat at a terminal: what a person types, and the lines that they see.

    with Wscat(f"{server.ws_url}/?token=token-alice") as alice:
        alice.wait_for('"welcome"')
        alice.enter('{"event":"ping"}')

1. It runs on a pseudo-terminal, since without one it prints nothing and ends at once.
2. `lines` is what stands on the screen: what it moves, clears and colours is worked out, as a terminal does.
3. Without wscat the tests are skipped with a reason on a developer's machine, and fail where the environment
   says CI. `./test.sh` installs it from tests/wscat.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.process import ROOT

_MOVES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_INSTALLED = ROOT / ".build" / "wscat" / "node_modules" / ".bin" / "wscat"


def wscat_path() -> str:
    """Where wscat is (`WSCAT` names another one), or the end of the test."""
    path = Path(os.environ.get("WSCAT") or _INSTALLED)
    if path.exists():
        return str(path)
    message = f"{path} is not there: ./test.sh installs it, if there is npm"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(message)
    pytest.skip(message)


class Wscat:
    """One person at wscat, from the command to its end."""

    def __init__(self, url: str, *options: str, timeout: float = 15) -> None:
        """`url` is a WebSocket URL with its query, `options` come after it."""
        self.command = [wscat_path(), "-c", url, *options]
        self.timeout = timeout
        self._shown = b""

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, the prompt that waits for more left out."""
        text = _MOVES.sub("", self._shown.decode("utf-8", "replace"))
        rendered = [([part for part in line.split("\r") if part] or [""])[-1] for line in text.split("\n")]
        return [line for line in rendered if line.strip() not in {"", ">"}]

    def enter(self, line: str) -> None:
        """Type a line, and the return key."""
        os.write(self._terminal, line.encode() + b"\r")

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait until that many lines hold the text; the last of them."""
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            found = [line for line in self.lines if text in line]
            if len(found) >= times:
                return found[times - 1]
            with self._news:
                self._news.wait(0.1)
        raise AssertionError(f"{text!r} did not come {times} times; the screen:\n" + "\n".join(self.lines))

    def interrupt(self) -> int:
        """Ctrl-C, and wait for the end: the exit code."""
        os.write(self._terminal, b"\x03")
        return self.process.wait(self.timeout)

    def __enter__(self) -> Self:
        self._terminal, inside = pty.openpty()
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            self.command,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(inside)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        while True:
            try:
                shown = os.read(self._terminal, 65536)
            except OSError:  # the other end of the terminal is gone
                return
            with self._news:
                self._shown += shown
                self._news.notify_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join(self.timeout)
        os.close(self._terminal)
