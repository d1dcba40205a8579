"""One room of a database: read at one moment, written as a whole, with ids led over."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.errors import StartError
from chatroom.core.messages import (
    Delete,
    Deleted,
    Draft,
    Edit,
    Edited,
    Message,
    Moderate,
    Moderated,
    Record,
)
from chatroom.core.sanctions import Action, Sanction
from chatroom.engines.sqlite import oneroom
from chatroom.engines.sqlite.oneroom import reading_room, writing_room
from tests.support.database import epochs, open_store, query
from tests.support.engine_contract import TS, draft

LATER = 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def write(path: Path, records: Sequence[Record], sanctions: tuple[Sanction, ...] = ()) -> list[bool]:
    with writing_room(str(path), "r", epochs("new")) as room:
        done = [room.add(record) for record in records]
        room.end(sanctions)
    return done


def kept(path: Path, room: str = "r") -> list[Record]:
    with reading_room(str(path), room) as found:
        return [record for piece in found.pieces() for record in piece]


def act(draft_act: Edit | Delete | Moderate, text: str = "", username: str = "alice") -> Draft:
    return Draft("r", username, text, None, TS, moderator=username == "carol", act=draft_act)


def fill(path: Path) -> list[Record]:
    """A room in which everything happened that may, behind one that has other records."""
    with closing(open_store(path)) as store:
        store.append([draft(str(number), room="other") for number in range(9)])
        outcomes = store.append([
            draft("one", "c1"),
            draft("two"),
            act(Edit(1, LATER), "uno"),
            act(Edit(1, LATER), "un"),
            draft("three", username="bob"),
            act(Edit(2, LATER), "due"),
            act(Delete(2, LATER), username="carol"),
            act(Moderate(Action.MUTE, "bob", 60), "flooding", "carol"),
            act(Delete(5, LATER), username="bob"),
        ])  # fmt: skip
        assert all(isinstance(each, Message | Edited | Deleted | Moderated) for each in outcomes)
        return list(store.read("r", 0, 9, 9))


# Reading


@pytest.mark.parametrize("running", [True, False])
def test_a_room_is_read_as_it_stands(path: Path, running: bool) -> None:
    expected = fill(path)
    store = open_store(path)
    if not running:
        store.close()
    with reading_room(str(path), "r") as room:
        assert (room.log.room, room.log.epoch, room.log.first, room.log.last) == ("r", "e1", 1, 9)
        if running:
            store.append([draft("later"), act(Delete(1, LATER), username="carol")])
            store.trim({"r": 5})
            store.close()
        found = [record for piece in room.pieces() for record in piece]
        assert found == expected
        assert room.log.others == 6
        assert room.log.sanctions == (Sanction(Action.MUTE, "bob", "carol", TS + 60_000, "flooding"),)


def test_what_was_trimmed_is_not_there(path: Path) -> None:
    expected = fill(path)
    with closing(open_store(path)) as store:
        store.trim({"r": 5})
    assert kept(path) == expected[4:]
    with closing(open_store(path)) as store:
        store.trim({"r": 10})
    with reading_room(str(path), "r") as room:
        assert (room.log.first, room.log.last) == (10, 9)
        assert list(room.pieces()) == []


def test_reading_changes_no_byte(path: Path) -> None:
    fill(path)
    before = path.read_bytes()
    kept(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("room", ["R", "never"])
def test_a_room_that_is_not_there(path: Path, room: str) -> None:
    fill(path)
    with pytest.raises(StartError, match=f"there is no room '{room}' in .*chat.db"):
        kept(path, room)


def test_a_database_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(StartError, match="doesn't exist"):
        kept(path)
    path.write_bytes(b"no database")
    with pytest.raises(StartError, match="is no database"):
        kept(path)
    path.unlink()
    fill(path)
    query(path, "DELETE FROM message WHERE id = 4")
    with pytest.raises(StartError, match=r"can't be read \(records are missing after 0\)"):
        kept(path)
    query(path, "PRAGMA user_version = 1")
    with pytest.raises(StartError, match="written by an earlier version"):
        kept(path)


# Writing


def test_a_room_is_written_as_it_was(path: Path, tmp_path: Path) -> None:
    records = fill(path)
    copy = tmp_path / "copy.db"
    sanctions = (Sanction(Action.BAN, "eve", "carol", None, "x"),)
    assert write(copy, [bare(record) for record in records], sanctions) == [True] * 9
    assert kept(copy) == records
    assert os.stat(copy).st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["chat.db", "chat.db-lock", "copy.db"]
    with closing(open_store(copy)) as store:
        extent = store.extent("r")
        assert (extent.epoch, extent.last, extent.others) == ("new1", 9, 6)
        assert store.sanctions("r", TS) == sanctions
        (again,) = store.append([draft("one", "c1")])
        assert getattr(again, "id", None) == 1


def bare(record: Record) -> Record:
    """As it comes from a frame. That doesn't say what was replaced, nor that a deleted message was edited."""
    if isinstance(record, Edited | Deleted):
        return record._replace(replaces=0)
    if isinstance(record, Message) and record.deleted:
        return record._replace(edited=None)
    return record


