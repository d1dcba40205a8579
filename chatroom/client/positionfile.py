"""Where `tail` was last time, as a file: the history and the id of the last record that was written.

    {"tail":1,"url":"wss://chat.example","room":"ops","epoch":"3lFfT4sz","id":1843}

Owns the file. Rules:

1. It is replaced by one step, so that it is whole at any moment.
2. It belongs to one room of one server: with another one it is a mistake.
3. One command at a time uses it. The lock is on a file beside it, and the system releases it.

It doesn't know what was written.
"""

import fcntl
import json
import os
from contextlib import suppress

from chatroom.client.cursor import Position
from chatroom.client.frames import text_of, whole_number
from chatroom.core.errors import StartError
from chatroom.system.files import read_file, replace_file

FORMAT = 1
_LARGEST = 64 * 1024
_FLAG = "--state"


class PositionFile:
    """The file that --state names, locked by this process until it ends."""

    def __init__(self, path: str, url: str, room: str) -> None:
        """Raises StartError, also if another command uses the file."""
        self._path = path
        self._whose = {"url": url, "room": room}
        self._saved: Position | None = None
        try:
            self._path = os.path.realpath(path)  # what a link leads to is replaced, not the link
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"{_FLAG} {path} is in use by another tail: give each one a file of its own"
            ) from None
        except OSError as error:
            raise self._failed(error) from None

    def read(self) -> Position | None:
        """Where it was last time; None if there was no last time. Raises StartError."""
        if not os.path.lexists(self._path):
            return None
        if os.path.exists(self._path) and not os.path.isfile(self._path):  # a pipe would be waited for
            raise StartError(f"{_FLAG} {self._path} is no ordinary file: give another one")
        content = read_file(_FLAG, self._path, most=_LARGEST, kind="a file that tail has written")
        found: object = None
        with suppress(ValueError, RecursionError):
            found = json.loads(content)
        if not isinstance(found, dict) or whole_number(found.get("tail")) != FORMAT:
            raise StartError(f"{_FLAG} {self._path} wasn't written by tail: give another file, or remove it")
        if {name: found.get(name) for name in self._whose} != self._whose:
            raise StartError(
                f"{_FLAG} {self._path} belongs to another room or server: give each a file of its own"
            )
        epoch, number = text_of(found.get("epoch")), whole_number(found.get("id"))
        if not epoch or number is None:
            raise StartError(f"{_FLAG} {self._path} wasn't written by tail: give another file, or remove it")
        self._saved = Position(epoch, number)
        return self._saved

    def save(self, position: Position) -> None:
        """Remember `position`. Raises StartError."""
        if position == self._saved:
            return
        found = {"tail": FORMAT, **self._whose, "epoch": position.epoch, "id": position.id}
        try:
            line = json.dumps(found, separators=(",", ":")) + "\n"
            replace_file(self._path, line.encode(), private=False)
        except OSError as error:
            raise self._failed(error) from None
        self._saved = position

    def _failed(self, error: OSError) -> StartError:
        return StartError(f"{_FLAG} {self._path} can't be written ({error.strerror}): give another file")
