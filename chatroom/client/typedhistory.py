"""The lines that were typed, over several runs: a file of its owner's.

Owns the file. Rules:

1. One JSON string a line, the newest last. Several programs may add to it at the same time.
2. It is readable by its owner alone, and never has more than twice MOST lines.
3. A line that holds a secret isn't kept.
4. The history is a convenience: without a place for it, or with a full disk, it lasts as long as the program.

It doesn't know how the lines are looked through.
"""

import json
import os
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
        self.lines = [] if path is None else _read(path)
        if path is not None and len(self.lines) > MOST:
            self.lines = self.lines[-MOST:]
            with suppress(OSError):
                _write(path, self.lines)

    def add(self, line: str) -> None:
        """A line was typed."""
        if not line.strip() or len(line) > LONGEST or self.lines[-1:] == [line] or self._is_secret(line):
            return
        self.lines.append(line)
        if self._path is not None:
            with suppress(OSError):
                _append(self._path, line)


def _read(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError:
        return []
    return [line for text in content.split(b"\n") if (line := _line(text)) is not None]


def _line(text: bytes) -> str | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, str) and len(line) <= LONGEST else None


def _text(line: str) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _append(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, _text(line))
    finally:
        os.close(descriptor)


def _write(path: Path, lines: list[str]) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"".join(map(_text, lines)))
    fresh.replace(path)
