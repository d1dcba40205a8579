"""The commands `backup` and `copy`: a database to a file, into a store of several nodes, or out of one.

Owns the options of both commands, the order of their steps, and what they print. Rules:

1. `backup DB TO` copies a database to a new file, also while a server uses the database.
2. `copy` copies from what is named first to what is named second: a database that no server uses into a
   store, or a store that no node uses into a new database.
3. Ids, epochs, times and cids stay the same, so clients resume as if nothing had happened. Edits, deletions
   and sanctions come along.
4. Nothing is overwritten. A copy into a store recognizes what it has copied already, so that an interrupted
   copy may be run again.

It doesn't know how a file or a store holds messages; see `engines.sqlite.backup` and `engines.redis.copying`.
"""

import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatroom.config.options import OPTIONS, Parser, values_of
from chatroom.config.settings import NO_DATABASE, STORE_OPTIONS, check_store_options, complete_address
from chatroom.core.errors import StartError
from chatroom.core.logevents import logger
from chatroom.core.messages import Record, RoomLog
from chatroom.core.stores import StoreAddress
from chatroom.engines.sqlite.backup import SourceDatabase, back_up, new_database
from chatroom.system.stdio import print_error, print_out, stopping_between_steps

if TYPE_CHECKING:
    from chatroom.engines.redis.copying import Stand, StoreRooms

PIECE, PIECE_BYTES = 500, 256 * 1024
"""Records that are moved at a time, and about how many bytes of text."""
_PROGRESS_SECONDS = 0.1
_DATABASE_OPTIONS = tuple(option for option in OPTIONS if option.target == "db")
_COPY_OPTIONS = (*_DATABASE_OPTIONS, *STORE_OPTIONS)
_COPY_USAGE = "./chat.pyz copy --db chat.db --redis URL, or back: ./chat.pyz copy --redis URL --db new.db"

# Backup


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """The database, and the file that becomes its copy."""

    db: str
    to: str


def run_backup(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Copy the database, and print that it is done. Raises StartError."""
    asked = read_backup(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return
    with stopping_between_steps() as check:
        back_up(asked.db, asked.to, check)
    print_out(f"Copied {asked.db} to {asked.to}, and found the copy whole\n")


def read_backup(arguments: Sequence[str], environ: Mapping[str, str]) -> BackupSettings | str:
    """Read the options of `backup`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        _DATABASE_OPTIONS,
        prog="chatroom backup",
        usage="./chat.pyz backup [--db PATH] TO",
        description="Copies the database, also while the server runs, to a file that must not exist yet.",
    )
    parser.add_argument("to", nargs="?", metavar="TO", help="the copy")
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    database = values_of(_DATABASE_OPTIONS, given, environ)["db"]
    if database == NO_DATABASE:
        raise StartError("with --db none there is nothing to copy: give the server's database by --db")
    if not given.to:
        raise StartError("backup needs the name of the copy: ./chat.pyz backup --db chat.db TO")
    return BackupSettings(database, given.to)


# Copy


@dataclass(frozen=True, slots=True)
class CopySettings:
    """The database and the store, and which of the two is copied. A password in a file isn't read yet."""

    db: str
    redis: StoreAddress
    redis_prefix: str
    redis_password_file: str | None
    redis_ca: str | None
    into_store: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """The rooms and messages of the copy, and how many of the messages had been `there` already."""

    rooms: int
    messages: int
    there: int = 0


