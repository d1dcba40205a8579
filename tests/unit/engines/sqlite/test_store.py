"""A store in trouble: what is told, what is there afterwards, and the way back."""

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from chatroom.core.errors import Unavailable
from chatroom.core.messages import Duplicate, Message, Outcome, Unknown
from chatroom.engines.sqlite import log
from chatroom.engines.sqlite.opening import Opened, open_database
from chatroom.engines.sqlite.schema import BUSY_SECONDS, WAL_BYTES
from chatroom.engines.sqlite.store import IDLE_SECONDS, LARGE_BYTES, RETRY_SECONDS, Store
from tests.support.database import epochs, open_store, query
from tests.support.engine_contract import TS, draft, ids


class Faulty(sqlite3.Connection):
    """A connection whose commits fail when it is told to: before they are done, or after."""

    fault: str | None = None
    faulty = "COMMIT"
    code = "SQLITE_IOERR_FSYNC"

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:  # type: ignore[override]
        fault = self.fault if statement == self.faulty else None
        if fault == "after":
            super().execute(statement, *values)
        if fault is not None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self.code
            error.sqlite_errorcode = getattr(sqlite3, self.code)
            raise error
        return super().execute(statement, *values)


class Clock:
    """Time that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def faulty_store(path: Path, now: Callable[[], float]) -> tuple[Store, Faulty]:
    """A store whose first connection can be made to fail."""
    opened = open_database(str(path), epochs(), renew=False)
    opened.connection.close()
    connection = sqlite3.connect(path, isolation_level=None, factory=Faulty)
    connection.execute("PRAGMA synchronous = FULL")
    return Store(Opened(opened.path, opened.lock, connection, opened.epoch), now), connection


def stored(number: int, text: str, cid: str | None = None) -> Outcome:
    return Message(number, TS, "alice", text, cid)


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_commit_of_unknown_outcome_is_taken_back_before_anything_is_written(
    path: Path, clock: Clock, fault: str
) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        assert store.append([draft("1")]) == [stored(1, "1")]
        connection.fault = fault
        batch = [draft("2", "c"), draft("x", room="new"), draft("3")]
        assert store.append(batch) == [Unknown()] * 3
        assert store.trouble == "the disk fails (SQLITE_IOERR_FSYNC)"
        # the next ids are those that would have been next, whatever the disk has kept
        assert store.append([draft("other"), draft("2", "c"), draft("y", room="new")]) == [
            stored(2, "other"),
            stored(3, "2", "c"),
            stored(1, "y"),
        ]
        assert store.trouble is None
        assert [message.text for message in store.read("r", 0, 3, 50)] == ["1", "other", "2"]
        assert store.extent("new").last == 1


@pytest.mark.parametrize("fault", ["before", "after"])
def test_what_a_process_that_ended_in_trouble_left_is_there_or_not_at_the_next_start(
    path: Path, clock: Clock, fault: str
) -> None:
    store, connection = faulty_store(path, clock)
    connection.fault = fault
    assert store.append([draft("hi", "c")]) == [Unknown()]
    store.close()
    with closing(open_store(path)) as store:
        expected = Duplicate(1) if fault == "after" else stored(1, "hi", "c")
        assert store.append([draft("hi", "c")]) == [expected]


def test_while_the_way_back_is_shut_nothing_is_written_and_it_is_not_tried_at_each_append(
    path: Path, clock: Clock
) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append([draft("1")])
        connection.fault = "before"
        store.append([draft("lost")])
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM message").fetchall()  # a backup: the log can't be emptied
            assert store.append([draft("2")]) == [Unknown()]
            assert store.trouble == (
                "the disk has failed; a program that reads the database stands in the way back"
            )
            with pytest.raises(Unavailable):
                store.read("r", 0, 1, 1)
        assert store.due == clock.now + RETRY_SECONDS
        assert store.append([draft("2")]) == [Unknown()]
        assert not store.heal()
        clock.now += RETRY_SECONDS
        assert store.heal()
        assert store.append([draft("2")]) == [stored(2, "2")]


def test_a_database_that_was_put_in_its_place_is_not_written(
    path: Path, clock: Clock, tmp_path: Path
) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append([draft("1")])
        connection.fault = "before"
        store.append([draft("2")])
        other = path.parent / "other.db"
        opened = open_database(str(other), epochs("other"), renew=False)
        opened.connection.close()
        opened.lock.release()
        other.replace(path)
        assert store.append([draft("2")]) == [Unknown()]
        assert store.trouble == "another file is in the place of the database"


def limit_pages(store: Store, pages: int) -> None:
    """A disk that is full from this size of the database on."""
    store._in_use().connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_stores_nothing_leaves_no_hole_and_is_left_behind(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([draft("1")])
        (pages,) = store._in_use().connection.execute("PRAGMA page_count").fetchone()
        limit_pages(store, pages)
        big = [draft("x" * 4000, f"c{number}") for number in range(10)]
        assert store.append([draft("2", "c"), *big]) == [Unknown()] * 11
        assert store.trouble == "the disk is full (SQLITE_FULL)"
        assert ids(store.read("r", 0, 1, 50)) == [1], "reading goes on"
        assert store.append([draft("2", "c")]) == [Unknown()], "though this one would fit"
        clock.now += RETRY_SECONDS
        assert not store.heal()
        limit_pages(store, 1_000_000)
        assert not store.heal()
        clock.now += RETRY_SECONDS
        assert store.heal()
        assert store.trouble is None
        assert store.append([draft("2", "c")]) == [stored(2, "2", "c")]


def test_a_program_that_locks_the_database_is_waited_for(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([draft("1")])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert store.append([draft("2")]) == [Unknown()]
            assert store.trouble == "another program has locked the database (SQLITE_BUSY)"
            assert ids(store.read("r", 0, 1, 50)) == [1]
        assert store.append([draft("2")]) == [stored(2, "2")]


def test_trimming_that_fails_is_trouble_too(path: Path, clock: Clock) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append([draft("1"), draft("2")])
        connection.fault = "before"
        assert not store.trim({"r": 2})
        assert store.trouble is not None
        assert not store.trim({"r": 2})
        assert store.heal()
        assert store.trim({"r": 2})
        assert ids(store.read("r", 1, 2, 50)) == [2]


def test_a_probe_that_fails_leaves_its_own_outcome_in_doubt(path: Path, clock: Clock) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append([draft("1")])
        connection.code = "SQLITE_FULL"
        connection.fault = "before"
        store.append([draft("2")])
        connection.code = "SQLITE_IOERR"
        assert not store.heal()
        connection.fault = None
        clock.now += RETRY_SECONDS
        assert store.heal()
        assert store.append([draft("2")]) == [stored(2, "2")]
        assert query(path, "SELECT name FROM meta ORDER BY name") == [("epoch",)]


def test_rooms_that_were_forgotten_are_looked_up_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "REMEMBERED_ROOMS", 3)
    with closing(open_store(path)) as store:
        for turn in range(1, 4):
            rooms = [f"room-{number}" for number in range(10)]
            outcomes = store.append([draft(f"{turn}", f"c{turn}", room=room) for room in rooms])
            assert outcomes == [stored(turn, f"{turn}", f"c{turn}")] * 10
            assert store.append([draft(f"{turn}", f"c{turn}", room="room-0")]) == [Duplicate(turn)]


def test_a_store_that_fails_while_drafts_are_tried_one_by_one_makes_all_unknown(
    path: Path, clock: Clock
) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        store.append([draft("1")])
        connection.execute("PRAGMA max_page_count = 1")
        assert store.append([draft("\ud800"), draft("x" * 100_000)]) == [Unknown()] * 2
        connection.execute("PRAGMA max_page_count = 1000000")
        assert store.heal()
        assert store.append([draft("2")]) == [stored(2, "2")]


# The write-ahead log


def wal_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def fill(store: Store, size: int) -> None:
    for _ in range(size // 1_000_000):
        store.append([draft("x" * 4000)] * 250)


def test_a_write_ahead_log_is_emptied_when_it_is_quiet(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        assert store.due == math.inf
        fill(store, 3_000_000)
        assert wal_size(path) > LARGE_BYTES
        assert store.sizes() == (path.stat().st_size, wal_size(path))
        assert store.due == clock.now + IDLE_SECONDS
        assert store.work()
        assert wal_size(path) > LARGE_BYTES, "it isn't quiet yet"
        clock.now += IDLE_SECONDS
        assert store.work()
        assert wal_size(path) == 0
        assert store.sizes() == (path.stat().st_size, 0)
        assert path.stat().st_size > 3_000_000
        assert store.due == math.inf
        assert store.append([draft("next")]) == [stored(751, "next")]


def test_a_text_that_was_trimmed_leaves_the_write_ahead_log(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([draft("secret"), draft("2")])
        store.trim({"r": 2})
        clock.now += IDLE_SECONDS
        store.work()
        assert wal_size(path) == 0
        assert b"secret" not in path.read_bytes()


def test_a_small_write_ahead_log_is_left_alone(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        store.append([draft("1")])
        before = wal_size(path)
        clock.now += IDLE_SECONDS
        store.work()
        assert wal_size(path) == before > 0
        assert store.due == math.inf


def test_a_program_that_reads_is_not_waited_for(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        fill(store, 2_000_000)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM message LIMIT 1").fetchall()
            fill(store, 2_000_000)
            clock.now += IDLE_SECONDS
            assert store.work()
            assert wal_size(path) > LARGE_BYTES
            assert store.due == clock.now + IDLE_SECONDS
            assert store.trouble is None
            patience = store._in_use().connection.execute("PRAGMA busy_timeout").fetchone()
            assert patience == (BUSY_SECONDS * 1000,), "others are waited for as before"
        clock.now += IDLE_SECONDS
        store.work()
        assert wal_size(path) == 0
        assert store.due == math.inf


def test_a_log_that_a_reader_has_made_large_shrinks_under_traffic_too(path: Path, clock: Clock) -> None:
    with closing(open_store(path, clock)) as store:
        fill(store, 1_000_000)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM message LIMIT 1").fetchall()
            fill(store, 20_000_000)
            assert wal_size(path) > WAL_BYTES
        fill(store, 2_000_000)
        assert wal_size(path) <= WAL_BYTES


def test_emptying_that_fails_is_no_trouble_of_its_own(path: Path, clock: Clock) -> None:
    store, connection = faulty_store(path, clock)
    with closing(store):
        fill(store, 2_000_000)
        connection.fault, connection.faulty = "before", "PRAGMA wal_checkpoint(TRUNCATE)"
        clock.now += IDLE_SECONDS
        assert store.work()
        assert store.trouble is None
        assert store.due == clock.now + IDLE_SECONDS
