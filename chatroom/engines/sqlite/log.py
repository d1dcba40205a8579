"""Rooms and their records in SQL.

1. Everything here is called by one thread, on one connection.
2. An append is one transaction: look-up of `cid`, judgement, id and insert go draft by draft in their order,
   whatever statements that takes. Nothing that an append decided is remembered before COMMIT has returned.
3. What is known of a room (its key and where its log begins and ends) is only a memory of the database, and
   may be dropped whenever no transaction is open. The sanctions of all rooms are held in memory, too.
4. Ids are dense, so ranges are reckoned, never counted, and every page costs one walk down the tree. A page
   of messages passes other records over, PASSED_OVER at most; then it says from where to go on.
5. A batch of messages costs one statement. Only a draft that changes something goes by itself.

It doesn't know what a failure means, nor who reads.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chatroom.core.errors import Trimmed
from chatroom.core.messages import (
    STORED,
    Act,
    Conflict,
    Draft,
    Duplicate,
    Edited,
    Failed,
    Message,
    Moderate,
    Moderated,
    Outcome,
    Page,
    Record,
    RoomSummary,
    text_bytes,
)
from chatroom.core.sanctions import Action, Sanction, Sanctions
from chatroom.engines import changes
from chatroom.engines.sqlite.schema import EPOCH_OF_ROOM, is_of_the_store, transaction

REMEMBERED_ROOMS = 10_000
_LOOKUPS = 64
"""Drafts that are looked up by one statement. It is filled up with NULL, which finds nothing."""

_BLANK = (None, None, None)
_COLUMNS = "id, ts, username, text, cid, rest"
_LOOK_UP = f"""
    SELECT m.room, m.id, m.ts, m.username, m.text, m.cid, m.rest
    FROM (VALUES {", ".join(["(?, ?, ?)"] * _LOOKUPS)}) AS wanted
    CROSS JOIN message AS m
    ON m.room = wanted.column1 AND m.username = wanted.column2 AND m.cid = wanted.column3
"""  # noqa: S608  (made of constants)
INSERT = f"INSERT INTO message (room, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UPDATE = "UPDATE message SET text = ?, rest = ? WHERE room = ? AND id = ?"
_EXTENT = """
    SELECT key, trimmed, (SELECT max(id) FROM message WHERE room = key),
        (SELECT value FROM meta WHERE meta.name = ? || room.name), others
    FROM room WHERE name = ?
"""
_ONE = f"SELECT {_COLUMNS} FROM message WHERE room = ? AND id = ?"  # noqa: S608
_RANGE = f"SELECT {_COLUMNS} FROM message WHERE room = ? AND id > ? AND id <= ? ORDER BY id"  # noqa: S608
_MODERATIONS = f"""
    SELECT {_COLUMNS} FROM message WHERE room = ? AND id <= ? AND rest IS NOT NULL ORDER BY id DESC
"""  # noqa: S608
_LOOKED_THROUGH = 10_000
"""Records that were changed or are no messages, among which moderations are looked for."""


PASSED_OVER = 500
"""Records that aren't messages, of which one walk passes over so many: a walk is to hold up no commit."""


class Extent(NamedTuple):
    """What is known of a room: `key` is None where nothing was ever stored.

    `epoch` is None where the room has that of the file. `others`: records that were no messages.
    """

    key: int | None
    trimmed: int
    last: int
    epoch: str | None = None
    others: int = 0


class Before(NamedTuple):
    """How a room stood before an append."""

    extent: Extent
    sanctions: tuple[Sanction, ...]


@dataclass(slots=True)
class Undo:
    """What it takes to undo an append: how its rooms stood, and the records that it replaced."""

    rooms: dict[str, Before] = field(default_factory=dict)
    replaced: list[tuple[int, Record]] = field(default_factory=list)  # with the keys of their rooms


