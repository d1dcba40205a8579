"""The built server as a process, for tests that look at it from outside.

    with ServerProcess("--db", "none") as server:
        ... connect to server.url ...
        assert server.stop() == 0

1. Every server gets a free port, unless its arguments name one.
2. Entering waits for the first line on standard output; a server that ends before it raises `StartFailed`
   with what it said.
3. Leaving kills what still runs, so that no test leaves a process behind.
4. Standard error goes to a file: a server that logs much never blocks on a full pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

ROOT = Path(__file__).resolve().parent.parent.parent
PYZ = ROOT / "chat.pyz"
_READY = "Listening on "


class StartFailed(AssertionError):
    """The server ended, or kept silent, before it said that it listens."""


def python_command() -> list[str]:
    """The interpreter of the tests and the built file; `CHAT_PYZ` names another file than ./chat.pyz."""
    return [sys.executable, os.environ.get("CHAT_PYZ", str(PYZ))]


def clean_environment(extra: Mapping[str, str] | None = None, *, measured: bool = True) -> dict[str, str]:
    """The environment without what could steer the server or Python from outside, plus `extra`.

    The built file unpacks itself below .build, so that tests leave nothing in anybody's home. What times or
    weighs a server wants it not `measured`: coverage costs both.
    """
    steering = ("CHATROOM_", "SHIV_", "PYTHON", *(() if measured else ("COVERAGE_",)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {**kept, "SHIV_ROOT": str(ROOT / ".build" / "shiv"), **(extra or {})}


@contextlib.contextmanager
def heeding(*numbers: signal.Signals) -> Iterator[None]:
    """What is started meanwhile heeds these signals, also where the tests were started to ignore them.

    So are those that run in the background of a shell, or by nohup: what is ignored is inherited.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that takes no more, and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


class ServerProcess:
    """One server, from its start to its end. Usable with `with`, and with `async with` under Trio."""

    def __init__(
        self,
        *arguments: str,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        timeout: float = 60,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """`command` replaces the interpreter and the file, `env` the whole environment.

        Without `cwd` the server runs in an empty folder of its own, which goes with it.
        """
        port = [] if any(a == "--port" or a.startswith("--port=") for a in arguments) else ["--port", "0"]
        self.command = [*(command or python_command()), *port, *arguments]
        self.env = clean_environment() if env is None else dict(env)
        self.timeout = timeout
        self.pass_fds = pass_fds
        self.cwd = cwd
        self.lines: list[str] = []
        self._resources = contextlib.ExitStack()
        self._first_line = threading.Event()

    # What it said

    @property
    def listening(self) -> list[str]:
        """What it says it listens on, in its order: `http://127.0.0.1:3000`, `unix:/run/chat.sock`."""
        return [line.removeprefix(_READY) for line in self.lines if line.startswith(_READY)]

    @property
    def url(self) -> str:
        """The first listener, as a URL for HTTP."""
        return self.listening[0]

    @property
    def ws_url(self) -> str:
        """The first listener, as a URL for WebSocket clients (`http` becomes `ws`, `https` `wss`)."""
        return "ws" + self.url.removeprefix("http")

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        """The process id, for /proc and for signals."""
        return self.process.pid

    @property
    def stderr(self) -> str:
        """Everything on standard error up to now, in whole lines while it runs.

        The log has a thread of its own, so what a client has seen may not be in it yet. Who looks for a line
        waits for it; who wants none to be there, for a later one or the end.
        """
        said = Path(self._log.name).read_text("utf-8", "replace")
        return said if self.process.poll() is not None else said[: said.rfind("\n") + 1]

    # Its life

    def start(self) -> Self:
        """Start it and wait for its first line."""
        if self.cwd is None:
            self.cwd = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="chat-test-"))
        self._log = self._resources.enter_context(tempfile.NamedTemporaryFile(prefix="chat-log-"))  # noqa: SIM115
        self.process = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            pass_fds=self.pass_fds,
        )
        self._reader = threading.Thread(target=self._read_stdout, daemon=True)
        self._reader.start()
        if not self._first_line.wait(self.timeout) or not self.listening:
            self.process.kill()
            code, said = self.process.wait(), f"stdout: {self.lines}\nstderr: {self.stderr}"
            self.close()
            raise StartFailed(f"{self.command} did not start (exit code {code})\n{said}")
        return self

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._first_line.set()
        self._first_line.set()

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 15) -> int:
        """Wait for its end, or raise `subprocess.TimeoutExpired`: the exit code, negative for a signal."""
        return self.process.wait(timeout)

    def stop(self, timeout: float = 15) -> int:
        """SIGTERM, and wait for the end: the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def close(self) -> None:
        """Kill it if it still runs, and remove its files. May be called again."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._resources.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await trio.to_thread.run_sync(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.close)
