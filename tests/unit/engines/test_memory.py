"""The engine without a disk: the contract of all engines, and what it forgets when."""

import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
import trio.testing

from chatroom.core.errors import Trimmed
from chatroom.core.messages import Head, Message
from chatroom.engines.memory import IDLE_ROOM, OVERHEAD, MemoryEngine
from tests.support.engine_contract import TS, EngineContract, draft, fill, ids
from tests.support.engines import append, history, open_room, read

TEXT = "x" * 100
COST = OVERHEAD + 4 * len(TEXT)
"""What a message with TEXT is reckoned to cost."""


def memory(*, rooms: int = 0, messages: int = 0, per_room: int = 500) -> MemoryEngine:
    """An engine that has place for so many unused rooms and messages, and for no byte more."""
    numbers = count(1)
    total = rooms * IDLE_ROOM + messages * COST
    return MemoryEngine(lambda: f"e{next(numbers)}", per_room=per_room, total_bytes=total)


async def write(engine: MemoryEngine, room: str, times: int = 1, *, release: bool = False) -> Head:
    head = await open_room(engine, room)
    await append(engine, [draft(TEXT, room=room) for _ in range(times)])
    if release:
        engine.release(room)
    return Head(head.epoch, head.last_id + times)


class TestContract(EngineContract):
    @asynccontextmanager
    async def opened(self, keep: int = 500) -> AsyncIterator[MemoryEngine]:
        numbers = count(1)
        yield MemoryEngine(lambda: f"e{next(numbers)}", per_room=keep)


async def test_a_room_keeps_so_many_messages_exactly() -> None:
    engine = memory(messages=100, per_room=3)
    await fill(engine, 3)
    assert engine.first_id("r") == 1
    await fill(engine, 1)
    assert engine.first_id("r") == 2
    await fill(engine, 10)
    assert ids(await read(engine, "r", 11, 14, 50)) == [12, 13, 14]


async def test_what_a_room_has_trimmed_is_not_counted_any_more() -> None:
    engine = memory(messages=4, per_room=3)
    await write(engine, "a")
    await write(engine, "b", 50)  # 3 of them are kept
    assert (engine.first_id("a"), engine.first_id("b")) == (1, 48)


async def test_by_default_500_messages_of_a_room_are_kept() -> None:
    engine = MemoryEngine(lambda: "e")
    await fill(engine, 501)
    assert engine.first_id("r") == 2


async def test_past_the_total_the_room_unused_for_longest_goes_as_a_whole() -> None:
    engine = memory(rooms=3, messages=8)
    heads = {room: await write(engine, room, 2, release=True) for room in ("a", "b", "c")}
    await open_room(engine, "a")
    engine.release("a")  # used again: now `b` has been unused for longest
    await write(engine, "busy", 2)  # 8 messages: full
    assert (await write(engine, "busy")).last_id == 3
    assert engine.first_id("busy") == 1, "unused rooms go before messages of used ones"
    assert await open_room(engine, "b") == Head("e2", 0)
    assert await open_room(engine, "a") == heads["a"]
    assert await open_room(engine, "c") == heads["c"]


async def test_unused_rooms_count_for_more_than_their_messages() -> None:
    engine = memory(rooms=1, messages=2)
    first = await write(engine, "a", release=True)
    await write(engine, "b")
    assert await open_room(engine, "a") == first
    engine.release("a")
    engine.release("b")  # there is place for one unused room only
    assert await open_room(engine, "b") == Head("e1", 1)
    assert await open_room(engine, "a") == Head("e2", 0)


async def test_without_unused_rooms_the_oldest_messages_of_the_stalest_room_go() -> None:
    engine = memory(messages=6)
    await write(engine, "a", 3)
    await write(engine, "b", 3)
    await write(engine, "b")
    assert (engine.first_id("a"), engine.first_id("b")) == (2, 1)
    await write(engine, "a")  # now `b` is the one written longest ago
    assert (engine.first_id("a"), engine.first_id("b")) == (2, 2)
    await write(engine, "b", 9)  # all of `a` goes, then the beginning of `b`
    assert (engine.first_id("a"), engine.first_id("b")) == (5, 8)
    assert await open_room(engine, "a") == Head("e1", 4), (
        "the end of the log is not forgotten with its messages"
    )
    with pytest.raises(Trimmed):
        await read(engine, "a", 3, 4, 50)


async def test_a_used_room_without_messages_is_no_obstacle() -> None:
    engine = memory(messages=2)
    await open_room(engine, "empty")
    await write(engine, "a", 5)
    assert engine.first_id("a") == 4


async def test_with_no_place_at_all_ids_still_rise() -> None:
    engine = memory()
    assert (await write(engine, "a", 3)).last_id == 3
    assert engine.first_id("a") == 4
    engine.release("a")
    assert await open_room(engine, "a") == Head("e2", 0)


async def test_a_cid_goes_with_its_message() -> None:
    engine = memory(messages=1)
    await open_room(engine, "a")
    await append(engine, [draft(TEXT, "c", room="a")])
    await write(engine, "b")
    (outcome,) = await append(engine, [draft("other", "c", room="a")])
    assert isinstance(outcome, Message)
    assert outcome.id == 2


async def test_each_time_a_log_is_given_up_later_rooms_get_a_new_epoch() -> None:
    engine = memory(rooms=1, messages=2)
    epochs = []
    for _ in range(4):
        for room in ("a", "b"):
            epochs.append((await write(engine, room, release=True)).epoch)
    assert epochs == ["e1", "e1", "e2", "e3", "e4", "e5", "e6", "e7"]


async def test_a_room_that_was_never_written_comes_back_under_the_same_epoch() -> None:
    engine = memory(rooms=1, messages=1)
    for _ in range(3):
        assert await open_room(engine, "empty") == Head("e1", 0)
        engine.release("empty")


async def test_a_room_in_use_keeps_its_epoch_whatever_is_given_up_elsewhere() -> None:
    engine = memory(rooms=1, messages=2)
    empty = await open_room(engine, "empty")
    for number in range(5):
        await write(engine, f"room-{number}", release=True)
    assert await open_room(engine, "empty") == empty
    assert (await write(engine, "empty")).epoch == empty.epoch


async def test_a_room_where_nothing_was_stored_leaves_nothing_behind() -> None:
    engine = memory(messages=100)

    async def come_and_go(times: int) -> None:
        for number in range(times):
            await open_room(engine, f"room-{number}")
            engine.release(f"room-{number}")

    await come_and_go(100)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await come_and_go(5000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5000


async def test_it_answers_at_once_and_gives_way_where_it_is_awaited() -> None:
    engine = memory(messages=1)
    answers: list[object] = []
    engine.open("a", answers.append)
    engine.append([draft(room="a")], answers.append)
    assert answers == [Head("e1", 0), [Message(1, TS, "alice", "hi", None)]]
    with trio.testing.assert_checkpoints():
        await read(engine, "a", 0, 1, 1)
    with trio.testing.assert_checkpoints():
        await history(engine, "a", before=None, after=None, upto=1, limit=1)
