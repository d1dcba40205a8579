"""How far somebody has seen each room, over several runs: a file of its owner's.

Owns the file. Rules:

1. It is one JSON object: the last record that was shown for each server, name and room. The last MOST are
   kept.
2. It is replaced as a whole, and read again before, under a lock: several programs may write to it. A program
   that doesn't let go of the lock is waited for a tenth of a second, and nothing is noted then.
3. It is a convenience. Without a place for it, or if it is damaged, nothing is known.

It doesn't know what is done with it.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from chatroom.client.cursor import Position
from chatroom.system.files import replace_file

MOST = 1000
_MOST_BYTES = 4 * 1024 * 1024
_PAUSES = (0.005,) * 20  # between tries to get the lock, in seconds
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Seen:
    """What one person has seen of one server's rooms."""

    def __init__(self, path: Path | None, server: str) -> None:
        self._path = path
        self._server = server

    def get(self, username: str, room: str) -> Position | None:
        """The last record that was shown there; None if that isn't known."""
        match _read(self._path).get(self._key(username, room)):
            case [str(epoch), int(number)] if number >= 0:
                return Position(epoch, number)
        return None

    def put(self, username: str, room: str, position: Position) -> None:
        """This record was shown there."""
        if self._path is None:
            return
        with suppress(OSError):
            lock = os.open(f"{self._path}.lock", _FLAGS, 0o600)
            try:
                _take(lock)
                known = _read(self._path)
                known.pop(self._key(username, room), None)
                known[self._key(username, room)] = [position.epoch, position.id]
                kept = dict(list(known.items())[-MOST:])
                replace_file(os.fspath(self._path), json.dumps(kept, indent=0).encode(), private=True)
            finally:
                os.close(lock)

    def _key(self, username: str, room: str) -> str:
        return json.dumps([self._server, username, room])


def _take(lock: int) -> None:
    """Lock the file. Raises OSError if another `join` has it for longer than its writing takes."""
    for pause in _PAUSES:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
        else:
            return
    raise TimeoutError


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
