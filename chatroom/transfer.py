"""The commands `export` and `import`: one room as a file of lines, out of a database or into one.

Owns the options of both commands, and what they print. Rules:

1. `export` reads one moment of a database, also while a server uses it; or a store on which no node runs. It
   writes to standard output, or to a new file that only its owner may read.
2. `import` reads standard input into a database that no server uses. All is stored or nothing; a line that
   can't be is named by its number.
3. Neither holds more than a piece of the room in memory.

It doesn't know the form of a line, nor how a database or a store holds a room; see `protocol.roomfile`,
`engines.sqlite.oneroom` and `engines.redis.copying`.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chatroom.config.options import OPTIONS, Option, Parser, is_given, value_of, values_of
from chatroom.config.parsers import path
from chatroom.config.settings import NO_DATABASE, STORE_OPTIONS, check_store_options, complete_address
from chatroom.copies import check_no_nodes, counted, quiet
from chatroom.core.errors import StartError
from chatroom.core.messages import Message, Record, RoomLog
from chatroom.core.names import clean_room
from chatroom.core.sanctions import Sanctions
from chatroom.core.stores import StoreAddress
from chatroom.engines.sqlite.backup import check_free, publishing
from chatroom.engines.sqlite.oneroom import RoomWriter, reading_room, writing_room
from chatroom.protocol import events, roomfile
from chatroom.system.stdio import (
    STANDARD_IN,
    print_error,
    print_out,
    read_lines,
    stopping_between_steps,
    write_out,
)

if TYPE_CHECKING:
    from chatroom.engines.redis.copying import StoreRooms

_DATABASE_OPTIONS = tuple(option for option in OPTIONS if option.target == "db")
_EXPORT_OPTIONS = (*_DATABASE_OPTIONS, *STORE_OPTIONS)
_IMPORT_OPTIONS = (
    *_DATABASE_OPTIONS,
    *(option for option in OPTIONS if option.target == "limits.text_chars"),
)
OUTPUT = Option("output", "output", path, None, "FILE", "a new file to write to, instead of standard output")
IMPORT_ROOM = Option(
    "room", "room", clean_room, None, "NAME", "the room's name here; as in the file if left out"
)
Write = Callable[[bytes], bool]
"""Writes some lines; False if nobody reads them any more."""


def _check_database(values: Mapping[str, object]) -> None:
    if values["db"] == NO_DATABASE:
        raise StartError("with --db none there is no database: give the server's by --db")


# Export


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """The room, the database or the store, and the new file; None for standard output."""

    room: str
    db: str
    redis: StoreAddress | None
    redis_prefix: str
    redis_password_file: str | None
    redis_ca: str | None
    output: str | None


def run_export(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Write the room. Raises StartError."""
    asked = read_export(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return
    with (
        stopping_between_steps() as check,
        _reading(asked, check) as room,
        writing(asked.output, check) as write,
    ):
        for lines in _lines(room, time.time_ns() // 1_000_000):
            check()
            if not write(lines):
                return
    if asked.output is not None:
        print_error(exported(room.log.messages, "record", room.log.room, asked.output))


def exported(count: int, what: str, room: str, output: str) -> str:
    """The sentence at the end of an export into a file."""
    return f"exported {counted(count, what)} of room {room} to {output}"


def read_export(arguments: Sequence[str], environ: Mapping[str, str]) -> ExportSettings | str:
    """Read the options of `export`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        (*_EXPORT_OPTIONS, OUTPUT),
        prog="chatroom export",
        usage="./chat.pyz export [--db PATH] [--output FILE] ROOM\n"
        "       ./chat.pyz export --redis URL [options] ROOM",
        description="Writes a room as JSON Lines, also while the server runs: a line that says what it is, "
        "each message and what changed it, and the sanctions in force.",
    )
    parser.add_argument("room", nargs="?", metavar="ROOM", help="the room's name")
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    if not given.room:
        raise StartError("export needs the name of a room: ./chat.pyz export general > general.jsonl")
    try:
        room = clean_room(given.room)
    except ValueError as error:
        raise StartError(str(error)) from None
    values = values_of(_EXPORT_OPTIONS, given, environ)
    named = {option.flag for option in _EXPORT_OPTIONS if is_given(option, given, environ)}
    check_store_options(values, named)
    if values["redis"] is None:
        _check_database(values)
    elif "--db" in named:
        raise StartError("--db and --redis exclude each other: say where the room is")
    return ExportSettings(room, **values, output=value_of(OUTPUT, given.output, {}))


class _Source(Protocol):
    """A room that is read; see RoomReader."""

    @property
    def log(self) -> RoomLog: ...

    def pieces(self) -> Iterator[Sequence[Record]]: ...


def _reading(asked: ExportSettings, check: Callable[[], None]) -> AbstractContextManager[_Source]:
    if asked.redis is None:
        return reading_room(asked.db, asked.room)
    return _reading_store(asked, asked.redis, check)


class _StoreRoom:
    """A room of a store on which no node runs."""

    def __init__(self, log: RoomLog, store: "StoreRooms") -> None:
        self.log = log
        self._store = store

    def pieces(self) -> Iterator[Sequence[Record]]:
        """All records, some at a time. Raises StartError, also if they have changed meanwhile."""
        for _, records in self._store.read([self.log]):
            yield records
        check_no_nodes(self._store)
        if self._store.stands([self.log.room])[0].log != self.log:
            raise self._store.changed(self.log.room)


@contextmanager
def _reading_store(
    asked: ExportSettings, redis: StoreAddress, check: Callable[[], None]
) -> Iterator[_StoreRoom]:
    """A room of the store. Raises StartError, also if the room isn't there."""
    from chatroom.engines.redis.copying import Condition, StoreRooms  # noqa: PLC0415  (slow to import)

    address = complete_address(redis, asked.redis_password_file, asked.redis_ca)
    with quiet(), closing(StoreRooms(address, asked.redis_prefix, check)) as store:
        check_no_nodes(store)
        (stand,) = store.stands([asked.room])
        if stand.condition != Condition.THERE or stand.log.last == 0:
            raise StartError(f"there is no room {asked.room!a} in --redis {address.shown}")
        yield _StoreRoom(stand.log, store)


def _lines(room: _Source, now: int) -> Iterator[bytes]:
    """The lines of the file, some at a time. `now` is in milliseconds."""
    log = room.log
    yield roomfile.head_line(roomfile.Head(log.room, "all", log.epoch, log.first, log.last)) + b"\n"
    for piece in room.pieces():
        yield b"".join(events.record(log.room, record) + b"\n" for record in piece)
    yield roomfile.end_line(log.room, Sanctions(log.sanctions).in_force(now)) + b"\n"


@contextmanager
def writing(output: str | None, check: Callable[[], None]) -> Iterator[Write]:
    """A function that writes to the new file `output`, or to standard output. Raises StartError.

    The file appears when it is whole.
    """
    try:
        if output is None:
            yield lambda data: write_out(data, check)
            return
        target = os.path.abspath(output)
        check_free(target)
        with publishing(target) as draft, open(draft, "wb") as file:
            yield lambda data: file.write(data) > 0
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        place = "standard output" if output is None else f"--output {output}"
        raise StartError(f"{place} can't be written ({error.strerror})") from None


# Import


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """The database, the room's name there (None: as in the file), and the longest text."""

    db: str
    room: str | None
    max_text: int


def run_import(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Store the room, and print what came of it on standard error. Raises StartError."""
    asked = read_import(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return
    if os.isatty(STANDARD_IN):
        raise StartError("import reads standard input: ./chat.pyz import --db chat.db < general.jsonl")
    with stopping_between_steps() as check:
        print_error(_Import(asked).run(read_lines(roomfile.longest_line(asked.max_text), check)))


def read_import(arguments: Sequence[str], environ: Mapping[str, str]) -> ImportSettings | str:
    """Read the options of `import`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        (*_IMPORT_OPTIONS, IMPORT_ROOM),
        prog="chatroom import",
        usage="./chat.pyz import [--db PATH] [--room NAME] < FILE",
        description="Stores a room that was exported in a database that no server uses, or in a new one. The "
        "room must be new there. Its records get new ids, from 1 on.",
    )
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    values = values_of(_IMPORT_OPTIONS, given, environ)
    _check_database(values)
    return ImportSettings(values["db"], value_of(IMPORT_ROOM, given.room, {}), values["limits.text_chars"])


class _Import:
    """An import under way: the line that is read, and what was left out."""

    def __init__(self, asked: ImportSettings) -> None:
        self._asked = asked
        self._reader = roomfile.Reader(asked.max_text)
        self._line = 1
        self._skipped = self._deleted = 0

    def run(self, lines: Iterator[bytes]) -> str:
        """Import the lines. Returns a sentence that says what was done. Raises StartError."""
        try:
            head = self._reader.read(next(lines, b""))
            assert isinstance(head, roomfile.Head), "it is the first line"
            room = self._asked.room or head.room
            with writing_room(self._asked.db, room, lambda: secrets.token_urlsafe(6)) as writer:
                self._write(lines, head, writer)
        except ValueError as error:
            raise StartError(f"line {self._line}: {error}: nothing was stored") from None
        except OSError as error:
            raise StartError(f"standard input can't be read ({error.strerror}): nothing was stored") from None
        return self._summary(room, writer)

    def _write(self, lines: Iterator[bytes], head: roomfile.Head, writer: RoomWriter) -> None:
        """Raises ValueError, StartError."""
        for line in lines:
            self._line += 1
            match self._reader.read(line):
                case roomfile.Head():
                    raise AssertionError("only the first line is one")
                case roomfile.End(sanctions):
                    writer.end(sanctions)
                case Message() as message if head.entries == "messages":
                    self._write_alone(message, writer)
                case record:
                    self._skipped += not writer.add(record)
        self._line += 1
        self._reader.finish()

    def _write_alone(self, message: Message, writer: RoomWriter) -> None:
        """A message of a file without changes: what is left of one that was deleted says nothing."""
        if message.deleted is not None:
            self._deleted += 1
        else:
            writer.add(message._replace(edited=None))

    def _summary(self, room: str, writer: RoomWriter) -> str:
        done = f"imported {counted(writer.messages, 'message')}"
        if writer.others:
            done += f" and {counted(writer.others, 'other record')}"
        done += f" into room {room} of {self._asked.db}"
        if self._skipped:
            done += f"; left out {counted(self._skipped, 'change')} of messages that aren't in the file"
        if self._deleted:
            done += f"; left out {counted(self._deleted, 'deleted message')}"
        return done
