"""Rooms as a whole: copied into a store from a database, or out of it.

Owns: the connections of a copy, and which rooms it finds in the store.

1. A room that is copied in is marked in the store until it is complete. Meanwhile no node opens it, and an
   interrupted copy goes on where it stopped.
2. Nothing in the store is ever overwritten. Nothing is retried: an error ends the copy, and the next run
   finds out what was done.
3. It blocks. Every failure is a StartError of one line, without the password.

Doesn't know: the database, and nodes that run.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

from redis.connection import AbstractConnection

from chatroom.core.errors import StartError
from chatroom.core.messages import Record, RoomLog
from chatroom.core.stores import StoreAddress, StoreKind
from chatroom.engines.redis import library
from chatroom.engines.redis.connecting import Connector, ask, ask_sentinels, is_missing_function, problem_of
from chatroom.engines.redis.library import Command, RoomKeys, ServerAddress, SlotMap, slot_of
from chatroom.engines.redis.pushes import read_reply, records_of, sanctions_of
from chatroom.engines.redis.shards import find_map

PATIENCE = 10.0
"""Seconds for an answer of the store."""
PIECE, PIECE_BYTES = 500, 256 * 1024
"""Records that one call moves at most, and about how much text."""
_TOGETHER, _TOGETHER_BYTES = 64, 1024 * 1024
"""Calls, and bytes of their arguments, that are under way at once."""
_SCAN = 1000


class Condition(StrEnum):
    """The state of a room in the store."""

    FREE = "free"
    FOREIGN = "foreign"
    COPYING = "copying"
    THERE = "there"


class Stand(NamedTuple):
    """The state of a room, and, if it is there or being copied, its log and its newest record."""

    condition: Condition
    log: RoomLog
    newest: Record | None


class StoreRooms:
    """The rooms in a store, below a prefix."""

    def __init__(self, address: StoreAddress, prefix: str, check: Callable[[], None] = lambda: None) -> None:
        """`check` is called before each command; an exception of it ends the copy. Raises StartError."""
        self._check = check
        self._shown = address.shown
        self._prefix = prefix
        self._map: SlotMap | None = None  # of a Cluster
        self._connections: dict[ServerAddress | None, AbstractConnection] = {}
        try:
            self._connect(address)
        except Exception as error:
            self.close()
            raise self._failed(error) from None

    def _connect(self, address: StoreAddress) -> None:
        match address.kind:
            case StoreKind.CLUSTER:
                self._map = find_map(address, PATIENCE)
                for server in self._map.servers:
                    one = replace(address, kind=StoreKind.STANDALONE, hosts=(server,))
                    self._connections[server] = self._prepared(Connector(one, patience=PATIENCE))
            case StoreKind.SENTINEL:
                where = partial(ask_sentinels, address, PATIENCE)
                self._connections[None] = self._prepared(Connector(address, patience=PATIENCE, where=where))
            case StoreKind.STANDALONE:
                self._connections[None] = self._prepared(Connector(address, patience=PATIENCE))

    @staticmethod
    def _prepared(connector: Connector) -> AbstractConnection:
        connection = connector.connect()
        try:
            connector.prepare(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.disconnect()

    def _failed(self, error: Exception) -> StartError:
        if isinstance(error, StartError):
            return StartError(f"--redis {self._shown}: {error}")
        if is_missing_function(error):  # they could not be loaded; the reason isn't known
            return StartError(f"--redis {self._shown}: the store takes no functions: its memory may be full")
        return StartError(f"--redis {self._shown}: {problem_of(error)}")

    # Looking

    def nodes(self) -> list[str]:
        """The nodes that run on the store, or ran until a moment ago. Raises StartError."""
        key = f"{self._prefix}:nodes"
        connection = self._of(key)
        now, _ = self._ask(connection, "TIME")
        found = self._ask(connection, "ZRANGEBYSCORE", key, int(now) * 1000, "+inf")
        return [unquote(line.partition(b"#")[0]) for line in found]

    def rooms(self) -> list[str]:
        """The names of all rooms, sorted. Raises StartError."""
        found: set[str] = set()
        for connection in self._connections.values():
            cursor = None
            while cursor != b"0":
                cursor, keys = self._ask(connection, *library.scan_rooms(self._prefix, cursor or b"0", _SCAN))
                for key in keys:
                    with suppress(ValueError):  # a key of another program
                        found.add(library.room_of(self._prefix, key.decode()))
        return sorted(found)

    def stands(self, rooms: Sequence[str]) -> list[Stand]:
        """The states of these rooms. Raises StartError."""
        replies = self._call([library.inspect(self._keys(room)) for room in rooms])
        return [self._stand(room, reply) for room, reply in zip(rooms, replies, strict=True)]

    @staticmethod
    def _stand(room: str, reply: list[Any]) -> Stand:
        if len(reply) == 1:
            return Stand(Condition(reply[0]), RoomLog(room, "", 1, 0), None)
        condition, epoch, first, last, newest, others, sanctions = reply
        return Stand(
            Condition(condition),
            RoomLog(room, epoch, first, last, others, sanctions_of(sanctions or ())),
            records_of(last, newest)[0] if newest else None,
        )

    def renew(self, new_epoch: Callable[[], str]) -> None:
        """Give each room a new epoch. Raises StartError."""
        there = [stand.log for stand in self.stands(self.rooms()) if stand.condition == Condition.THERE]
        self._call([library.renew(self._keys(log.room), log.epoch, new_epoch()) for log in there])

    # Bringing in

    def bring_in(self, logs: Iterable[tuple[RoomLog, Iterable[Sequence[Record]]]]) -> Iterator[int]:
        """Write the missing records of each room, in pieces; yields how many records are new.

        Raises StartError.
        """
        writing = _Pipeline(self)
        for log, pieces in logs:
            keys = self._keys(log.room)
            yield from writing.put(log.room, library.copy_begin(keys, log))
            for piece in pieces:
                last = piece[0].id - 1
                yield from writing.put(log.room, library.copy_add(keys, log.epoch, last, piece), len(piece))
            yield from writing.put(log.room, library.copy_end(keys, log.epoch, log.last))
        yield from writing.flush()

    # Reading out

    def read(self, logs: Sequence[RoomLog]) -> Iterator[tuple[RoomLog, list[Record]]]:
        """Read the records of these rooms, room by room, in pieces. Raises StartError."""
        for at in range(0, len(logs), _TOGETHER):
            some = logs[at : at + _TOGETHER]
            replies = self._call([self._piece(log, log.first) for log in some])
            for log, reply in zip(some, replies, strict=True):
                records = self._records(log, log.first, reply)
                yield log, records
                first = log.first + len(records)
                while first <= log.last:
                    (more,) = self._call([self._piece(log, first)])
                    records = self._records(log, first, more)
                    yield log, records
                    first += len(records)

    def _piece(self, log: RoomLog, first: int) -> Command:
        return library.read(
            self._keys(log.room), log.epoch, first - 1, log.last, limit=PIECE, most=PIECE_BYTES
        )

    def _records(self, log: RoomLog, first: int, reply: list[Any]) -> list[Record]:
        if reply[0] != "ok":
            raise self.changed(log.room)
        records = records_of(first, reply[2] or ())
        if not records and first <= log.last:
            raise StartError(
                f"messages of room {log.room!a} are missing in --redis {self._shown} from {first} on"
            )
        return records

    def changed(self, room: str) -> StartError:
        """The error for a room that another program has written to meanwhile."""
        return StartError(
            f"room {room!a} in --redis {self._shown} has changed meanwhile: stop all nodes, and other copies"
        )

    # Asking

    def _keys(self, room: str) -> RoomKeys:
        return RoomKeys.of(self._prefix, room)

    def _of(self, key: str) -> AbstractConnection:
        """The connection to the server that has the key."""
        if self._map is None:
            return self._connections[None]
        if (server := self._map.owner(slot_of(key))) is None:
            raise StartError(f"--redis {self._shown}: no server of the Cluster has the room of {key!a}")
        return self._connections[server]

    def _ask(self, connection: AbstractConnection, *command: str | int | bytes) -> Any:
        self._check()
        try:
            return ask(connection, command)
        except Exception as error:
            raise self._failed(error) from None

    def _call(self, commands: Sequence[Command]) -> list[list[Any]]:
        """The answers of our functions."""
        replies: list[list[Any]] = []
        for at in range(0, len(commands), _TOGETHER):
            replies += self.exchange(commands[at : at + _TOGETHER])
        return replies

    def exchange(self, commands: Sequence[Command]) -> list[list[Any]]:
        """Call a few functions at once, on each server in their order. Raises StartError."""
        self._check()
        routes = [self._of(str(command[3])) for command in commands]  # by their first key
        try:
            for connection in dict.fromkeys(routes):
                own = [
                    command for command, route in zip(commands, routes, strict=True) if route is connection
                ]
                connection.send_packed_command(connection.pack_commands(own), check_health=False)
            return [read_reply(route.read_response(disable_decoding=True)) for route in routes]
        except json.JSONDecodeError:
            raise StartError(f"--redis {self._shown}: no answer of ours") from None
        except Exception as error:
            raise self._failed(error) from None


def renew_rooms(address: StoreAddress, prefix: str, new_epoch: Callable[[], str]) -> None:
    """Give each room a new epoch, whatever nodes run. Raises StartError."""
    with closing(StoreRooms(address, prefix)) as store:
        store.renew(new_epoch)


class _Pipeline:
    """Calls that copy rooms in: gathered, sent together, and their answers checked."""

    def __init__(self, store: StoreRooms) -> None:
        self._store = store
        self._gathered: list[tuple[str, Command, int]] = []
        self._bytes = 0

    def put(self, room: str, command: Command, records: int = 0) -> Iterator[int]:
        """Add a call, which writes so many records."""
        self._gathered.append((room, command, records))
        self._bytes += len(str(command[-1]))
        if len(self._gathered) >= _TOGETHER or self._bytes >= _TOGETHER_BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[int]:
        """Send the gathered calls."""
        gathered, self._gathered, self._bytes = self._gathered, [], 0
        replies = self._store.exchange([command for _, command, _ in gathered])
        for (room, _, records), reply in zip(gathered, replies, strict=True):
            if reply[0] != "ok":
                raise self._store.changed(room)
            yield records
