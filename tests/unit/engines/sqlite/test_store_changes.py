"""Edits, deletions and sanctions in a database: what a failing disk leaves of them, what is in the files."""

import math
import random
import sqlite3
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path

import pytest

from chatroom.core.messages import (
    Act,
    Conflict,
    Delete,
    Deleted,
    Done,
    Draft,
    Duplicate,
    Edit,
    Edited,
    Message,
    Moderate,
    Moderated,
    NotFound,
    Page,
    Unknown,
)
from chatroom.core.sanctions import Action, Sanction
from chatroom.engines.sqlite.schema import MIGRATIONS, migrate
from chatroom.engines.sqlite.store import ANEW_SECONDS, IDLE_SECONDS, Store
from tests.support.database import open_store, query
from tests.unit.engines.sqlite.test_store import Clock, faulty_store

TS = 1_764_000_000_000
DAY = 24 * 3600 * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def say(text: str, cid: str | None = None, room: str = "r") -> Draft:
    return Draft(room, "alice", text, cid, TS)


def do(act: Act, text: str = "", cid: str | None = None, room: str = "r") -> Draft:
    return Draft(room, "alice", text, cid, TS, moderator=isinstance(act, Moderate), act=act)


def edit(about: int, text: str, cid: str | None = None, room: str = "r") -> Draft:
    return do(Edit(about, DAY), text, cid, room)


def delete(about: int, cid: str | None = None, room: str = "r") -> Draft:
    return do(Delete(about, DAY), "", cid, room)


def state(store: Store, *rooms: str) -> list[object]:
    """All that can be read of the rooms."""
    found: list[object] = []
    for room in rooms:
        extent = store.extent(room)
        records = store.read(room, 0, extent.last, 500) if extent.last else []
        found += [records, extent.last, extent.others, store.sanctions(room, TS)]
    return found


BEFORE = [
    say("one", "m1"),
    say("two", "m2"),
    edit(1, "uno", "e1"),
    do(Moderate(Action.MUTE, "bob", 60), "loud", "s1"),
    say("three"),
    say("other", "o1", "other"),
]
BATCH = [
    say("four", "m4"),
    edit(1, "eins", "e2"),
    edit(1, "un", "e3"),
    edit(5, "drei", "e4"),
    edit(5, "trois", "e5"),
    delete(2, "d1"),
    delete(5, "d2"),
    edit(6, "vier", "e6"),
    do(Moderate(Action.BAN, "bob", None), "spam", "s2"),
    do(Moderate(Action.UNMUTE, "bob", None), cid="s3"),
    do(Moderate(Action.BAN, "eve", 5), "", "s4", "new"),
    delete(1, "d3", "other"),
    say("fresh", "n1", "new"),
]


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_batch_of_unknown_outcome_is_undone_wholly(
    path: Path, clock: Clock, fault: str, alone: bool
) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append(BEFORE)
        before = state(store, "r", "other", "new")
        connection.fault = fault
        broken = [say("\ud800")] if alone else []  # it has the others tried one by one
        batch = [*BATCH[:6], *broken, *BATCH[6:]]
        assert store.append(batch) == [Unknown()] * len(batch)
        assert store.heal()
        assert state(store, "r", "other", "new") == before
        outcomes = store.append(BATCH)
        again = state(store, "r", "other", "new")
    with closing(open_store(path.with_name("other.db"))) as untroubled:
        untroubled.append(BEFORE)
        assert untroubled.append(BATCH) == outcomes
        assert state(untroubled, "r", "other", "new") == again


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_way_back_that_fails_in_the_middle_is_gone_again(path: Path, clock: Clock, fault: str) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append(BEFORE)
        before = state(store, "r", "other", "new")
        connection.fault = fault
        store.append(BATCH)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert not store.heal()
        clock.now += 1
        assert store.heal()
        assert state(store, "r", "other", "new") == before


