"""Opening a database: what is refused, in which words, and that what is refused is left as it is."""

import errno
import fcntl
import os
import re
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from chatroom.core.errors import StartError
from chatroom.engines.sqlite import opening, schema
from chatroom.engines.sqlite.opening import Opened, open_database
from chatroom.engines.sqlite.schema import APPLICATION_ID, MIGRATIONS, VERSION, migrate, version_of
from tests.support.database import epochs, open_store, query
from tests.support.engine_contract import draft


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def opened(path: Path, prefix: str = "e", *, renew: bool = False) -> Opened:
    return open_database(str(path), epochs(prefix), renew=renew)


def close(database: Opened) -> None:
    database.connection.close()
    database.lock.release()


def fill(path: Path, messages: int = 2000) -> None:
    """A database with some pages, closed properly."""
    with closing(open_store(path)) as store:
        store.append([draft(f"message {number} " * 5, f"c{number}") for number in range(messages)])


def crash(path: Path, place: Path) -> Path:
    """A copy of a database as a killed server leaves it: with its write-ahead log."""
    with closing(open_store(path)) as store:
        store.append([draft("late")])
        place.mkdir()
        for name in ("chat.db", "chat.db-wal"):
            shutil.copy(path.parent / name, place / name)
    assert (place / "chat.db-wal").stat().st_size
    return place / "chat.db"


def files(folder: Path) -> dict[str, bytes]:
    """All files but the lock and SQLite's shared memory, which hold nothing that lasts."""
    return {
        each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith(("-lock", "-shm"))
    }


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(9000))


def short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def text(path: Path) -> None:
    path.write_text("hello\n" * 100)


def foreign(path: Path) -> None:
    query(path, "CREATE TABLE t (a)")


def newer(path: Path) -> None:
    fill(path, 1)
    query(path, f"PRAGMA user_version = {VERSION + 1}")


def newer_in_its_log(path: Path) -> None:
    """The database file itself still has the old number."""
    fill(path, 1)
    place = path.parent / "place"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        place.mkdir()
        for name in ("chat.db", "chat.db-wal"):
            shutil.copy(path.parent / name, place / name)
    for name in ("chat.db", "chat.db-wal"):
        (place / name).replace(path.parent / name)
    place.rmdir()


def truncated(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size // 2)


def corrupted(path: Path) -> None:
    """Every page but the first is overwritten in part."""
    fill(path)
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096 + 8)
            file.write(b"\xff" * 64)


def corrupted_in_one_page(path: Path) -> None:
    fill(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
        file.write(os.urandom(2048))


def folder(path: Path) -> None:
    path.mkdir()


def leftover(path: Path) -> None:
    """The database was removed, its write-ahead log wasn't."""
    crashed = crash(path, path.parent / "place")
    path.unlink()
    crashed.with_name("chat.db-wal").replace(path.with_name("chat.db-wal"))
    shutil.rmtree(path.parent / "place")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (garbage, "is no database: choose another file by --db"),
        (short, "is no database"),
        (text, "is no database"),
        (foreign, "is a database of another program"),
        (newer, f"its form is {VERSION + 1}, this version knows {VERSION}"),
        (newer_in_its_log, f"its form is {VERSION + 1}, this version knows {VERSION}"),
        (truncated, "is damaged"),
        (corrupted, "is damaged"),
        (corrupted_in_one_page, "is damaged"),
        (folder, r"can't be read and written \(Is a directory\)"),
        (leftover, "is missing or empty, but .*chat.db-wal is still there"),
    ],
)
def test_what_is_refused_is_left_as_it_is(path: Path, make: Callable[[Path], None], words: str) -> None:
    make(path)
    before = files(path.parent) if path.is_file() else {}
    with pytest.raises(StartError, match=words) as caught:
        opened(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)
    if path.is_file():
        assert files(path.parent) == before


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights, for what opens files."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("mode", "folder_mode", "words"),
    [
        (0o444, 0o777, "can't be read and written (Permission denied)"),
        (0o000, 0o777, "can't be read and written (Permission denied)"),
        (0o666, 0o555, "can't be used, since"),
        (None, 0o555, "can't be used, since"),
    ],
)
def test_without_the_right_to_write_it_says_so(mode: int | None, folder_mode: int, words: str) -> None:
    place = Path("/var/tmp") / f"chat-test-{os.getpid()}-{time.monotonic_ns()}"
    place.mkdir()
    try:
        path = place / "chat.db"
        if mode is not None:
            fill(path, 1)
            (place / "chat.db-lock").unlink()
            path.chmod(mode)
        place.chmod(folder_mode)
        before = files(place)
        with as_nobody(), pytest.raises(StartError, match=re.escape(words)) as caught:
            opened(path)
        assert str(path) in str(caught.value)
        assert "--db" in str(caught.value)
        assert files(place) == before
    finally:
        place.chmod(0o755)
        shutil.rmtree(place)


