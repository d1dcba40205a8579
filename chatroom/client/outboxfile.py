"""The outbox of `say`, as a file: one for each server, room and person.

Owns how an outbox is locked, read and written. Rules:

1. One command at a time has an outbox: it holds a lock, which the system releases if the command is killed.
2. A message is synced to the disk before it is sent. So a command that is killed at any moment leaves all
   that may have been sent.
3. What is finished is taken out of the file as the last thing that a command does. A command that is killed
   before has told nobody that it had succeeded.
4. Only the owner may read an outbox.

It doesn't know what the lines mean; see `batches`.
"""

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import BinaryIO

from chatroom.client.batches import Batch, head_line, lines_of, read_batches
from chatroom.core.errors import StartError

_POLL_SECONDS = 0.02


class OutboxFailed(StartError):
    """The file can't be read or written. The message says what to do."""


class Occupied(Exception):
    """Another command has the outbox."""


class OutboxFile:
    """An outbox that this command has for itself."""

    def __init__(self, path: str, lock: int, head: str) -> None:
        """See open_outbox. `lock` is a descriptor that holds the lock."""
        self._path = path
        self._lock = lock
        self._head = head
        self._file: BinaryIO | None = None

    def read(self, now: int) -> list[Batch]:
        """The batches that count at the time `now`. Raises OutboxFailed."""
        try:
            with open(self._path, encoding="utf-8", errors="replace", opener=_ordinary) as file:
                return read_batches(file, now)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed(error) from None

    def append(self, lines: Iterable[str], *, sync: bool) -> None:
        """Write lines behind the others; with `sync` they are on the disk then. Raises OutboxFailed."""
        try:
            if self._file is None:
                self._file = open(self._path, "ab", buffering=0, opener=_private)  # noqa: SIM115  (it stays)
                # What a kill has left of a line doesn't spoil the next one.
                _write(self._file, b"\n" if self._file.tell() else self._head.encode())
            _write(self._file, "".join(lines).encode())
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._close_file()
            raise self._failed(error) from None

    def replace(self, batches: Iterable[Batch]) -> None:
        """Have these batches in the file and nothing else, by one step. Raises OutboxFailed."""
        try:
            self.prepared(batches)()
        finally:
            self._close_file()

    def prepared(self, batches: Iterable[Batch]) -> Callable[[], None]:
        """Do all of `replace` but its last step, and return that. Both raise OutboxFailed.

        No full disk fails the last step, and it is short: what was in the file is kept open, since it takes
        some milliseconds to free it, in which a kill would find the step done and the command not yet ended.
        """
        kept = [line for batch in batches for line in lines_of(batch)]
        draft = f"{self._path}.new"
        try:
            if self._file is None:
                with suppress(FileNotFoundError):
                    self._file = open(self._path, "rb", buffering=0, opener=_ordinary)  # noqa: SIM115
            if kept:
                with open(draft, "wb", opener=_private) as file:
                    file.write("".join((self._head, *kept)).encode())
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from None

        def finish() -> None:
            try:
                if kept:
                    os.replace(draft, self._path)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(self._path)
            except OSError as error:
                raise self._failed(error) from None

        return finish

    def close(self) -> None:
        """Let others have the outbox."""
        self._close_file()
        os.close(self._lock)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _failed(self, error: OSError) -> OutboxFailed:
        return OutboxFailed(f"the outbox {self._path} can't be used ({error.strerror})")


def open_outbox(
    folder: str,
    url: str,
    room: str,
    whose: str,
    *,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> OutboxFile:
    """The outbox for what somebody says in `room` of the server `url`. It waits `seconds` for another
    command.

    `whose` is a name of the person, the same each time. Raises Occupied, OutboxFailed.
    """
    head = head_line(url, room, whose)
    path = os.path.join(folder, f"outbox-{hashlib.sha256(head.encode()).hexdigest()[:24]}.jsonl")
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutboxFailed(f"the outbox {path} can't be used ({error.strerror})") from None
    deadline = clock() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock() >= deadline:
                os.close(lock)
                raise Occupied from None
            sleep(_POLL_SECONDS)
        except OSError as error:
            os.close(lock)
            raise OutboxFailed(f"the outbox {path} can't be locked ({error.strerror})") from None
        else:
            return OutboxFile(path, lock, head)


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of it: a disk that is nearly full takes a part, and says so by a number only."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _ordinary(path: str, flags: int) -> int:
    """Opens nothing but an ordinary file, not even what a link leads to: a pipe would be waited for."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no ordinary file")