def test_ids_are_new_and_changes_of_what_is_not_there_are_left_out(path: Path) -> None:
    records = fill(path)
    assert write(path.with_name("copy.db"), [bare(record) for record in records[1:]]) == [
        True, False, False, True, True, True, True, True,
    ]  # fmt: skip
    assert kept(path.with_name("copy.db")) == [
        Message(1, TS, "alice", "", None, edited=3, deleted=4),
        Message(2, TS, "bob", "", None, deleted=6),
        Edited(3, TS, "alice", "", None, 1, 1),
        Deleted(4, TS, "carol", "", None, 1, "alice", 3),
        Moderated(5, TS, "carol", "flooding", None, Action.MUTE, "bob", TS + 60_000),
        Deleted(6, TS, "bob", "", None, 2, "bob", 2),
    ]


def test_other_rooms_are_left_alone_and_the_room_goes_on(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.append([draft("x", room="other")])
    write(path, [Message(5, TS, "alice", "hi", "c")])
    with closing(open_store(path)) as store:
        assert (store.epoch_of("other"), store.epoch_of("r"), store.extent("r").last) == ("e1", "new1", 1)
        assert [each.text for each in store.read("other", 0, 1, 1)] == ["x"]
        (after,) = store.append([draft("next")])
        assert isinstance(after, Message)
        assert after.id == 2


def test_a_room_of_which_nothing_is_left_may_be_written(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.append([draft("x"), act(Edit(1, LATER), "y")])
        store.trim({"r": 3})
    write(path, [Message(1, TS, "alice", "hi", None)])
    assert kept(path) == [Message(1, TS, "alice", "hi", None)]
    with closing(open_store(path)) as store:
        assert (store.extent("r").trimmed, store.extent("r").others) == (0, 0)


@pytest.mark.parametrize("what", ["a record", "a sanction"])
def test_a_room_that_has_something_is_left_alone(path: Path, what: str) -> None:
    with closing(open_store(path)) as store:
        store.append([act(Moderate(Action.BAN, "eve", None), username="carol")])
        if what == "a sanction":
            store.trim({"r": 2})
    with pytest.raises(StartError, match="room 'r' is there already: choose another name by --room"):
        write(path, [])


def test_a_database_in_use_is_left_alone(path: Path) -> None:
    with (
        closing(open_store(path)),
        pytest.raises(StartError, match=r"another server uses .*chat.db: stop it"),
    ):
        write(path, [])


def test_a_disk_that_fails_is_told(path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere/chat\.db can't be written"):
        write(path.parent / "nowhere" / "chat.db", [])


M = Message(3, TS, "alice", "hi", "c", edited=5)
D = Message(3, TS, "alice", "", None, deleted=9)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([M], "the message 3 was changed by the record 5, which isn't there"),
        ([D], "the message 3 was changed by the record 9, which isn't there"),
        ([M, Edited(4, TS, "alice", "old", None, 3, 0)], "it doesn't fit the message 3"),
        ([M, Edited(5, TS, "alice", "else", None, 3, 0)], "it doesn't fit the message 3"),
        ([M, Edited(5, TS, "bob", "hi", None, 3, 0)], "it doesn't fit the message 3"),
        ([M, Edited(6, TS, "alice", "", None, 3, 0)], "it doesn't fit the message 3"),
        (
            [M, Edited(5, TS, "alice", "hi", None, 3, 0), Edited(6, TS, "alice", "", None, 3, 0)],
            "it doesn't fit the message 3",
        ),
        ([M, Deleted(5, TS, "alice", "", None, 3, "alice", 0)], "it doesn't fit the message 3"),
        ([D, Deleted(8, TS, "alice", "", None, 3, "alice", 0)], "it doesn't fit the message 3"),
        ([D, Deleted(9, TS, "alice", "", None, 3, "bob", 0)], "it doesn't fit the message 3"),
        ([D, Edited(4, TS, "alice", "hi", None, 3, 0)], "it doesn't fit the message 3"),
        (
            [D, Deleted(9, TS, "a", "", None, 3, "alice", 0), Deleted(10, TS, "a", "", None, 9, "alice", 0)],
            "it changes what is no message",
        ),
        (
            [M._replace(edited=None), Message(4, TS, "alice", "x", "c")],
            "the same name has used its cid before",
        ),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_cannot_be_is_refused_and_nothing_is_kept(
    path: Path, records: list[Record], why: str, there: bool
) -> None:
    if there:
        open_store(path).close()
    with pytest.raises(ValueError, match=f"^{why}$"):
        write(path, records)
    if there:
        assert (
            query(path, "SELECT count(*) FROM message") == query(path, "SELECT count(*) FROM room") == [(0,)]
        )
    else:
        assert list(path.parent.iterdir()) == []


@given(st.lists(st.integers(1, 4), max_size=40))
def test_new_ids_are_found_by_the_old_ones(steps: list[int]) -> None:
    ids = oneroom._Ids()
    expected, old = {}, 0
    for new, step in enumerate(steps, 1):
        old += step
        assert ids.add(old) == new
        expected[old] = new
    assert [ids.find(each) for each in range(old + 3)] == [expected.get(each) for each in range(old + 3)]


def test_gaps_are_all_that_is_remembered() -> None:
    ids = oneroom._Ids()
    for old in (*range(5, 1000), *range(2000, 9000)):
        ids.add(old)
    assert len(ids._old) == 2


def test_a_database_that_appears_meanwhile_is_not_replaced(path: Path) -> None:
    def write_too_late() -> None:
        with writing_room(str(path), "r", epochs()) as room:
            room.end(())
            path.write_bytes(b"another one's")

    with pytest.raises(StartError, match=r"chat\.db exists already"):
        write_too_late()
    assert path.read_bytes() == b"another one's"