def test_where_no_file_can_be_made_the_file_and_the_option_are_named() -> None:
    with pytest.raises(StartError, match=r"^/proc/nowhere/chat.db can't be used.*--db$"):
        opened(Path("/proc/nowhere/chat.db"))


def test_a_second_server_is_refused_and_the_first_goes_on(path: Path) -> None:
    with closing(open_store(path)) as store:
        with pytest.raises(StartError, match=r"another server uses .*: stop it, or choose"):
            opened(path)
        store.append([draft("hi")])
        assert store.extent("r").last == 1
    close(opened(path))


def test_a_lock_file_that_nobody_holds_means_nothing(path: Path) -> None:
    path.with_name("chat.db-lock").write_text("stale")
    close(opened(path))


def test_a_refused_file_is_not_held(path: Path) -> None:
    corrupted(path)
    for _ in range(2):
        with pytest.raises(StartError, match="is damaged"):
            opened(path)


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    close(opened(path))
    assert query(path, "PRAGMA application_id") == [(APPLICATION_ID,)]


def test_a_database_that_was_never_made_whole_is_made_anew(path: Path) -> None:
    path.with_name("chat.db-new").write_bytes(b"half of it")
    close(opened(path))
    assert not path.with_name("chat.db-new").exists()


def test_a_killed_server_s_log_is_played(path: Path, tmp_path: Path) -> None:
    fill(path, 10)
    crashed = crash(path, tmp_path / "crashed")
    with closing(open_store(crashed)) as store:
        assert [message.text for message in store.read("r", 10, 11, 5)] == ["late"]
        assert store.epoch == "e1"


def test_the_settings_that_make_it_durable(path: Path) -> None:
    database = opened(path)
    pragmas = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")
    found = [database.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert found == ["wal", 2, 1, 1]
    close(database)


# Modes


def modes(folder: Path) -> dict[str, str]:
    return {each.name: f"{each.stat().st_mode & 0o7777:04o}" for each in folder.iterdir()}


ALL_FILES = ("chat.db", "chat.db-wal", "chat.db-shm", "chat.db-lock")


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("value", [0o000, 0o002, 0o022, 0o077, 0o777])
def test_a_database_is_its_owner_s_alone_whatever_the_umask(path: Path, value: int) -> None:
    with umask(value), closing(open_store(path)) as store:
        store.append([draft("hi")])
        assert modes(path.parent) == dict.fromkeys(ALL_FILES, "0600")
    with umask(value), closing(open_store(path)) as store:
        store.append([draft("hi")])
        assert modes(path.parent) == dict.fromkeys(ALL_FILES, "0600")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o644, "0600"), (0o666, "0600"), (0o664, "0600"), (0o640, "0640"), (0o660, "0660"), (0o600, "0600")],
)
@pytest.mark.parametrize("crashed", [False, True])
def test_a_database_that_everybody_could_read_is_closed_to_them(
    path: Path, tmp_path: Path, mode: int, expected: str, crashed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As an earlier version left it, by the umask; what is open to a group alone is an operator's choice."""
    fill(path, 1)
    if crashed:
        path = crash(path, tmp_path / "place")
        path.with_name("chat.db-lock").touch()
    for each in path.parent.glob("chat.db*"):
        each.chmod(mode)
    with closing(open_store(path)) as store:
        store.append([draft("hi")])
        found = modes(path.parent)
        assert {name: found[name] for name in ALL_FILES} == dict.fromkeys(ALL_FILES, expected)
    noted = [each.fields for each in caplog.records if each.getMessage() == "database_mode"]
    assert noted == ([{"was": f"{mode:04o}", "now": "0600"}] if mode & 0o007 else [])


def test_a_refused_database_keeps_its_mode(path: Path) -> None:
    corrupted(path)
    path.chmod(0o644)
    with pytest.raises(StartError, match="is damaged"):
        opened(path)
    assert modes(path.parent)["chat.db"] == "0644"


# Epochs


def test_an_epoch_stays_with_its_file(path: Path) -> None:
    first = opened(path, "first")
    close(first)
    second = opened(path, "second")
    close(second)
    assert (first.epoch, second.epoch) == ("first1", "first1")
    path.unlink()
    third = opened(path, "third")
    close(third)
    assert third.epoch == "third1"


def test_a_new_epoch_is_given_where_it_is_asked_for(path: Path) -> None:
    close(opened(path, "first"))
    for _ in range(2):
        renewed = opened(path, "second", renew=True)
        close(renewed)
    assert renewed.epoch == "second1"
    kept = opened(path, "third")
    close(kept)
    assert kept.epoch == "second1"


# Versions


def test_an_older_database_is_led_forward_and_keeps_what_it_has(path: Path) -> None:
    fill(path, 3)
    steps = (*MIGRATIONS, ("ALTER TABLE room ADD COLUMN topic TEXT",), ("CREATE TABLE extra (a)",))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, steps)
        assert version_of(connection) == len(steps)
        assert connection.execute("SELECT name, topic FROM room").fetchall() == [("r", None)]
        assert connection.execute("SELECT count(*) FROM message").fetchone() == (3,)
        migrate(connection, steps)


