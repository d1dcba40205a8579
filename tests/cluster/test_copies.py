"""The command `copy`: between databases and real stores, both ways, interrupted and run again."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chatroom import cli
from chatroom.config.parsers import read_store_url
from chatroom.copies import CopySettings, read_copy
from chatroom.core.errors import StartError
from chatroom.core.messages import (
    Act,
    Delete,
    Deleted,
    Draft,
    Edit,
    Edited,
    Message,
    Moderate,
    Moderated,
    NotFound,
    RoomLog,
)
from chatroom.core.sanctions import Action
from chatroom.engines.redis import library
from chatroom.engines.redis.copying import StoreRooms
from chatroom.engines.redis.library import RoomKeys
from chatroom.engines.sqlite.backup import back_up
from tests.support.database import open_store, query
from tests.support.pages import ROOT, blocks
from tests.support.process import clean_environment, heeding, python_command
from tests.support.proxies import CERTIFICATE
from tests.support.stores import Kind, Store, Stores

ROOMS = ("general", "ops%{1}", "Ünïcode ☃", "trimmed", "gone")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A database with all that there can be: cids, odd names and texts, trimmed rooms."""
    path = tmp_path / "chat.db"
    fill(path, 1200)
    return path


def fill(path: Path, count: int) -> None:
    texts = ("hello", 'a\0b\n"\\', "☃" * 100, "x" * 4000)
    with closing(open_store(path)) as store:
        for room in ROOMS:
            drafts = [
                Draft(
                    room,
                    f"user {n % 3}",
                    texts[n % 4] if n % 50 == 0 else f"{n}",
                    f"c{n}" if n % 2 else None,
                    n,
                )
                for n in range(1_764_000_000_000, 1_764_000_000_000 + (count if room == "general" else 40))
            ]
            for at in range(0, len(drafts), 250):
                store.append(drafts[at : at + 250])
        assert store.trim({"trimmed": 30, "gone": 41})
    query(path, "UPDATE meta SET value = 'theepoch' WHERE name = 'epoch'")


