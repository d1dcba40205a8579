"""The lines that were typed, over several runs: a file of its owner's.

Owns the file. Rules:

1. One JSON string a line, the newest last. Several programs may add to it at the same time.
2. It is readable by its owner alone, and never has more than twice MOST lines. What isn't an ordinary file is
   neither read nor written.
3. A line that holds a secret isn't kept.
4. The history is a convenience: without a place for it, or with a full disk, it lasts as long as the program.

It doesn't know how the lines are looked through.
"""

import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MOST = 1000
"""How many lines are kept."""
LONGEST = 20_000
"""Characters of the longest line that is kept."""
_MOST_BYTES = 32 * 1024 * 1024


class TypedHistory:
    """The lines, the newest last."""

    def __init__(self, path: Path | None, *, is_secret: Callable[[str], bool]) -> None:
        self._path = path
        self._is_secret = is_secret
        self.lines: list[str] = []
        if path is not None:
            with suppress(OSError):
                texts = _read(path)
                self.lines = _lines(texts)
                if len(texts) > MOST + 1:
                    _write(path, self.lines)

    def add(self, line: str) -> None:
        """A line was typed."""
        if not line.strip() or len(line) > LONGEST or self.lines[-1:] == [line] or self._is_secret(line):
            return
        self.lines = [*self.lines[1 - MOST :], line]
        if self._path is not None:
            with suppress(OSError):
                _append(self._path, line)
                if len(texts := _read(self._path)) > 2 * MOST + 1:
                    _write(self._path, _lines(texts))


def _read(path: Path) -> list[bytes]:
    """What stands between the ends of lines. Raises OSError."""
    with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_BYTES))
        return file.read(_MOST_BYTES).split(b"\n")


def _lines(texts: list[bytes]) -> list[str]:
    """The last lines."""
    return [line for text in texts[-MOST - 1 :] if (line := _line(text)) is not None]


def _open(path: Path, flags: int) -> int:
    """Raises OSError, also if it is no ordinary file; a pipe would be waited for."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no ordinary file", str(path))
    return descriptor


def _line(text: bytes) -> str | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, str) and len(line) <= LONGEST else None


def _text(line: str) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _append(path: Path, line: str) -> None:
    descriptor = _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(descriptor).st_size
        is_cut_off = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a program was killed there
        os.write(descriptor, b"\n" * is_cut_off + _text(line))
    finally:
        os.close(descriptor)


def _write(path: Path, lines: list[str]) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"".join(map(_text, lines)))
    fresh.replace(path)