def test_steps_that_fail_leave_the_old_version(path: Path) -> None:
    fill(path, 3)
    steps = (*MIGRATIONS, ("CREATE TABLE extra (a)", "SELECT * FROM nowhere"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, steps)
        assert version_of(connection) == VERSION
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'").fetchone() == (
            0,
        )


# The time it takes


def test_the_look_into_a_large_file_ends_in_time(path: Path) -> None:
    fill(path, 30_000)
    begin = time.process_time()
    opening.check_content(str(path), 0.001)
    assert time.process_time() - begin < 0.5


def test_a_change_that_was_cut_short_is_taken_back(path: Path, tmp_path: Path) -> None:
    """A process that is killed while it settles the epoch leaves a journal."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO meta VALUES ('epoch', 'half')")
        connection.execute("INSERT INTO meta VALUES ('big', zeroblob(100000))")
        for each in tmp_path.glob("chat.db*"):
            shutil.copy(each, copy / each.name)
    assert (copy / "chat.db-journal").stat().st_size
    found = opened(copy / "chat.db", "whole")
    close(found)
    assert found.epoch == "whole1"


# What seldom happens


def test_where_no_write_ahead_log_can_be_used_it_says_so(path: Path) -> None:
    fill(path, 1)
    query(path, "PRAGMA journal_mode = DELETE")
    path.with_name("chat.db-wal").mkdir()
    with pytest.raises(StartError, match=r"can't be opened \(SQLITE_\w+\): choose another file"):
        opened(path)
    path.with_name("chat.db-wal").rmdir()
    close(opened(path))


def test_a_database_in_memory_has_no_write_ahead_log() -> None:
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(sqlite3.OperationalError, match="no write-ahead log"),
    ):
        schema.use_write_ahead_log(connection)


def test_where_locks_are_not_known_it_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StartError, match=r"can't be locked \(No locks available\): choose a place on"):
        opened(path)


def test_a_full_disk_at_the_start_is_told_and_leaves_nothing(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StartError, match="can't be opened"):
            opened(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not path.exists()
    close(opened(path))


def test_errors_are_the_store_s_or_a_draft_s() -> None:
    assert schema.is_of_the_store(MemoryError())
    assert not schema.is_of_the_store(sqlite3.IntegrityError())
    assert not schema.is_of_the_store(UnicodeEncodeError("utf-8", "", 0, 1, "surrogates"))
    assert schema.error_name(MemoryError()) == "MemoryError"
