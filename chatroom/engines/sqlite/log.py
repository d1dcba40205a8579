"""Rooms and messages in SQL.

1. Everything here is called by one thread, on one connection.
2. An append is one transaction: look-up of `cid`, id and insert go draft by draft in their order, whatever
   statements that takes. Nothing that an append decided is remembered before COMMIT has returned.
3. What is known of a room (its key and where its log begins and ends) is only a memory of the database, and
   may be dropped whenever no transaction is open.
4. Ids are dense, so ranges are reckoned, never counted, and every page costs one walk down the tree.

It doesn't know what a failure means, nor who reads.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from chatroom.core.errors import Trimmed
from chatroom.core.messages import (
    Conflict,
    Draft,
    Duplicate,
    Failed,
    Message,
    Outcome,
    Page,
    text_bytes,
)
from chatroom.engines.sqlite.schema import EPOCH_OF_ROOM, is_of_the_store, transaction

REMEMBERED_ROOMS = 10_000
_LOOKUPS = 64
"""Drafts that are looked up by one statement. It is filled up with NULL, which finds nothing."""

_BLANK = (None, None, None)
_LOOK_UP = f"""
    SELECT m.room, m.username, m.cid, m.id, m.text
    FROM (VALUES {", ".join(["(?, ?, ?)"] * _LOOKUPS)}) AS wanted
    CROSS JOIN message AS m
    ON m.room = wanted.column1 AND m.username = wanted.column2 AND m.cid = wanted.column3
"""  # noqa: S608  (made of constants)
INSERT_MESSAGE = "INSERT INTO message (room, id, ts, username, text, cid) VALUES (?, ?, ?, ?, ?, ?)"
_EXTENT = """
    SELECT key, trimmed, (SELECT max(id) FROM message WHERE room = key),
        (SELECT value FROM meta WHERE meta.name = ? || room.name)
    FROM room WHERE name = ?