def run_copy(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Copy all rooms, and print how many. Raises StartError."""
    asked = read_copy(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return
    from chatroom.engines.redis.copying import StoreRooms  # noqa: PLC0415  (slow to import)

    address = complete_address(asked.redis, asked.redis_password_file, asked.redis_ca)
    again = "run the same command again to go on" if asked.into_store else "nothing was kept"
    try:
        with (
            stopping_between_steps() as check,
            quiet(),
            closing(StoreRooms(address, asked.redis_prefix, check)) as store,
        ):
            if asked.into_store:
                copied = _bring_in(asked.db, store)
                places = f"{asked.db} to {address.shown}"
            else:
                copied = _bring_out(store, asked.db)
                places = f"{address.shown} to {asked.db}"
    except KeyboardInterrupt:
        print_error(f"interrupted: {again}")
        raise
    rooms, messages = counted(copied.rooms, "room"), counted(copied.messages, "message")
    done = f"Copied {rooms} with {messages} from {places}"
    if copied.there:
        done += f"; {counted(copied.there, 'message')} of them had been there already"
    print_out(done + "\n")


def read_copy(arguments: Sequence[str], environ: Mapping[str, str]) -> CopySettings | str:
    """Read the options of `copy`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        _COPY_OPTIONS,
        prog="chatroom copy",
        usage="./chat.pyz copy --db PATH --redis URL [options]\n"
        "       ./chat.pyz copy --redis URL --db PATH [options]",
        description="Copies all rooms of a database that no server uses into a store of several nodes, or "
        "all rooms of a store that no node uses into a new database: from what is named first to the other.",
    )
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    if not (given.db and given.redis):
        raise StartError(f"copy needs --db and --redis, in the order from and to: {_COPY_USAGE}")
    values = values_of(_COPY_OPTIONS, given, environ)
    if values["db"] == NO_DATABASE:
        raise StartError("--db none is no database: give the file that is to be copied, or made")
    check_store_options(values, ())
    flags = [word.partition("=")[0] for word in arguments]
    return CopySettings(**values, into_store=flags.index("--db") < flags.index("--redis"))


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: the line at the end says everything."""
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


# Into a store


def _bring_in(name: str, store: "StoreRooms") -> Copied:
    with closing(SourceDatabase(name, lambda: secrets.token_urlsafe(6))) as source:
        logs = source.rooms()
        stands = store.stands([log.room for log in logs])
        missing = [
            (log, begin)
            for log, stand in zip(logs, stands, strict=True)
            if (begin := _begin(source, log, stand)) is not None
        ]
        everything = sum(log.messages for log in logs)
        left = sum(log.last - begin for log, begin in missing)
        with _progress(everything, everything - left) as advance:
            work = ((log, _pieces(source, log, begin)) for log, begin in missing)
            for count in store.bring_in(work):
                advance(count)
    return Copied(len(logs), everything, everything - left)


def _begin(source: SourceDatabase, log: RoomLog, stand: "Stand") -> int | None:
    """The id behind which the copy of a room goes on; None if the copy is complete. Raises StartError."""
    there = stand.log
    match stand.condition:
        case "free":
            return log.first - 1
        case "there" if there == log and _same(source, stand):
            return None
        case "copying" if there._replace(last=log.last) == log and _same(source, stand):
            return there.last
        case "copying":
            why = "another copy has begun to bring it in"
        case "there":
            why = "with other messages"
        case _:
            why = "as keys of something else"
    raise StartError(
        f"room {log.room!a} is in the store already, {why}: nothing was copied; choose another --redis-prefix"
    )


def _same(source: SourceDatabase, stand: "Stand") -> bool:
    """Whether the newest record in the store is the source's record of that id."""
    there = stand.log
    if there.messages == 0:
        return stand.newest is None
    return source.read(there.room, there.last - 1, 1, 1) == [stand.newest]


def _pieces(source: SourceDatabase, log: RoomLog, begin: int) -> Iterator[Sequence[Record]]:
    while begin < log.last:
        piece = source.read(log.room, begin, PIECE, PIECE_BYTES)
        yield piece
        begin = piece[-1].id


# Out of a store


def _bring_out(store: "StoreRooms", name: str) -> Copied:
    check_no_nodes(store)
    logs = _logs(store)
    if not logs:
        raise StartError("there are no rooms in the store: nothing was copied; is --redis-prefix right?")
    everything = sum(log.messages for log in logs)
    with (
        new_database(name) as target,
        _progress(everything) as advance,
    ):
        room = None
        for log, records in store.read(logs):
            if log.room != room:
                room = log.room
                target.begin_room(log)
            target.add(records)
            advance(len(records))
        check_no_nodes(store)
        for before, after in zip(logs, _logs(store), strict=False):
            if before != after:
                raise store.changed(before.room)
    return Copied(len(logs), everything)


def check_no_nodes(store: "StoreRooms") -> None:
    """Raises StartError if nodes run on the store."""
    if nodes := store.nodes():
        names = ", ".join(sorted(nodes))
        raise StartError(
            f"nodes run on the store, or did until some seconds ago ({names}): stop them, and wait 20 seconds"
        )


def _logs(store: "StoreRooms") -> list[RoomLog]:
    """The rooms that have ever had a record. Raises StartError."""
    found = []
    for stand in store.stands(store.rooms()):
        if stand.condition == "copying":
            raise StartError(
                f"room {stand.log.room!a} has been copied into the store by half: finish that first"
            )
        if stand.log.last > 0:
            found.append(stand.log)
    return found


# Progress


@contextmanager
def _progress(everything: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many messages are copied. The function that it yields counts them."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    shown_at = 0.0

    def advance(count: int) -> None:
        nonlocal done, shown_at
        done += count
        now = time.monotonic()
        if terminal and now - shown_at >= _PROGRESS_SECONDS:
            shown_at = now
            sys.stderr.write(f"\rCopied {done:,} of {everything:,} messages")
            sys.stderr.flush()

    try:
        advance(0)
        yield advance
    finally:
        if terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def counted(count: int, what: str) -> str:
    """A number of things: `1 message`, `2,000 messages`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