@pytest.mark.parametrize("fault", ["before", "after"])
def test_after_a_restart_a_batch_of_unknown_outcome_is_found_by_its_cids_or_not_there(
    path: Path, clock: Clock, fault: str
) -> None:
    store, connection = faulty_store(path, clock)
    store.append(BEFORE)
    connection.fault = fault
    store.append(BATCH)
    store.close()
    with closing(open_store(path)) as store:
        outcomes = store.append(BATCH)
        kinds = {type(each) for each in outcomes}
        assert kinds == ({Duplicate} if fault == "after" else {Message, Edited, Deleted, Moderated})
        texts = [each.text for each in store.read("r", 0, 15, 50)]
        assert texts == ["un", "", "", "loud", "", "vier", "", "un", "", "", "", "", "vier", "spam", ""]
        assert store.sanctions("r", TS) == (Sanction(Action.BAN, "bob", "alice", None, "spam"),)
        assert store.sanctions("new", TS) == (Sanction(Action.BAN, "eve", "alice", TS + 5000, ""),)


CIDS = [
    (edit(1, "uno", "e"), Edited(2, TS, "alice", "uno", "e", 1, 1)),
    (say("anything", "m"), Duplicate(1)),  # what it says was replaced a moment ago
    (edit(1, "eins", "e2"), Edited(3, TS, "alice", "eins", "e2", 1, 2)),
    (edit(1, "other", "e"), Duplicate(2)),
    (delete(1, "d"), Deleted(4, TS, "alice", "", "d", 1, "alice", 3)),
    (delete(1, "d"), Duplicate(4)),
    (delete(1, "d2"), Done()),
    (say("d", "d"), Conflict()),
    (say("other", "e2"), Conflict()),
]


@pytest.mark.parametrize("size", range(1, len(CIDS) + 1))
def test_a_cid_is_known_within_its_batch_whatever_it_stands_for(path: Path, size: int) -> None:
    with closing(open_store(path)) as store:
        store.append([say("one", "m")])
        for start in range(0, len(CIDS), size):
            some = CIDS[start : start + size]
            assert store.append([each for each, _ in some]) == [outcome for _, outcome in some]


# What is in the files


def found_in(path: Path, text: str) -> list[str]:
    """The files of the database that have the text."""
    return [each.name for each in sorted(path.parent.iterdir()) if text.encode() in each.read_bytes()]