"""
_RANGE = "SELECT id, ts, username, text, cid FROM message WHERE room = ? AND id > ? AND id <= ? ORDER BY id"


@dataclass(frozen=True, slots=True)
class Extent:
    """What is known of a room: `key` is None where nothing was ever stored.

    `epoch` is None where the room has that of the file.
    """

    key: int | None
    trimmed: int
    last: int
    epoch: str | None = None


class _TransactionState:
    """Where the rooms stand within the open transaction of an append."""

    __slots__ = ("extents",)

    def __init__(self, extents: dict[str, Extent]) -> None:
        self.extents = extents

    def copy(self) -> "_TransactionState":
        return _TransactionState(dict(self.extents))


class Log:
    """A log per room, in an open database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._known: dict[str, Extent] = {}

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def extent(self, room: str) -> Extent:
        """Where the room's log begins and ends. Raises sqlite3.Error."""
        if (known := self._known.get(room)) is not None:
            return known
        found = self.connection.execute(_EXTENT, (EPOCH_OF_ROOM, room)).fetchone()
        if found is None:
            return Extent(None, 0, 0)  # not remembered: an empty room is to cost nothing
        key, trimmed, last, epoch = found
        extent = Extent(key, trimmed, trimmed if last is None else last, epoch)
        self._remember({room: extent})
        return extent

    def _remember(self, extents: Mapping[str, Extent]) -> None:
        """Called while no transaction is open."""
        if len(self._known) >= REMEMBERED_ROOMS:
            self._known.clear()
        self._known.update(extents)

    # Writing

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Store the drafts in one transaction. Raises only what is the store's fault."""
        before = {room: self.extent(room) for room in {draft.room for draft in drafts}}
        state = _TransactionState(before.copy())
        try:
            with transaction(self.connection):
                outcomes = self._write(drafts, state)
        except Exception as error:
            if is_of_the_store(error):
                raise
            state = _TransactionState(before.copy())
            with transaction(self.connection):
                outcomes = [self._write_alone(draft, state) for draft in drafts]
        self._remember({room: extent for room, extent in state.extents.items() if extent.key is not None})
        return outcomes

    def _write_alone(self, draft: Draft, state: _TransactionState) -> Outcome:
        """Store one draft; or find that it can't be stored, and leave no trace of it."""
        trial = state.copy()
        self.connection.execute("SAVEPOINT draft")
        try:
            (outcome,) = self._write([draft], trial)
        except Exception as error:
            if is_of_the_store(error):
                raise
            self.connection.execute("ROLLBACK TO draft")
            outcome = Failed()
        else:
            state.extents = trial.extents
        self.connection.execute("RELEASE draft")
        return outcome

    def _write(self, drafts: Sequence[Draft], state: _TransactionState) -> list[Outcome]:
        outcomes: list[Outcome] = []
        rows: list[tuple[object, ...]] = []
        stored = self._look_up(drafts, state)
        for draft in drafts:
            mark = (draft.room, draft.username, draft.cid)
            if draft.cid is not None and (first := stored.get(mark)) is not None:
                number, text = first
                outcomes.append(Duplicate(number) if text == draft.text else Conflict())
                continue
            extent = self._advance(draft.room, state)
            message = Message(extent.last, draft.ts, draft.username, draft.text, draft.cid)
            rows.append((extent.key, message.id, message.ts, message.username, message.text, message.cid))
            outcomes.append(message)
            if draft.cid is not None:
                stored[mark] = (message.id, message.text)
        self.connection.executemany(INSERT_MESSAGE, rows)
        return outcomes

    def _advance(self, room: str, state: _TransactionState) -> Extent:
        """Take the room's next id."""
        extent = state.extents[room]
        key = extent.key
        if key is None:
            key = self.connection.execute("INSERT INTO room (name, trimmed) VALUES (?, 0)", (room,)).lastrowid
        advanced = replace(extent, key=key, last=extent.last + 1)
        state.extents[room] = advanced
        return advanced

    def _look_up(
        self, drafts: Sequence[Draft], state: _TransactionState
    ) -> dict[tuple[str, str, str | None], tuple[int, str]]:
        """Id and text of the stored messages that have the `cid` of one of the drafts."""
        rooms: dict[int, str] = {}
        wanted: list[tuple[object, ...]] = []
        for draft in drafts:
            if draft.cid is not None and (key := state.extents[draft.room].key) is not None:
                rooms[key] = draft.room
                wanted.append((key, draft.username, draft.cid))
        found = {}
        for start in range(0, len(wanted), _LOOKUPS):
            some = wanted[start : start + _LOOKUPS]
            some += [_BLANK] * (_LOOKUPS - len(some))
            for key, username, cid, number, text in self.connection.execute(
                _LOOK_UP, [value for triple in some for value in triple]
            ):
                found[rooms[key], username, cid] = (number, text)
        return found

    def truncate(self, room: str, last: int) -> None:
        """Remove the messages beyond `last`: those of a commit that failed, of which no client was told."""
        key = self.extent(room).key
        if key is not None:
            with transaction(self.connection):
                self.connection.execute("DELETE FROM message WHERE room = ? AND id > ?", (key, last))
        self._known.pop(room, None)

    # Reading

    def read(self, room: str, after: int, upto: int, limit: int, max_bytes: int) -> list[Message]:
        """See Engine. Raises Trimmed."""
        extent = self.extent(room)
        if after < extent.trimmed:
            raise Trimmed(extent.trimmed + 1)
        return self._range(extent, after, min(upto, after + limit), max_bytes)

    def history(
        self, room: str, *, before: int | None, after: int | None, upto: int, limit: int, max_bytes: int
    ) -> Page:
        """See Engine."""
        extent = self.extent(room)
        if after is not None:
            start = max(after, extent.trimmed)
            found = self._range(extent, start, min(upto, start + limit), max_bytes)
            return Page(tuple(found), more=bool(found) and found[-1].id < upto)
        end = upto if before is None else min(upto, before - 1)
        found = self._range(extent, max(end - limit, extent.trimmed), end, max_bytes, newest_first=True)
        return Page(tuple(found), more=bool(found) and found[0].id > extent.trimmed + 1)

    def _range(
        self, extent: Extent, after: int, upto: int, max_bytes: int, *, newest_first: bool = False
    ) -> list[Message]:
        """The messages above `after` up to `upto`: as many, from the end that is read first, as have
        `max_bytes`.

        They are ascending either way. Raises sqlite3.DatabaseError if one is missing.
        """
        upto = min(upto, extent.last)
        if upto <= after:
            return []
        found: list[Message] = []
        size = 0
        with closing(
            self.connection.execute(_RANGE + " DESC" if newest_first else _RANGE, (extent.key, after, upto))
        ) as rows:
            for row in rows:
                found.append(message := Message(*row))
                if (size := size + text_bytes(message)) >= max_bytes:
                    break
        if newest_first:
            found.reverse()
        begin = upto - len(found) if newest_first else after
        whole = size >= max_bytes or len(found) == upto - after
        if not whole or (found[0].id, found[-1].id) != (begin + 1, begin + len(found)):
            raise sqlite3.DatabaseError(f"messages are missing after {after}")
        return found

    # Trimming

    def rooms_after(self, room: str, limit: int) -> list[str]:
        """The next `limit` names after `room`, in order, of rooms in which a message was ever stored."""
        rows = self.connection.execute(
            "SELECT name FROM room WHERE name > ? ORDER BY name LIMIT ?", (room, limit)
        )
        return [name for (name,) in rows]

    def first_since(self, room: str, ts: int, limit: int) -> int:
        """The id of the first message since `ts` among the `limit` oldest; else the id after these."""
        extent = self.extent(room)
        end = min(extent.trimmed + limit, extent.last)
        (young,) = self.connection.execute(
            "SELECT min(id) FROM message WHERE room = ? AND id > ? AND id <= ? AND ts >= ?",
            (extent.key, extent.trimmed, end, ts),
        ).fetchone()
        return end + 1 if young is None else int(young)

    def trim(self, firsts: Mapping[str, int]) -> None:
        """Remove from each room the messages with ids below its first, which is one beyond the last at most.

        Raises sqlite3.Error.
        """
        extents = {room: self.extent(room) for room in firsts}
        with transaction(self.connection):
            for room, first in firsts.items():
                key = extents[room].key
                self.connection.execute("DELETE FROM message WHERE room = ? AND id < ?", (key, first))
                self.connection.execute("UPDATE room SET trimmed = ? WHERE key = ?", (first - 1, key))
        self._remember({room: replace(extents[room], trimmed=first - 1) for room, first in firsts.items()})