def fill_more(path: Path, count: int) -> None:
    """A database of many messages in two rooms, for copies that take a moment."""
    open_store(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO room (key, name, trimmed) VALUES (1, 'large', 0), (2, 'small', 0)")
        rows = ((number, f"hello {number}", f"c{number}") for number in range(1, count + 1))
        insert = "INSERT INTO message (room, id, ts, username, text, cid) VALUES "
        connection.executemany(f"{insert} (1, ?, 1764000000000, 'ann', ?, ?)", rows)
        connection.execute(f"{insert} (2, 1, 1764000000000, 'ann', 'hello', NULL)")


def change(path: Path) -> None:
    """Have all kinds of records in the database, and sanctions; also in a room whose records are trimmed."""
    now = 1_764_000_002_000

    def draft(room: str, username: str, what: Act, text: str = "", cid: str | None = None) -> Draft:
        return Draft(room, username, text, cid, now, isinstance(what, Moderate), what)

    with closing(open_store(path)) as store:
        for room in ("general", "gone"):
            own = Draft(room, "bob", "said", "own", now)
            (said,) = store.append([own])
            assert isinstance(said, Message)
            outcomes = store.append(
                [
                    *(draft(room, "bob", Edit(said.id, 1000), text, text) for text in ("é", "ü")),
                    draft(room, "carol", Moderate(Action.MUTE, "bob\n", 600), "why"),
                    draft(room, "carol", Moderate(Action.BAN, "ann", None)),
                    draft(room, "carol", Moderate(Action.BAN, "cy", 0)),
                    draft(room, "carol", Moderate(Action.KICK, "cy", None)),
                    draft(room, "user 1", Delete(2, 10_000), cid="gone"),
                ]
            )
            kinds = [Edited, Edited, *[Moderated] * 4, Deleted if room == "general" else NotFound]
            assert [type(each) for each in outcomes] == kinds
        assert store.trim({"gone": 48})


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.start()


def content(path: Path) -> tuple[Any, ...]:
    """All that a copy moves."""
    with closing(open_store(path)) as database:
        epochs = {room: database.epoch_of(room) for room in database.rooms_after("", 1000)}
    rooms = query(path, "SELECT name, trimmed, others FROM room ORDER BY name")
    records = query(
        path,
        "SELECT name, id, ts, username, text, cid, rest FROM message JOIN room ON key = room "
        "ORDER BY name, id",
    )
    records = [(*row, rest and json.loads(rest)) for *row, rest in records]
    sanctions = query(path, "SELECT * FROM sanction ORDER BY room, username, action")
    return epochs, rooms, records, sanctions


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """The command takes a signal for its process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(*arguments: str | Path, **environ: str) -> int:
    return cli.main(["copy", *map(str, arguments)], environ)


def said(capfd: pytest.CaptureFixture[str]) -> str:
    out, err = capfd.readouterr()
    assert err == ""
    return str(out)


def complaint(capfd: pytest.CaptureFixture[str]) -> str:
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return str(err)


def test_there_and_back_everything_is_the_same(
    db: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--db", db, "--redis", store.url) == 0
    assert said(capfd) == f"Copied 5 rooms with 1,291 messages from {db} to {store.url}\n"
    back = tmp_path / "new.db"
    assert run("--redis", store.url, "--db", back) == 0
    assert said(capfd) == f"Copied 5 rooms with 1,291 messages from {store.url} to {back}\n"
    assert {each.name for each in tmp_path.glob("new.db*")} == {"new.db"}
    assert back.stat().st_mode & 0o777 == 0o600
    assert content(back) == content(db)
    assert set(content(back)[0].values()) == {"theepoch"}


def test_edits_deletions_and_sanctions_come_along(
    db: Path, store: Store, stores: Stores, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(db)
    assert len(content(db)[3]) == 6
    assert run("--db", db, "--redis", store.url) == 0
    assert said(capfd) == f"Copied 5 rooms with 1,299 messages from {db} to {store.url}\n"
    assert run("--db", db, "--redis", store.url) == 0
    assert "1,299 messages of them had been there already" in said(capfd)
    assert run("--redis", store.url, "--db", tmp_path / "back.db") == 0
    assert content(tmp_path / "back.db") == content(db)
    again = stores.start(kind=Kind.REDIS)
    assert run("--db", tmp_path / "back.db", "--redis", again.url) == 0
    assert run("--redis", again.url, "--db", tmp_path / "third.db") == 0
    assert content(tmp_path / "third.db") == content(db)
    back_up(str(db), str(tmp_path / "backup.db"))
    assert content(tmp_path / "backup.db")[1:] == content(db)[1:]


def test_what_nodes_have_changed_in_a_store_comes_along(db: Path, store: Store, tmp_path: Path) -> None:
    """Whatever is kept in the stream there, or beside it."""
    change(db)
    assert run("--db", db, "--redis", store.url) == 0
    keys = RoomKeys.of("chatroom", "general")

    def call(command: library.Command) -> Any:
        return json.loads(store.client(decode_responses=False).execute_command(*command))

    head = call(library.head(keys))
    assert head[:4] == ["ok", "theepoch", 1208, 7]
    assert head[4] == [["ban", "ann", "carol", False, ""]]
    context = library.context_of(keys, "n", sharded=False, keep=None, keep_seconds=None)
    drafts = [
        Draft("general", "user 1", "in the store", None, 0, False, Edit(500, 10**12)),
        Draft("general", "user 1", "a conflict", "c1764000000499", 0, False, Edit(500, 10**12)),
        Draft("general", "carol", "", None, 0, True, Delete(600, 0)),
        Draft("general", "carol", "", None, 0, True, Moderate(Action.UNBAN, "ann", None)),
        Draft("general", "carol", "", None, 0, True, Delete(1201, 0)),
    ]
    reply = call(library.append(keys, context, "theepoch", drafts, known=1208, ts=0))
    assert [line and line[0] for line in reply[2]] == [1209, 0, 1210, 1211, 1212]
    before = call(library.read(keys, "theepoch", 0, 9999, limit=9999, most=1 << 30))[2]
    assert len(before) == 1212
    assert run("--redis", store.url, "--db", tmp_path / "new.db") == 0
    store.ask("FLUSHALL")
    assert run("--db", tmp_path / "new.db", "--redis", store.url) == 0
    after = call(library.read(keys, "theepoch", 0, 9999, limit=9999, most=1 << 30))[2]
    assert [(*each[:4], *map(json.loads, each[4:])) for each in after] == [
        (*each[:4], *map(json.loads, each[4:])) for each in before
    ]
    assert call(library.head(keys)) == ["ok", "theepoch", 1212, 11, {}]


def test_a_room_with_other_sanctions_is_not_the_same(
    db: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    change(db)
    assert run("--db", db, "--redis", store.url) == 0
    said(capfd)
    query(db, "DELETE FROM sanction WHERE room = 'gone' AND username = 'cy'")
    assert run("--db", db, "--redis", store.url) == 2
    assert "room 'gone' is in the store already, with other messages" in complaint(capfd)


def test_a_store_has_what_nodes_read(db: Path, store: Store) -> None:
    assert run("--db", db, "--redis", store.url, "--redis-prefix", "chat*") == 0
    keys = RoomKeys.of("chat*", "ops%{1}")
    client = store.client()
    nothing = {"v": "0", "o": "0", "z": "0"}
    time = {"t": "1764000000039"}
    assert client.hgetall(keys.meta) == {"e": "theepoch", "l": "40", "f": "1", **nothing, **time}
    assert client.hget(keys.cids, "user 1\0c1764000000001") == "2"
    assert client.xlen(keys.stream) == 40
    ((_, fields),) = client.xrange(keys.stream, "2-0", "2-0")
    assert fields == {"t": "1764000000001", "u": "user 1", "x": "1764000000001", "c": "c1764000000001"}
    trimmed = RoomKeys.of("chat*", "trimmed")
    assert client.hgetall(trimmed.meta) == {"e": "theepoch", "l": "40", "f": "30", **nothing, **time}
    assert client.hget(trimmed.cids, "") == ""  # the placeholder
    assert client.xlen(trimmed.stream) == (client.hlen(trimmed.cids) - 1) * 2 - 1 == 11


def test_what_was_copied_is_copied_once(db: Path, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--db", db, "--redis", store.url) == 0
    said(capfd)
    before = store.ask("DBSIZE")
    assert run("--db", db, "--redis", store.url) == 0
    assert said(capfd).endswith("; 1,291 messages of them had been there already\n")
    assert store.ask("DBSIZE") == before


@pytest.mark.parametrize("when", ["more", "other", "trimmed", "epoch"])
def test_a_room_that_is_there_with_other_messages_is_refused_and_nothing_is_copied(
    when: str, db: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    other = db.with_name("other.db")
    with closing(open_store(other)) as database:
        database.append([Draft("general", "ann", "hi", None, 1)])
        if when == "other":
            database.append([Draft("general", "ann", "ho", None, 1)] * 1199)
        if when == "trimmed":
            database.trim({"general": 2})
    query(other, "UPDATE meta SET value = ? WHERE name = 'epoch'", "other" if when == "epoch" else "theepoch")
    assert run("--db", other, "--redis", store.url) == 0
    said(capfd)
    keys = store.ask("DBSIZE")
    assert run("--db", db, "--redis", store.url) == 2
    assert complaint(capfd) == (
        "chatroom: room 'general' is in the store already, with other messages: nothing was copied; "
        "choose another --redis-prefix\n"
    )
    assert store.ask("DBSIZE") == keys


@pytest.mark.parametrize("kind", Kind)
def test_both_kinds_of_store_take_a_copy(kind: Kind, db: Path, stores: Stores, tmp_path: Path) -> None:
    store = stores.start("maxmemory 0", kind=kind, password="s3cret/pa%ss@", unix=True)
    assert run("--db", db, "--redis", store.url) == 0
    assert run("--redis", store.url, "--db", tmp_path / "new.db") == 0
    assert content(tmp_path / "new.db") == content(db)


def test_the_user_on_the_page_can_do_what_a_copy_needs(db: Path, stores: Stores, tmp_path: Path) -> None:
    (line,) = blocks((ROOT / "docs" / "cluster.md").read_text("utf-8"), "valkey")
    store = stores.start(users=[line.strip().removeprefix("user ").replace("PASSWORD", "s3cret")])
    url = store.url.replace("://", "://chatroom:s3cret@")
    assert run("--db", db, "--redis", url) == 0
    assert run("--redis", url, "--db", tmp_path / "new.db") == 0
    assert content(tmp_path / "new.db") == content(db)
    assert run("--db", db, "--redis", url, "--redis-prefix", "others") == 2


def test_a_store_behind_tls_takes_a_copy_if_its_authority_is_believed(
    db: Path, stores: Stores, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = stores.start(kind=Kind.REDIS, tls=True, password="s3cret")
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    url = store.url.replace(":s3cret@", "").replace("127.0.0.1", "localhost")
    more = ("--redis-password-file", password)
    assert run("--db", db, "--redis", url, *more) == 2
    assert complaint(capfd) == f"chatroom: --redis {url}: the store's certificate can't be verified\n"
    assert run("--db", db, "--redis", url, *more, "--redis-ca", CERTIFICATE) == 0
    said(capfd)
    other = url.replace("localhost", "127.0.0.2")
    assert run("--db", db, "--redis", other, *more, "--redis-ca", CERTIFICATE) == 2
    assert "s3cret" not in complaint(capfd)


def test_a_store_behind_sentinels_takes_a_copy_at_whoever_is_the_primary(
    db: Path, stores: Stores, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    primary = stores.start(password="s3cret")
    replica = stores.start(replica_of=primary)
    sentinel = stores.watch(primary)
    sentinel.await_knowing(1)
    nobody = sentinel.url.replace("@127", "@127.0.0.1:1,127")
    assert run("--db", db, "--redis", nobody) == 0
    primary.kill()
    sentinel.await_primary(replica)
    assert run("--redis", sentinel.url, "--db", tmp_path / "new.db") == 0
    assert content(tmp_path / "new.db") == content(db)
    said(capfd)
    assert run("--db", db, "--redis", sentinel.url.replace("/chat", "/other")) == 2
    assert complaint(capfd).endswith(": no Sentinel knows the primary 'other'\n")
    assert run("--db", db, "--redis", sentinel.url.replace(str(sentinel.port), "1")) == 2
    assert complaint(capfd).endswith(": no Sentinel can be reached\n")


def test_a_cluster_takes_a_copy_each_room_in_its_place(
    db: Path, stores: Stores, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster = stores.cluster(password="s3cret")
    assert run("--db", db, "--redis", cluster.url) == 0
    assert run("--db", db, "--redis", cluster.url) == 0
    assert "1,291 messages of them had been there already" in said(capfd)
    sizes = [node.ask("DBSIZE") for node in cluster.nodes]
    assert sum(sizes) > max(sizes)
    assert (
        run("--redis", f"redis+cluster://:s3cret@127.0.0.1:{cluster.nodes[2].port}", "--db", tmp_path / "n")
        == 0
    )
    assert content(tmp_path / "n") == content(db)
    said(capfd)
    for node in cluster.nodes:
        node.kill()
    assert run("--db", db, "--redis", cluster.url) == 2
    assert complaint(capfd).endswith(": the store can't be reached\n")


# Interrupted


def begin(*arguments: str | Path) -> tuple[subprocess.Popen[str], int]:
    """The command in a process of its own, its standard error on a terminal."""
    ours, theirs = pty.openpty()
    command = [*python_command(), "copy", *map(str, arguments)]
    with heeding(signal.SIGINT, signal.SIGHUP):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            env=clean_environment(),
            start_new_session=True,  # a terminal that goes away is no business of the tests
        )
    os.close(theirs)
    return process, ours


def read_terminal(fd: int, until: str = "\0") -> str:
    """What stands on a terminal, to its end or to the first match."""
    found = ""
    while not re.search(until, found):
        try:
            found += os.read(fd, 4096).decode()
        except OSError:  # nobody writes to it any more
            break
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("far", [1, 10_000])
def test_a_copy_that_was_interrupted_goes_on_where_it_stood(
    number: int, far: int, store: Store, tmp_path: Path, pyz: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    db, back = tmp_path / "chat.db", tmp_path / "new.db"
    fill_more(db, 90_000)  # a busy machine may take its time to send the signal
    process, terminal = begin("--db", db, "--redis", store.url)
    digits = r"[1-9]\d?,\d{3}" if far == 10_000 else r"[1-9]"
    shown = read_terminal(terminal, rf"Copied {digits}[\d,]* of 90,001 messages")
    process.send_signal(number)
    rest = read_terminal(terminal)
    os.close(terminal)
    out = process.communicate()[0]
    assert "Copied" in shown
    if number != signal.SIGKILL:
        assert (process.returncode, out) == (1, "")
        assert "Traceback" not in rest
        assert rest.endswith("\r\x1b[Kchatroom: interrupted: run the same command again to go on\r\n")
    with closing(StoreRooms(read_store_url(store.url), "chatroom")) as rooms:
        large, small = rooms.stands(["large", "small"])
        assert (str(large.condition), str(small.condition)) == ("copying", "free")
        assert rooms.exchange([library.open_room(RoomKeys.of("chatroom", "large"), "another")]) == [
            ["copying"]
        ]
        assert rooms.exchange([library.renew(RoomKeys.of("chatroom", "large"), "", "another")]) == [
            ["copying"]
        ]
    assert run("--redis", store.url, "--db", back) == 2
    assert complaint(capfd) == (
        "chatroom: room 'large' has been copied into the store by half: finish that first\n"
    )
    assert run("--db", db, "--redis", store.url) == 0
    (there,) = re.findall(r"; ([\d,]+) messages of them had been there already\n", said(capfd))
    assert int(there.replace(",", "")) == large.log.last > 0
    assert run("--redis", store.url, "--db", back) == 0
    assert content(back) == content(db)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_copy_back_that_was_interrupted_leaves_nothing(
    number: int, store: Store, tmp_path: Path, pyz: Path
) -> None:
    db, back = tmp_path / "chat.db", tmp_path / "new.db"
    fill_more(db, 60_000)
    assert run("--db", db, "--redis", store.url) == 0
    process, terminal = begin("--redis", store.url, "--db", back)
    read_terminal(terminal, r"Copied [1-9]")
    process.send_signal(number)
    rest = read_terminal(terminal)
    os.close(terminal)
    assert process.communicate()[0] == ""
    assert process.returncode == 1
    assert rest.endswith("\r\x1b[Kchatroom: interrupted: nothing was kept\r\n")
    assert not list(tmp_path.glob("new.db*"))


def test_the_store_goes_away_and_comes_back(
    store: Store, tmp_path: Path, pyz: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "chat.db"
    fill_more(db, 60_000)
    process, terminal = begin("--db", db, "--redis", store.url)
    read_terminal(terminal, r"Copied [1-9]")
    store.kill()
    rest = read_terminal(terminal)
    os.close(terminal)
    assert process.communicate()[0] == ""
    assert process.returncode == 2
    assert rest.endswith(f"chatroom: --redis {store.url}: the store can't be reached\r\n")
    store.start()
    assert run("--db", db, "--redis", store.url) == 0
    assert "messages of them had been there already" in said(capfd)
    assert run("--redis", store.url, "--db", tmp_path / "new.db") == 0
    assert content(tmp_path / "new.db") == content(db)


def test_a_copy_that_another_one_has_begun_is_left_to_it(
    db: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    for log, messages in (
        (RoomLog("general", "other", 1, 9), []),
        (RoomLog("general", "theepoch", 1, 9), [Message(1, 1, "ann", "not ours", None)]),
    ):
        store.ask("FLUSHALL")
        with closing(StoreRooms(read_store_url(store.url), "chatroom")) as rooms:
            keys = RoomKeys.of("chatroom", log.room)
            assert rooms.exchange([library.copy_begin(keys, log)]) == [["ok", 0]]
            if messages:
                assert rooms.exchange([library.copy_add(keys, log.epoch, 0, messages)]) == [["ok", 1]]
        assert run("--db", db, "--redis", store.url) == 2
        assert complaint(capfd).startswith(
            "chatroom: room 'general' is in the store already, another copy has begun to bring it in: "
        )


def test_two_copies_at_once_do_not_mix(store: Store) -> None:
    keys = RoomKeys.of("chatroom", "r")
    messages = [Message(1, 1, "ann", "hi", "c")]
    log = RoomLog("r", "e", 1, 1)
    with closing(StoreRooms(read_store_url(store.url), "chatroom")) as rooms:
        replies = rooms.exchange(
            [
                library.copy_add(keys, "e", 0, messages),
                library.copy_begin(keys, log),
                library.copy_begin(keys, log._replace(epoch="other")),
                library.copy_begin(keys, log._replace(first=2)),
                library.copy_add(keys, "other", 0, messages),
                library.copy_add(keys, "e", 0, messages),
                library.copy_add(keys, "e", 0, messages),
                library.copy_end(keys, "e", 0),
                library.copy_end(keys, "e", 1),
                library.copy_end(keys, "e", 1),
                library.copy_begin(keys, log),
            ]
        )
    taken, done = ["taken"], ["ok", 1]
    assert replies == [taken, ["ok", 0], taken, taken, taken, done, taken, taken, done, taken, taken]


# One room


@pytest.mark.parametrize("room", ["general", "trimmed", "gone"])
def test_a_room_of_a_store_is_exported_like_that_of_a_database(
    db: Path, store: Store, room: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change(db)
    assert run("--db", db, "--redis", store.url) == 0
    said(capfd)
    assert cli.main(["export", room, "--db", str(db)], {}) == 0
    expected = capfd.readouterr().out
    assert cli.main(["export", room, "--redis", store.url], {}) == 0
    assert capfd.readouterr() == (expected, "")
    assert len(expected.splitlines()) == {"general": 1210, "trimmed": 13, "gone": 2}[room]


def test_a_room_of_a_store_that_is_not_there_or_in_use_is_not_exported(
    db: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--db", db, "--redis", store.url) == 0
    said(capfd)
    assert cli.main(["export", "never", "--redis", store.url], {}) == 2
    assert complaint(capfd) == f"chatroom: there is no room 'never' in --redis {store.url}\n"
    now = int(store.ask("TIME")[0])
    store.client().zadd("chatroom:nodes", {"one#1 3.13": (now + 10) * 1000})
    assert cli.main(["export", "general", "--redis", store.url], {}) == 2
    assert complaint(capfd).startswith("chatroom: nodes run on the store")


# What is refused


def test_a_database_that_a_server_uses_is_refused(
    db: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(open_store(db)):
        assert run("--db", db, "--redis", store.url) == 2
    assert complaint(capfd) == (
        f"chatroom: another server uses {db}: stop it, or choose another file by --db\n"
    )
    assert store.ask("DBSIZE") == 0


def test_a_store_that_nodes_use_is_refused_on_the_way_back(
    db: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--db", db, "--redis", store.url) == 0
    said(capfd)
    now = int(store.ask("TIME")[0])
    store.client().zadd(
        "chatroom:nodes", {"one%20a#123 3.13 15.1": (now + 10) * 1000, "two#4 3.13": (now - 1) * 1000}
    )
    assert run("--redis", store.url, "--db", tmp_path / "new.db") == 2
    assert complaint(capfd) == (
        "chatroom: nodes run on the store, or did until some seconds ago (one a): stop them, and wait "
        "20 seconds\n"
    )
    assert not list(tmp_path.glob("new.db*"))


def test_a_file_that_is_there_is_not_replaced(
    db: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--db", db, "--redis", store.url) == 0
    said(capfd)
    (tmp_path / "new.db").write_text("mine")
    assert run("--redis", store.url, "--db", tmp_path / "new.db") == 2
    assert complaint(capfd) == f"chatroom: {tmp_path}/new.db exists already: give a name that is free\n"
    assert (tmp_path / "new.db").read_text() == "mine"
    assert run("--redis", store.url, "--db", tmp_path / "nowhere" / "new.db") == 2
    assert "can't be written (No such file or directory)" in complaint(capfd)


def test_a_store_without_rooms_makes_no_database(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(StoreRooms(read_store_url(store.url), "chatroom")) as rooms:
        rooms.exchange([library.open_room(RoomKeys.of("chatroom", "empty"), "e")])
    store.client().hset("chatroom:{%zz}:m", "e", "1")
    store.client().hset("chatroom:{a{b}:m", "e", "1")
    assert run("--redis", store.url, "--db", tmp_path / "new.db") == 2
    assert complaint(capfd) == (
        "chatroom: there are no rooms in the store: nothing was copied; is --redis-prefix right?\n"
    )
    assert not list(tmp_path.glob("new.db*"))


def damaged(db: Path, _: Store) -> str:
    query(db, "DELETE FROM message WHERE id = 7")
    return f"{db} is damaged (records are missing after 0): see what its backups have"


def foreign(_: Path, store: Store) -> str:
    store.client().xadd(RoomKeys.of("chatroom", "general").stream, {"a": "b"})
    return (
        "room 'general' is in the store already, as keys of something else: nothing was copied; "
        "choose another --redis-prefix"
    )


def wrong_type(_: Path, store: Store) -> str:
    store.client().set(RoomKeys.of("chatroom", "general").meta, "x")
    return (
        f"--redis {store.url}: keys with the prefix belong to something else: choose another --redis-prefix"
    )


def full(_: Path, store: Store) -> str:
    store.config_set("maxmemory", 1)
    return f"--redis {store.url}: the store's memory is full"


def full_later(_: Path, store: Store) -> str:
    StoreRooms(read_store_url(store.url), "chatroom").close()
    store.config_set("maxmemory", 1)
    return f"--redis {store.url}: the store's memory is full"


def evicting(_: Path, store: Store) -> str:
    store.config_set("maxmemory", "100mb")
    store.config_set("maxmemory-policy", "allkeys-lru")
    return (
        f"--redis {store.url}: the store evicts keys when its memory is full (allkeys-lru): "
        "set maxmemory-policy to noeviction"
    )


def gone(_: Path, store: Store) -> str:
    store.kill()
    return f"--redis {store.url}: the store can't be reached"


def locked(_: Path, store: Store) -> str:
    store.config_set("requirepass", "s3cret")
    return f"--redis {store.url}: the store refuses the user or the password"


def absent(db: Path, _: Store) -> str:
    db.unlink()
    return f"{db} doesn't exist: give the server's database by --db"


@pytest.mark.parametrize(
    "trouble", [damaged, foreign, wrong_type, full, full_later, evicting, gone, locked, absent]
)
def test_what_goes_wrong_is_one_line_and_exit_code_2(
    trouble: Callable[[Path, Store], str], db: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    line = trouble(db, store)
    assert run("--db", db, "--redis", store.url) == 2
    assert complaint(capfd) == f"chatroom: {line}\n"


# Epochs


def test_a_backup_gets_an_epoch_of_its_own_once(
    db: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy, back = tmp_path / "copy.db", tmp_path / "new.db"
    back_up(str(db), str(copy))
    assert run("--db", copy, "--redis", store.url) == 0
    assert run("--db", copy, "--redis", store.url) == 0
    assert "1,291 messages of them had been there already" in said(capfd)
    assert run("--redis", store.url, "--db", back) == 0
    assert content(back) == content(copy)
    assert content(back)[0] != content(db)[0]


def test_rooms_keep_the_epochs_that_they_have_in_a_store(
    db: Path, store: Store, stores: Stores, tmp_path: Path
) -> None:
    """So does a copy of the copy; a backup of it gets one new epoch for all."""
    assert run("--db", db, "--redis", store.url) == 0
    store.client().hset(RoomKeys.of("chatroom", "gone").meta, "e", "another")
    back = tmp_path / "new.db"
    assert run("--redis", store.url, "--db", back) == 0
    epochs = dict.fromkeys(ROOMS, "theepoch") | {"gone": "another"}
    assert content(back) == (epochs, *content(db)[1:])
    again = stores.start()
    assert run("--db", back, "--redis", again.url) == 0
    assert run("--redis", again.url, "--db", tmp_path / "third.db") == 0
    assert content(tmp_path / "third.db") == content(back)
    with closing(open_store(back)) as database:
        assert database.epoch == "e1"
        database.append([Draft("gone", "ann", "hi", None, 1), Draft("later", "ann", "hi", None, 1)])
        assert [database.epoch_of(room) for room in ("gone", "general", "later")] == [
            "another",
            "theepoch",
            "e1",
        ]
    back_up(str(back), str(tmp_path / "copy.db"))
    with closing(open_store(tmp_path / "copy.db")) as database:
        assert {database.epoch_of(room) for room in (*ROOMS, "later")} == {"e1"}


# The command


def read(*arguments: str, **environ: str) -> CopySettings:
    found = read_copy(arguments, environ)
    assert isinstance(found, CopySettings)
    return found


def test_the_direction_is_the_order() -> None:
    assert read("--db", "a", "--redis", "redis://h").into_store
    assert read("--redis-prefix=x", "--db=a", "--redis=redis://h").into_store
    assert not read("--redis", "redis://h", "--db", "a").into_store
    assert not read("--redis=redis://h", "--redis-prefix", "x", "--db", "a").into_store


def test_what_is_no_place_may_come_from_the_environment() -> None:
    found = read("--db", "a", "--redis", "rediss://h", CHATROOM_REDIS_PREFIX="x", CHATROOM_REDIS_CA="f")
    assert (found.redis_prefix, found.redis_ca, found.redis_password_file) == ("x", "f", None)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "copy needs --db and --redis, in the order from and to: "),
        (["--db", "a"], "copy needs --db and --redis, in the order from and to: "),
        (["--redis", "redis://h"], "copy needs --db and --redis, in the order from and to: "),
        (["--db", "none", "--redis", "redis://h"], "--db none is no database: give the file that is to be "),
        (["--db", "a", "--redis", "redis://s3cret@"], "--redis: a host is missing"),
        (["--db", "a", "--redis", "redis://me@h"], "--redis names a user without a password"),
        (["--db", "a", "--redis", "redis://h", "redis://s3cret@h"], "unexpected argument; "),
        (["--db", "a", "--redis", "redis://h", "--port", "1"], "unknown option '--port'; "),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], line: str) -> None:
    with pytest.raises(StartError) as caught:
        read_copy(arguments, {"CHATROOM_DB": "b", "CHATROOM_REDIS": "redis://x"})
    assert str(caught.value).startswith(line)
    assert "s3cret" not in str(caught.value)


def test_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "usage: ./chat.pyz copy --db PATH --redis URL [options]" in said(capfd)
