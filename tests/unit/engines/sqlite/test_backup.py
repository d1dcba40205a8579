"""Backups: whole, of one moment, never over another file, and with an epoch of their own."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from chatroom import cli
from chatroom.core.errors import StartError
from chatroom.engines.sqlite.backup import back_up
from tests.support.database import open_store, query
from tests.support.engine_contract import draft, ids


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "copy.db"


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


@pytest.mark.parametrize("running", [True, False])
def test_a_copy_holds_all_that_was_stored(path: Path, target: Path, running: bool) -> None:
    store = open_store(path)
    store.append([draft(str(number), f"c{number}") for number in range(500)])
    if not running:
        store.close()
    back_up(str(path), str(target))
    if running:
        store.append([draft("later")])
        store.close()
    assert names(target.parent) == {"copy.db"}
    with closing(open_store(target)) as copy:
        assert copy.extent("r").last == 500
        assert ids(copy.read("r", 0, 500, 500)) == list(range(1, 501))


def test_a_copy_gets_an_epoch_once_when_it_is_opened_as_a_database(path: Path, target: Path) -> None:
    open_store(path).close()
    query(path, "UPDATE meta SET value = 'original' WHERE name = 'epoch'")
    back_up(str(path), str(target))
    back_up(str(target), str(target) + "2")  # a copy of a copy is a copy
    for each in (target, target.with_name("copy.db2")):
        with closing(open_store(each)) as copy:
            assert copy.epoch == "e1"
        query(each, "UPDATE meta SET value = 'settled' WHERE name = 'epoch'")
        with closing(open_store(each)) as copy:
            assert copy.epoch == "settled"
    with closing(open_store(path)) as store:
        assert store.epoch == "original"


def test_copies_made_while_it_is_written_are_of_one_moment(path: Path, tmp_path: Path) -> None:
    """Each batch has one message in each of two rooms: a copy has as many here as there."""
    stop = threading.Event()

    def write() -> None:
        with closing(open_store(path)) as store:
            ready.set()
            number = 0
            while not stop.is_set():
                number += 1
                store.append([draft(str(number) * 50, room="a"), draft(str(number) * 50, room="b")])
            last.append(number)

    ready, last = threading.Event(), list[int]()
    writer = threading.Thread(target=write)
    writer.start()
    ready.wait()
    try:
        for number in range(5):
            back_up(str(path), str(tmp_path / f"copy{number}"))
    finally:
        stop.set()
        writer.join()
    counts = []
    for number in range(5):
        copy = tmp_path / f"copy{number}"
        assert query(copy, "PRAGMA integrity_check") == [("ok",)]
        rows = query(copy, "SELECT room, max(id), count(*) FROM message GROUP BY room")
        assert not rows or rows[0][1:] == rows[1][1:] == (rows[0][1], rows[0][1])
        counts.append(rows[0][1] if rows else 0)
    assert counts == sorted(counts)
    assert last[0] >= counts[-1]
    assert query(path, "SELECT count(*) FROM message") == [(2 * last[0],)]


def test_what_is_written_between_two_steps_belongs_to_a_later_moment(path: Path, target: Path) -> None:
    with closing(open_store(path)) as store:
        for _ in range(10):
            store.append([draft("x" * 4000, room=room) for room in ("a", "b") for _ in range(250)])
        steps = 0

        def write() -> None:
            nonlocal steps
            steps += 1
            if steps < 20:
                store.append([draft("later" * 1000, room=room) for room in ("a", "b") for _ in range(steps)])

        back_up(str(path), str(target), write)
        assert steps > 3
        assert query(target, "SELECT room, max(id), count(*) FROM message GROUP BY room") == [
            (1, 2_500, 2_500),
            (2, 2_500, 2_500),
        ]


@pytest.mark.parametrize("step", [1, 3, 6])
def test_it_can_be_interrupted_at_any_step(step: int, path: Path, target: Path) -> None:
    with closing(open_store(path)) as store:
        for _ in range(10):
            store.append([draft("x" * 4000) for _ in range(500)])
    steps = 0

    def check() -> None:
        nonlocal steps
        steps += 1
        if steps >= step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(str(path), str(target), check)
    assert names(target.parent) == set()


def test_a_copy_moves_nothing_of_the_write_ahead_log(path: Path, target: Path) -> None:
    with closing(open_store(path)) as store:
        store.append([draft("hi")])
        before = {name: (path.parent / name).read_bytes() for name in ("chat.db", "chat.db-wal")}
        back_up(str(path), str(target))
        assert {name: (path.parent / name).read_bytes() for name in before} == before


def test_a_file_that_is_there_is_not_replaced(path: Path, target: Path) -> None:
    open_store(path).close()
    target.write_text("mine")
    with pytest.raises(StartError, match="exists already"):
        back_up(str(path), str(target))
    assert target.read_text() == "mine"
    target.unlink()
    target.symlink_to("nowhere")
    with pytest.raises(StartError, match="exists already"):
        back_up(str(path), str(target))
    assert names(target.parent) == {"copy.db"}


def test_a_file_that_appears_meanwhile_is_not_replaced(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(path).close()
    link = os.link

    def late(source: str, name: str) -> None:
        target.write_text("mine")
        link(source, name)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(StartError, match="exists already"):
        back_up(str(path), str(target))

    def without_links(source: str, name: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", without_links)
    target.unlink()
    back_up(str(path), str(target))
    assert names(target.parent) == {"copy.db"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "doesn't exist"), (b"", "is empty"), (b"garbage" * 100, "is no database")],
)
def test_what_is_no_database_is_not_copied(
    path: Path, target: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=words):
        back_up(str(path), str(target))
    assert not names(target.parent)


def test_a_damaged_database_and_a_place_that_is_not_there(path: Path, target: Path) -> None:
    open_store(path).close()
    with pytest.raises(StartError, match="can't be copied to"):
        back_up(str(path), str(target / "deeper"))
    os.truncate(path, 4096)
    with pytest.raises(StartError, match="can't be copied to"):
        back_up(str(path), str(target))
    assert not names(target.parent)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM message WHERE id = 5", r"is damaged \(messages of room 'r' are missing\)"),
        ("DELETE FROM message WHERE id < 5", r"is damaged \(messages of room 'r' are missing\)"),
        (
            "UPDATE message SET cid = NULL WHERE id = 5",
            r"is damaged \(.*message_cid\)",
        ),
    ],
)
def test_a_copy_of_a_damaged_database_is_not_kept(
    path: Path, target: Path, statement: str, words: str
) -> None:
    with closing(open_store(path)) as store:
        store.append([draft(str(number), f"c{number}") for number in range(1, 10)])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if "cid" in statement:  # hide the index from the change
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "CREATE TABLE hidden AS SELECT * FROM sqlite_schema WHERE name = 'message_cid'"
            )
            connection.execute("DELETE FROM sqlite_schema WHERE name = 'message_cid'")
            connection.execute("PRAGMA writable_schema = RESET")
        connection.execute(statement)
        if "cid" in statement:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("INSERT INTO sqlite_schema SELECT * FROM hidden")
            connection.execute("PRAGMA writable_schema = RESET")
    with pytest.raises(StartError, match=words):
        back_up(str(path), str(target))
    assert not names(target.parent)


def test_a_copy_of_a_trimmed_database_is_whole(path: Path, target: Path) -> None:
    with closing(open_store(path)) as store:
        for room in ("r", "s"):
            store.append([draft(str(number), room=room) for number in range(9)])
        assert store.trim({"r": 5, "s": 10})
        back_up(str(path), str(target))
    assert names(target.parent) == {"copy.db"}


def test_a_copy_without_an_epoch_is_no_copy(path: Path, target: Path) -> None:
    open_store(path).close()
    query(path, "DELETE FROM meta")
    with pytest.raises(StartError, match="DatabaseError"):
        back_up(str(path), str(target))
    assert not names(target.parent)


@pytest.mark.parametrize("value", [0o000, 0o777])
@pytest.mark.parametrize(
    ("mode", "expected"), [(0o644, 0o600), (0o660, 0o600), (0o600, 0o600), (0o400, 0o400)]
)
def test_a_copy_is_its_owner_s_and_no_more_readable_than_the_database(
    path: Path, target: Path, mode: int, expected: int, value: int
) -> None:
    open_store(path).close()
    path.chmod(mode)
    before = os.umask(value)
    try:
        back_up(str(path), str(target))
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o7777 == expected


def test_what_a_killed_backup_left_is_not_in_the_way(path: Path, target: Path) -> None:
    open_store(path).close()
    Path(f"{target}-part{os.getpid()}").write_bytes(b"half of it")
    back_up(str(path), str(target))
    assert names(target.parent) == {"copy.db"}


# The command


def run(*arguments: str, **environ: str) -> int:
    return cli.main(["backup", *arguments], environ)


def test_the_command(path: Path, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_store(path).close()
    assert run("--db", str(path), str(target)) == 0
    assert run(str(target) + "2", CHATROOM_DB=str(path)) == 0
    assert capfd.readouterr().out == (
        f"Copied {path} to {target}, and found the copy whole\n"
        f"Copied {path} to {target}2, and found the copy whole\n"
    )
    assert names(target.parent) == {"copy.db", "copy.db2"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "backup needs the name of the copy: ./chat.pyz backup --db chat.db TO"),
        (
            ["--db", "none", "x"],
            "with --db none there is nothing to copy: give the server's database by --db",
        ),
        (["--bd", "a", "x"], "unknown option '--bd'; did you mean --db?"),
        (["x", "y"], "unexpected argument 'y'; --help lists the options"),
        (
            ["--db", "/nowhere/chat.db", "x"],
            "/nowhere/chat.db doesn't exist: give the server's database by --db",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert capfd.readouterr() == ("", f"chatroom: {line}\n")


def test_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "--db PATH" in capfd.readouterr().out


def test_the_copy_is_readable_by_any_sqlite(path: Path, target: Path) -> None:
    """One file in rollback mode: nothing beside it is needed to read it."""
    open_store(path).close()
    back_up(str(path), str(target))
    with closing(sqlite3.connect(f"file:{target}?immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
