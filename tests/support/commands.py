"""The commands `join`, `tail` and `say` of the built file, as processes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.process import clean_environment, python_command


class Done(NamedTuple):
    """How a command has ended, and what it has written."""

    code: int
    out: str
    err: str


def environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: a development token, and `folder` for what it keeps."""
    own = {"CHATROOM_TOKEN": "dev-token", "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return clean_environment(own | dict(extra or {}), measured=False)


def run(folder: Path, *arguments: str, given: str | bytes = "", env: Mapping[str, str] | None = None) -> Done:
    """Run a command to its end, with `given` as standard input."""
    done = subprocess.run(
        [*python_command(), *arguments],
        env=environment(folder, env),
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        check=False,
        timeout=90,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Command:
    """A command that runs. Usable with `with`, which kills it at the end if it still runs."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*python_command(), *arguments],
            env=environment(folder, env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def give(self, text: str, *, last: bool = False) -> None:
        """Write to its standard input; nothing more comes behind the `last`."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()
        if last:
            self.process.stdin.close()

    def line(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def end(self, seconds: float = 60) -> Done:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        assert self.process.stdin is not None
        if self.process.stdin.closed:
            self.process.stdin = None
        out, err = self.process.communicate(timeout=seconds)
        return Done(self.process.returncode, out.decode(), err.decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