def test_a_text_that_is_gone_is_gone_from_all_files_a_moment_later(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([say("secret one"), say("secret two"), say("kept")])
        store.append([edit(1, "harmless"), delete(2)])
        assert found_in(path, "secret")
        for number in range(5):
            clock.now += IDLE_SECONDS / 5
            store.append([say(f"more {number}")])  # others go on talking
            store.work()
        assert found_in(path, "secret") == []
        assert found_in(path, "kept") == ["chat.db"]


@pytest.mark.parametrize("seed", [0, 3])
def test_copies_that_split_pages_leave_go_when_nothing_is_written(
    path: Path, clock: Clock, seed: int
) -> None:
    """With these seeds SQLite 3.40 leaves some of 2,400 replaced texts in unused parts of pages."""
    chance, numbers = random.Random(seed), count(1)
    with closing(open_store(path, clock)) as store:
        replaced, live = list[bytes](), list[tuple[str, int, str]]()
        for _ in range(300):
            drafts = [
                say(f"<{next(numbers):05}>" + "x" * chance.randrange(900), room=chance.choice("abcdefgh"))
                for _ in range(10)
            ]
            for draft, message in zip(drafts, store.append(drafts), strict=True):
                assert isinstance(message, Message)
                live.append((draft.room, message.id, draft.text[:7]))
            chance.shuffle(live)
            for _ in range(8):
                room, about, token = live.pop()
                text = f"<{next(numbers):05}>" + "y" * chance.randrange(1500)
                store.append([edit(about, text, room=room)])
                replaced.append(token.encode())
                live.append((room, about, text[:7]))
        clock.now += IDLE_SECONDS
        store.work()
        assert path.with_name("chat.db-wal").stat().st_size == 0
        content = path.read_bytes()
        assert [text for text in replaced if text in content] == []
        assert all(token.encode() in content for _, _, token in live)


def test_a_database_is_written_anew_seldom_and_the_last_change_is_not_forgotten(
    path: Path, clock: Clock
) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([say("one"), say("two"), say("three")])
        written = list[float]()
        for about in (1, 2, 3):
            store.append([delete(about)])
            for _ in range(int(ANEW_SECONDS / IDLE_SECONDS)):
                clock.now += IDLE_SECONDS
                before = path.stat().st_mtime_ns
                store.work()
                if path.stat().st_mtime_ns != before and store.due == math.inf:
                    written.append(clock.now)
        store.append([say("four")])
        clock.now += IDLE_SECONDS
        store.work()
        assert store.due == math.inf, "a message leaves no copy"
        assert len(written) == 3
        assert all(later - sooner >= ANEW_SECONDS for sooner, later in pairwise(written))


def test_a_backup_under_way_keeps_a_text_until_it_is_over(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([say("secret")])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM message").fetchall()
            store.append([delete(1)])
            clock.now += IDLE_SECONDS
            assert store.work()
            assert store.trouble is None
            assert found_in(path, "secret")
            store.append([say("more")])
        assert store.due == clock.now + IDLE_SECONDS
        clock.now += IDLE_SECONDS
        store.work()
        assert found_in(path, "secret") == []


def test_what_a_process_that_was_killed_left_in_the_log_goes_after_the_next_start(
    path: Path, clock: Clock
) -> None:
    folder = path.parent / "killed"
    folder.mkdir()
    with closing(open_store(path, clock)) as store:
        store.append([say("secret")])
        store.append([delete(1)])
        for each in ("chat.db", "chat.db-wal"):  # as it would be found after kill -9
            (folder / each).write_bytes(path.with_name(each).read_bytes())
    killed = folder / "chat.db"
    with closing(open_store(killed, clock)) as store:
        assert found_in(killed, "secret")
        assert store.due == clock.now + IDLE_SECONDS
        clock.now += IDLE_SECONDS
        store.work()
        assert found_in(killed, "secret") == []


def test_what_is_trimmed_goes_from_the_log_too(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([say("secret"), say("kept")])
        assert store.trim({"r": 2})
        clock.now += IDLE_SECONDS
        store.work()
        assert found_in(path, "secret") == []


def test_a_log_that_is_not_there_is_not_emptied(path: Path, clock: Clock) -> None:
    open_store(path, clock).close()
    with closing(open_store(path, clock)) as store:
        assert store.due == float("inf")


def test_an_undone_edit_is_in_no_file(path: Path, clock: Clock) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append([say("kept")])
        connection.fault = "after"
        store.append([edit(1, "never")])
        assert store.heal()
        assert query(path, "SELECT text, rest FROM message") == [("kept", None)]


def test_one_walk_for_a_page_passes_over_so_many_other_records(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([say("one"), *[edit(1, "x")] * 700, say("two")])
        one, two = Message(1, TS, "alice", "x", None, 701), Message(702, TS, "alice", "two", None)
        newest, upward = {"before": None, "after": None}, {"before": None, "after": 0}
        for way, first, go_on, second in ((newest, two, 202, one), (upward, one, 501, two)):
            bounds = {"upto": 702, "limit": 9, "max_bytes": 99}
            assert store.history("r", **way, **bounds) == (Page((first,), more=False), go_on)
            rest = {"before": go_on, "after": None} if way is newest else {"before": None, "after": go_on}
            assert store.history("r", **rest, **bounds) == (Page((second,), more=False), None)


# A database of the first version


def test_a_database_of_the_first_version_keeps_everything_and_takes_changes(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:1])
        connection.execute("INSERT INTO room VALUES (1, 'r', 2)")
        connection.execute("INSERT INTO meta VALUES ('epoch', 'old')")
        rows = [(1, number, TS, "alice", f"text {number}", f"c{number}") for number in range(3, 9)]
        connection.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)", rows)
    with closing(open_store(path)) as store:
        assert store.epoch == "old"
        extent = store.extent("r")
        assert (extent.trimmed, extent.last, extent.others) == (2, 8, 0)
        assert [tuple(each)[:5] for each in store.read("r", 2, 8, 50)] == [row[1:] for row in rows]
        assert store.append([say("text 3", "c3"), edit(4, "new"), delete(5), delete(2)]) == [
            Duplicate(3),
            Edited(9, TS, "alice", "new", None, 4, 4),
            Deleted(10, TS, "alice", "", None, 5, "alice", 5),
            NotFound(),
        ]
        assert store.extent("r").others == 2
