"""Retention: what goes, in which steps, and that those who ask are told."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from chatroom.adapters.sqlite.retention import (
    PAUSE_FACTOR,
    PAUSE_SECONDS,
    STEP_MESSAGES,
    STEP_ROOMS,
    SWEEP_SECONDS,
    Retention,
)
from chatroom.adapters.sqlite.store import Store
from chatroom.values.errors import Trimmed
from chatroom.values.messages import Draft, Stored
from chatroom.values.retain import Retain
from tests.engine_contract import fill
from tests.support.database import open_engine, open_store, query

DAY_MS = 86_400_000


class World:
    """A store with a retention, and the time for both."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seconds = 1000.0
        self.trimmed: list[tuple[str, int]] = []
        self.slow = 0.0

    def now(self) -> float:
        self.seconds += self.slow
        return self.seconds

    def retention(self, retain: Retain, now_ms: int = 1000 * DAY_MS) -> Retention:
        return Retention(
            self.store,
            retain,
            now=self.now,
            now_ms=lambda: now_ms,
            trimmed=lambda room, first: self.trimmed.append((room, first)),
        )

    def say(self, count: int, room: str = "r", ts: int = 1) -> None:
        outcomes = self.store.append([Draft(room, "alice", "hi", None, ts)] * count)
        assert all(isinstance(outcome, Stored) for outcome in outcomes)

    def first(self, room: str = "r") -> int:
        return self.store.extent(room).trimmed + 1

    def drain(self, retention: Retention) -> int:
        steps = 0
        while retention.work_waits:
            retention.step()
            steps += 1
        return steps


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(open_store(tmp_path / "chat.db")) as store:
        yield World(store)


def test_without_a_limit_there_is_nothing_to_do(world: World) -> None:
    retention = world.retention(Retain())
    world.say(5)
    retention.written({"r"})
    assert retention.due == float("inf")


def test_the_newest_of_each_room_are_kept(world: World) -> None:
    for count, room in ((3, "small"), (10, "r"), (11, "other")):
        world.say(count, room)
    world.drain(world.retention(Retain(count=10)))
    assert [world.first(room) for room in ("small", "r", "other")] == [1, 1, 2]
    assert world.trimmed == [("other", 2)]


def test_the_old_are_removed_up_to_the_first_that_is_young_enough(world: World) -> None:
    now = 1000 * DAY_MS
    for age in (95, 91, 90, 89, 91, 1):  # the clock was put back: what is behind a younger one stays
        world.say(1, ts=now - age * DAY_MS)
    world.say(2, "all", ts=0)
    world.drain(world.retention(Retain(seconds=90 * 86400), now))
    assert world.first() == 3
    assert world.store.extent("all").last == 2
    assert world.first("all") == 3
    world.say(1, "all")
    assert world.store.extent("all").last == 3


def test_a_message_goes_when_it_is_beyond_either_limit(world: World) -> None:
    now = 1000 * DAY_MS
    world.say(5, "a", ts=0)
    world.say(1, "a", ts=now)
    world.say(6, "b", ts=now)
    world.drain(world.retention(Retain(90 * 86400, 4), now))
    assert (world.first("a"), world.first("b")) == (6, 3)


def test_a_step_is_bounded_in_messages(world: World) -> None:
    for room in ("a", "b"):
        for _ in range(4):
            world.say(1000, room)
    retention = world.retention(Retain(count=10))
    before = 8000
    while retention.work_waits:
        retention.step()
        kept = sum(world.store.extent(room).last - world.first(room) + 1 for room in "ab")
        assert before - kept <= STEP_MESSAGES
        before = kept
    assert before == 20


def test_a_step_is_bounded_in_rooms(world: World) -> None:
    for number in range(STEP_ROOMS + 50):
        world.say(2, f"room-{number:03}")
    retention = world.retention(Retain(count=1))
    retention.step()
    assert len(world.trimmed) == STEP_ROOMS
    world.drain(retention)
    assert len(world.trimmed) == STEP_ROOMS + 50


def test_between_steps_is_a_pause_of_several_times_their_length(world: World) -> None:
    world.say(5000 // 5)
    for _ in range(4):
        world.say(1000)
    retention = world.retention(Retain(count=1))
    retention.step()
    assert retention.due == world.seconds + PAUSE_SECONDS
    world.slow = 1.0
    begin = world.seconds
    retention.step()
    world.slow = 0.0
    assert retention.due >= world.seconds + PAUSE_FACTOR * (world.seconds - begin - 1.0)


def test_a_room_that_grows_too_long_is_looked_at_soon_others_with_the_next_sweep(world: World) -> None:
    retention = world.retention(Retain(count=3))
    world.drain(retention)
    quiet = retention.due
    assert quiet > world.seconds + SWEEP_SECONDS / 2
    world.say(3)
    retention.written({"r"})
    assert retention.due == quiet
    world.say(1)
    retention.written({"r"})
    retention.written({"r"})
    assert retention.due <= world.seconds + PAUSE_SECONDS
    world.drain(retention)
    assert world.first() == 2


def test_what_grows_old_is_found_by_the_next_sweep(world: World) -> None:
    world.say(1, ts=1)
    retention = world.retention(Retain(seconds=60), now_ms=0)
    world.drain(retention)
    assert world.first() == 1
    retention._now_ms = lambda: 120_000
    world.seconds = retention.due
    retention.step()
    assert world.first() == 2


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the thread."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110  (it tells nobody)
            await trio.sleep(0.005)


async def test_those_who_ask_are_told(tmp_path: Path) -> None:
    async with open_engine(tmp_path / "chat.db", retain=Retain(count=10)) as engine:
        await fill(engine, 30)
        await until(lambda: engine.first_id("r") == 21)
        with pytest.raises(Trimmed):
            await engine.read("r", 19, 30, 50)
        page = await engine.history("r", before=None, after=None, upto=30, limit=50)
        assert (page.messages[0].id, page.more) == (21, False)
        engine.release("r")
        await fill(engine, 20, "other")  # trimmed while the room isn't in use
        engine.release("other")
        path = tmp_path / "chat.db"
        await until(lambda: query(path, "SELECT trimmed FROM room WHERE name = 'other'") == [(10,)])
        await engine.open("other")
        assert engine.first_id("other") == 11