class _TransactionState:
    """Where the rooms stand within the open transaction of an append, and rows that wait to be inserted.

    `stored`: the records that have the `cid` of one of the drafts, by room, name and `cid`, as they are now.
    """

    __slots__ = ("extents", "rows", "sanctions", "stored")

    def __init__(self, extents: dict[str, Extent], sanctions: dict[str, Sanctions]) -> None:
        self.extents = extents
        self.sanctions = sanctions  # of those of the rooms that have any; changed ones are copies
        self.rows: list[tuple[object, ...]] = []
        self.stored: dict[tuple[str, str, str | None], Record] = {}

    def know(self, room: str, record: Record) -> None:
        """A record is stored, or is another one now."""
        if record.cid is not None:
            self.stored[room, record.username, record.cid] = record

    def copy(self) -> "_TransactionState":
        return _TransactionState(dict(self.extents), dict(self.sanctions))


class Log:
    """A log per room, in an open database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._known: dict[str, Extent] = {}
        self._sanctions = _load_sanctions(connection)
        self.undo = Undo()
        """How to undo the last append, if nobody knows whether it was committed."""

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
        key, trimmed, last, epoch, others = found
        extent = Extent(key, trimmed, trimmed if last is None else last, epoch, others)
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
        self.undo = Undo()
        before = {room: self.extent(room) for room in {draft.room for draft in drafts}}
        self.undo.rooms = {room: Before(extent, self._all_sanctions(room)) for room, extent in before.items()}
        state = _TransactionState(before.copy(), self._sanctions_of(before))
        try:
            with transaction(self.connection):
                outcomes = self._write(drafts, state)
        except Exception as error:
            if is_of_the_store(error):
                raise
            state = _TransactionState(before.copy(), self._sanctions_of(before))
            with transaction(self.connection):
                outcomes = [self._write_alone(draft, state) for draft in drafts]
        self._remember({room: extent for room, extent in state.extents.items() if extent.key is not None})
        self._sanctions |= state.sanctions
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
            state.extents, state.sanctions = trial.extents, trial.sanctions
        self.connection.execute("RELEASE draft")
        return outcome

    def _write(self, drafts: Sequence[Draft], state: _TransactionState) -> list[Outcome]:
        outcomes: list[Outcome] = []
        state.stored = stored = self._look_up(drafts, state)
        for draft in drafts:
            room, username, text, cid = draft.room, draft.username, draft.text, draft.cid
            if cid is not None and (first := stored.get((room, username, cid))) is not None:
                outcomes.append(Duplicate(first.id) if changes.is_same(draft, first) else Conflict())
                continue
            outcome = self._refuse(draft, state) if state.sanctions else None
            if outcome is None and draft.act is not None:
                outcome = self._write_act(draft, draft.act, state)
            elif outcome is None:
                extent = self._advance(room, state)
                outcome = Message(extent.last, draft.ts, username, text, cid)
                state.rows.append((extent.key, extent.last, draft.ts, username, text, cid, None))
            outcomes.append(outcome)
            if cid is not None and isinstance(outcome, STORED):
                stored[room, username, cid] = outcome
        self._insert(state)
        return outcomes

    @staticmethod
    def _refuse(draft: Draft, state: _TransactionState) -> Outcome | None:
        """Why the author of a draft may not say anything now."""
        sanctions = state.sanctions.get(draft.room)
        return None if sanctions is None else changes.denied(draft, sanctions)

    def _write_act(self, draft: Draft, act: Act, state: _TransactionState) -> Outcome:
        """A draft that is no message (rule 5)."""
        record: Record
        if isinstance(act, Moderate):
            sanctions = state.sanctions.get(draft.room, Sanctions()).copy()
            if (refused := changes.judge_sanction(draft, act, sanctions)) is not None:
                return refused
            extent = self._advance(draft.room, state, other=True)
            record = changes.moderated(draft, act, extent.last)
            sanctions.apply(record.action, changes.sanction_of(record))
            state.sanctions[draft.room] = sanctions
            self._write_sanctions(draft.room, sanctions.all())
        else:
            self._insert(state)  # the message may be among them
            key = state.extents[draft.room].key
            target = self._one(key, act.about)
            if (refused := changes.judge_change(draft, act, target)) is not None:
                return refused
            assert isinstance(target, Message), "it was judged"
            extent = self._advance(draft.room, state, other=True)
            record = changes.changed(draft, act, extent.last, target)
            state.know(draft.room, self._replace(extent.key, target, changes.as_it_is(target, record)))
            if isinstance(earlier := self._one(key, record.replaces), Edited):
                state.know(draft.room, self._replace(extent.key, earlier, earlier._replace(text="")))
        state.rows.append((extent.key, *record[:5], changes.rest_of(record)))
        self.connection.execute("UPDATE room SET others = ? WHERE key = ?", (extent.others, extent.key))
        return record

    def _insert(self, state: _TransactionState) -> None:
        if state.rows:
            self.connection.executemany(INSERT, state.rows)
            state.rows = []

    def _one(self, key: int | None, record_id: int) -> Record | None:
        row = self.connection.execute(_ONE, (key, record_id)).fetchone()
        return None if row is None else _record(row)

    def _replace(self, key: int | None, old: Record, new: Record) -> Record:
        assert key is not None, "it has records"
        self.undo.replaced.append((key, old))
        self.connection.execute(_UPDATE, (new.text, changes.rest_of(new), key, new.id))
        return new

    def _advance(self, room: str, state: _TransactionState, *, other: bool = False) -> Extent:
        """Take the room's next id, for a record that is no message if `other`."""
        key, trimmed, last, epoch, others = state.extents[room]
        if key is None:
            key = self.connection.execute("INSERT INTO room (name, trimmed) VALUES (?, 0)", (room,)).lastrowid
        state.extents[room] = advanced = Extent(key, trimmed, last + 1, epoch, others + other)
        return advanced

    def _look_up(
        self, drafts: Sequence[Draft], state: _TransactionState
    ) -> dict[tuple[str, str, str | None], Record]:
        """The stored records that have the `cid` of one of the drafts."""
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
            for key, *row in self.connection.execute(
                _LOOK_UP, [value for triple in some for value in triple]
            ):
                record = _record(row)
                found[rooms[key], record.username, record.cid] = record
        return found

    def take_back(self, undo: Undo) -> None:
        """Undo an append that failed, of which no client was told."""
        for room, before in undo.rooms.items():
            key = self.extent(room).key
            self._known.pop(room, None)
            if key is None:
                continue
            with transaction(self.connection):
                self.connection.execute(
                    "DELETE FROM message WHERE room = ? AND id > ?", (key, before.extent.last)
                )
                self.connection.execute(
                    "UPDATE room SET others = ? WHERE key = ?", (before.extent.others, key)
                )
                self._write_sanctions(room, before.sanctions)
                for old in reversed([old for of, old in undo.replaced if of == key]):
                    self.connection.execute(_UPDATE, (old.text, changes.rest_of(old), key, old.id))
        self._sanctions = _load_sanctions(self.connection)

    # Sanctions

    def sanctions(self, room: str, now: int) -> tuple[Sanction, ...]:
        """Those in force in a room."""
        found = self._sanctions.get(room)
        return () if found is None else found.in_force(now)

    def _sanctions_of(self, rooms: Iterable[str]) -> dict[str, Sanctions]:
        """Those of these rooms that have any."""
        if not self._sanctions:
            return {}
        return {room: self._sanctions[room] for room in rooms if room in self._sanctions}

    def _all_sanctions(self, room: str) -> tuple[Sanction, ...]:
        found = self._sanctions.get(room) if self._sanctions else None
        return () if found is None else found.all()

    def _write_sanctions(self, room: str, sanctions: Iterable[Sanction]) -> None:
        """Within a transaction: these are the sanctions of the room, and no others."""
        self.connection.execute("DELETE FROM sanction WHERE room = ?", (room,))
        self.connection.executemany(
            "INSERT INTO sanction VALUES (?, ?, ?, ?, ?, ?)", [(room, *each) for each in sanctions]
        )

    # Reading

    def read(self, room: str, after: int, upto: int, limit: int, max_bytes: int) -> list[Record]:
        """See Engine. Raises Trimmed."""
        extent = self.extent(room)
        if after < extent.trimmed:
            raise Trimmed(extent.trimmed + 1)
        return self._range(extent, after, min(upto, after + limit), max_bytes)

    def _range(self, extent: Extent, after: int, upto: int, max_bytes: int) -> list[Record]:
        """The records above `after` up to `upto`, ascending, as many as have `max_bytes`.

        Raises sqlite3.DatabaseError if one is missing.
        """
        upto = min(upto, extent.last)
        if upto <= after:
            return []
        found: list[Record] = []
        size = 0
        with closing(self.connection.execute(_RANGE, (extent.key, after, upto))) as rows:
            for row in rows:
                found.append(record := _record(row))
                if (size := size + text_bytes(record)) >= max_bytes:
                    break
        whole = size >= max_bytes or len(found) == upto - after
        if not whole or (found[0].id, found[-1].id) != (after + 1, after + len(found)):
            raise _missing(after)
        return found

    def history(
        self, room: str, *, before: int | None, after: int | None, upto: int, limit: int, max_bytes: int
    ) -> tuple[Page, int | None]:
        """See Engine. With the id from which to go on, if the page isn't complete yet (rule 4)."""
        extent = self.extent(room)
        upto = min(upto, extent.last)
        if after is not None:
            return self._page(extent, max(after, extent.trimmed), upto, limit, max_bytes)
        end = upto if before is None else min(upto, before - 1)
        return self._page(extent, extent.trimmed, end, limit, max_bytes, newest_first=True)

    def _page(
        self, extent: Extent, after: int, upto: int, limit: int, max_bytes: int, *, newest_first: bool = False
    ) -> tuple[Page, int | None]:
        """The messages above `after` up to `upto`, from the end that is read first: `limit`, or `max_bytes`.

        They are ascending either way. Other records are passed over (rule 4).

        Raises sqlite3.DatabaseError if a record is missing.
        """
        found: list[Message] = []
        size, more, passed, go_on = 0, False, 0, None
        expected = upto if newest_first else after + 1
        query = _RANGE + " DESC" if newest_first else _RANGE
        with closing(self.connection.execute(query, (extent.key, after, upto))) as rows:
            for row in rows:
                if row[0] != expected:
                    raise _missing(after)
                expected += -1 if newest_first else 1
                record = _record(row)
                if not isinstance(record, Message):
                    passed += 1
                    if passed == PASSED_OVER:
                        go_on = record.id
                        break
                    continue
                if len(found) == limit or size >= max_bytes:
                    more = True
                    break
                found.append(record)
                size += text_bytes(record)
        whole = not more and go_on is None
        if whole and upto > after and expected != (after if newest_first else upto + 1):
            raise _missing(after)
        return Page(tuple(reversed(found) if newest_first else found), more), go_on

    def moderations(self, room: str, upto: int, limit: int) -> list[Moderated]:
        """See Engine."""
        found: list[Moderated] = []
        with closing(self.connection.execute(_MODERATIONS, (self.extent(room).key, upto))) as rows:
            for _, row in zip(range(_LOOKED_THROUGH), rows, strict=False):
                if isinstance(record := _record(row), Moderated):
                    found.append(record)
                    if len(found) == limit:
                        break
        return found[::-1]

    def summaries(self, rooms: Sequence[str]) -> list[RoomSummary]:
        """See Engine, of these rooms."""
        found = []
        for room in rooms:
            extent = self.extent(room)
            row = self.connection.execute(
                "SELECT ts FROM message WHERE room = ? AND id = ?", (extent.key, extent.last)
            ).fetchone()
            if row is not None:
                found.append(RoomSummary(room, extent.last, row[0]))
        return found

    # Trimming

    def rooms_after(self, room: str, limit: int) -> list[str]:
        """The next `limit` names after `room`, in order, of rooms in which anything was ever stored."""
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
        self._remember({room: extents[room]._replace(trimmed=first - 1) for room, first in firsts.items()})


def _record(row: Sequence[Any]) -> Record:
    number, ts, username, text, cid, rest = row
    if rest is None:  # nearly always
        return Message(number, ts, username, text, cid)
    try:
        return changes.record_of(number, ts, username, text, cid, rest)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise sqlite3.DatabaseError(f"the record {number} can't be read") from None


def _missing(after: int) -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError(f"records are missing after {after}")


def _load_sanctions(connection: sqlite3.Connection) -> dict[str, Sanctions]:
    found: dict[str, list[Sanction]] = {}
    for room, action, *rest in connection.execute("SELECT * FROM sanction"):
        found.setdefault(room, []).append(Sanction(Action(action), *rest))
    return {room: Sanctions(sanctions) for room, sanctions in found.items()}
