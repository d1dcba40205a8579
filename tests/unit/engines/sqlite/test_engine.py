"""The engine on SQLite: the contract of all engines, and what outlives the process."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from chatroom.core.errors import StartError, Unavailable
from chatroom.core.messages import Conflict, Duplicate, Failed, Head, Message, Retain, Unknown
from chatroom.engines.sqlite.engine import MEASURE_SECONDS, SqliteEngine
from tests.support.database import PromptEngine, epochs, open_engine, query, serving
from tests.support.engine_contract import TS, EngineContract, draft, fill, ids
from tests.support.engines import append, history, open_room, read


class TestContract(EngineContract):
    @asynccontextmanager
    async def opened(self, keep: int = 500) -> AsyncIterator[SqliteEngine]:
        with tempfile.TemporaryDirectory(prefix="chat-test-") as folder:
            engine = PromptEngine(f"{folder}/chat.db", epochs(), retain=Retain(count=keep))
            async with serving(engine):
                yield engine


async def test_everything_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_engine(path) as engine:
        await open_room(engine, "r")
        first = await append(engine, [draft("hi", "c"), draft("ho"), draft("é😀\0", "d")])
    async with open_engine(path) as engine:
        assert await open_room(engine, "r") == Head("e1", 3)
        assert await read(engine, "r", 0, 3, 50) == first
        assert await append(engine, [draft("hi", "c"), draft("no", "d"), draft("4")]) == [
            Duplicate(1),
            Conflict(),
            Message(4, TS, "alice", "4", None),
        ]


async def test_a_room_without_messages_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_engine(path) as engine:
        for number in range(100):
            await open_room(engine, f"room-{number}")
        await append(engine, [draft("hi", room="room-7")])
    assert query(path, "SELECT name FROM room") == [("room-7",)]


async def test_only_the_guilty_draft_of_a_batch_fails(tmp_path: Path) -> None:
    async with open_engine(tmp_path / "chat.db") as engine:
        await open_room(engine, "r")
        await open_room(engine, "s")
        bad = draft("\ud800")
        assert await append(
            engine, [draft("1"), bad, draft("x", "c", room="s"), draft("x", "c", room="s"), bad, draft("2")]
        ) == [
            Message(1, TS, "alice", "1", None),
            Failed(),
            Message(1, TS, "alice", "x", "c"),
            Duplicate(1),
            Failed(),
            Message(2, TS, "alice", "2", None),
        ]
        assert await append(engine, [bad, draft("3")]) == [
            Failed(),
            Message(3, TS, "alice", "3", None),
        ]
        assert engine.troubles() == ()


async def test_a_batch_larger_than_one_look_up(tmp_path: Path) -> None:
    async with open_engine(tmp_path / "chat.db") as engine:
        await open_room(engine, "r")
        drafts = [draft(str(number), f"c{number}") for number in range(250)]
        first = await append(engine, drafts)
        assert [outcome.id for outcome in first if isinstance(outcome, Message)] == list(range(1, 251))
        assert await append(engine, drafts[::-1]) == [Duplicate(number) for number in range(250, 0, -1)]


async def test_a_hole_in_the_file_is_not_taken_for_a_range(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_engine(path) as engine:
        await fill(engine, 9)
        query(path, "DELETE FROM message WHERE id IN (1, 5)")
        assert ids(await read(engine, "r", 5, 9, 50)) == [6, 7, 8, 9]
        for after, upto, limit in ((0, 9, 50), (4, 9, 3), (3, 5, 50), (3, 6, 2)):
            with pytest.raises(Unavailable):
                await read(engine, "r", after, upto, limit)
        with pytest.raises(Unavailable):
            await history(engine, "r", before=7, after=None, upto=9, limit=3)


async def test_a_room_that_cannot_be_opened_is_not_in_use(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_engine(path) as engine:
        query(path, "ALTER TABLE room RENAME TO gone")
        with pytest.raises(Unavailable):
            await open_room(engine, "r")
        with pytest.raises(KeyError):
            engine.first_id("r")
        query(path, "ALTER TABLE gone RENAME TO room")
        assert await open_room(engine, "r") == Head("e1", 0)


async def test_what_can_not_be_opened_is_told_before_it_has_started(tmp_path: Path) -> None:
    (tmp_path / "chat.db").write_bytes(b"garbage")
    with pytest.RaisesGroup(pytest.RaisesExc(StartError, match="is no database")):
        async with open_engine(tmp_path / "chat.db"):
            raise AssertionError


async def test_after_the_end_nothing_is_stored_and_that_is_said(tmp_path: Path) -> None:
    async with open_engine(tmp_path / "chat.db") as engine:
        await fill(engine, 1)
    assert await append(engine, [draft("late")]) == [Unknown()]
    with pytest.raises(Unavailable):
        await open_room(engine, "s")
    with pytest.raises(Unavailable):
        await read(engine, "r", 0, 1, 1)


async def test_a_fault_in_the_thread_stands_in_the_place_of_the_outcomes(tmp_path: Path) -> None:
    async with open_engine(tmp_path / "chat.db") as engine:
        engine._retention = None
        with pytest.raises(AssertionError):
            await append(engine, [draft("hi")])


async def test_what_was_handed_in_before_the_end_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_engine(path) as engine, trio.open_nursery() as nursery:
        await open_room(engine, "r")
        nursery.start_soon(append, engine, [draft("hi")])
        await trio.lowlevel.checkpoint()  # it has been handed in
    assert query(path, "SELECT text FROM message") == [("hi",)]


async def test_the_path_may_have_any_name_and_be_a_link(tmp_path: Path) -> None:
    odd = tmp_path / "a b?c#d%41&mode=ro é.db"
    link = tmp_path / "link"
    link.symlink_to(odd)
    async with open_engine(link) as engine:
        await fill(engine, 1)
        with pytest.RaisesGroup(pytest.RaisesExc(StartError, match="another server uses")):
            async with open_engine(odd):
                raise AssertionError
    assert odd.exists()


async def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    seconds = 1000.0
    async with open_engine(path, now=lambda: seconds) as engine:
        assert engine.sizes()[0] == path.stat().st_size
        await fill(engine, 100)
        seconds += MEASURE_SECONDS
        await append(engine, [draft("next")])
        wal = path.with_name("chat.db-wal").stat().st_size
        assert engine.sizes() == (path.stat().st_size, wal)
        assert wal > 0


async def test_a_dense_index_serves_every_statement(tmp_path: Path) -> None:
    """A page costs the same in a small room and a large one: nothing is scanned, nothing is sorted."""
    from chatroom.engines.sqlite.log import _LOOK_UP, _LOOKUPS, _RANGE  # noqa: PLC0415

    path = tmp_path / "chat.db"
    async with open_engine(path) as engine:
        await fill(engine, 3)
    for statement, values in (
        (_RANGE, (1, 0, 9)),
        (_RANGE + " DESC", (1, 0, 9)),
        (_LOOK_UP, (None,) * 3 * _LOOKUPS),
        ("SELECT max(id) FROM message WHERE room = ?", (1,)),
        ("SELECT min(id) FROM message WHERE room = ? AND id > ? AND id <= ? AND ts >= ?", (1, 0, 9, 9)),
    ):
        plan = [row[3] for row in query(path, f"EXPLAIN QUERY PLAN {statement}", *values)]
        searched = [step for step in plan if "SEARCH" in step]
        assert len(searched) == 1, plan
        assert not [step for step in plan if "SCAN m" in step or "B-TREE" in step], plan
