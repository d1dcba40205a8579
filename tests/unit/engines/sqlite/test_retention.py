"""Retention: what goes, in which steps, and that those who ask are told."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import trio

from chatroom.core.errors import Trimmed
from chatroom.core.messages import Draft, Message, Retain
from chatroom.engines.sqlite.log import Log
from chatroom.engines.sqlite.retention import (
    DOUBT_SECONDS,
    NOTE_MS,
    PAUSE_FACTOR,
    PAUSE_SECONDS,
    STEP_MESSAGES,
    STEP_ROOMS,
    SWEEP_SECONDS,
    Retention,
)
from chatroom.engines.sqlite.store import Store
from tests.support.database import open_engine, open_store, query
from tests.support.engine_contract import fill
from tests.support.engines import history, open_room, read

DAY_MS = 86_400_000


class World:
    """A store with a retention, and the time for both."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seconds = 1000.0
        self.day_ms = 1000 * DAY_MS
        self.trimmed: list[tuple[str, int]] = []
        self.slow = 0.0

    def now(self) -> float:
        self.seconds += self.slow
        return self.seconds

    def clock(self) -> int:
        """The time of day, which goes on with the monotonic clock, unless a test sets it."""
        return self.day_ms + int((self.seconds - 1000.0) * 1000)

    def retention(self, retain: Retain, *, noted: int | None = 1000 * DAY_MS) -> Retention:
        """`noted` is the time that an earlier run has noted."""
        if noted is not None:
            self.store.note_time(noted)
        return Retention(
            self.store,
            retain,
            now=self.now,
            now_ms=self.clock,
            trimmed=lambda room, first: self.trimmed.append((room, first)),
        )

    def say(self, count: int, room: str = "r", ts: int = 1) -> None:
        outcomes = self.store.append([Draft(room, "alice", "hi", None, ts)] * count)
        assert all(isinstance(outcome, Message) for outcome in outcomes)

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
    world.drain(world.retention(Retain(seconds=90 * 86400)))
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
    world.drain(world.retention(Retain(90 * 86400, 4)))
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
    world.say(1, ts=world.clock())
    retention = world.retention(Retain(seconds=60))
    world.drain(retention)
    assert world.first() == 1
    look_through(world, retention, 2 * SWEEP_SECONDS + 1)
    assert world.first() == 2


# A clock that is set wrong


AGE = Retain(seconds=90 * 86400)


def look_through(world: World, retention: Retention, seconds: float = SWEEP_SECONDS) -> None:
    """Let so much time pass, and everything that is due by then be done."""
    until = world.seconds + seconds
    while retention.due <= until:
        world.seconds = max(world.seconds, retention.due)
        retention.step()
    world.seconds = until


def doubts(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [each.fields for each in caplog.records if each.getMessage() == "clock_doubted"]


def test_a_clock_that_jumps_forward_removes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.say(5, ts=world.clock())
    retention = world.retention(AGE)
    look_through(world, retention)
    world.day_ms += 200 * DAY_MS
    look_through(world, retention, 10 * DOUBT_SECONDS)
    assert world.first() == 1, "however long it stays like that"
    assert doubts(caplog) == [{"ahead": 200 * 86400, "wait": None}]
    world.day_ms -= 200 * DAY_MS
    world.seconds += 90 * 86400 - 11 * DOUBT_SECONDS
    look_through(world, retention)
    assert world.first() == 1
    look_through(world, retention, DOUBT_SECONDS * 2)
    assert world.first() == 6, "when the time has really passed"
    assert len(doubts(caplog)) == 1


def test_a_clock_that_is_set_back_removes_nothing_and_neither_does_setting_it_right(world: World) -> None:
    world.say(5, ts=world.clock())
    retention = world.retention(AGE)
    look_through(world, retention)
    for wrong in (-200, 300, -50):
        world.day_ms += wrong * DAY_MS
        look_through(world, retention, 3 * SWEEP_SECONDS)
        assert world.first() == 1


def test_small_corrections_are_no_doubt_and_add_nothing_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.say(5, ts=world.clock() - 90 * DAY_MS + 3600_000)
    retention = world.retention(AGE)
    for _ in range(50):  # fifty minutes
        world.day_ms -= 2000
        look_through(world, retention, SWEEP_SECONDS / 2)
        world.day_ms += 2000
        look_through(world, retention, SWEEP_SECONDS / 2)
    assert world.first() == 1
    look_through(world, retention, 12 * 60)
    assert world.first() == 6, "the time that has passed is not lost by corrections"
    assert doubts(caplog) == []


def test_what_passed_before_the_start_counts_after_a_doubt(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.say(5, ts=world.clock())
    world.say(5, "old", ts=world.clock() - 90 * DAY_MS)
    world.day_ms += 200 * DAY_MS
    retention = world.retention(AGE, noted=1000 * DAY_MS)
    look_through(world, retention, DOUBT_SECONDS - 1)
    assert (world.first(), world.first("old")) == (1, 6), "what was old already isn't doubted"
    assert doubts(caplog) == [{"ahead": 200 * 86400, "wait": DOUBT_SECONDS}]
    look_through(world, retention, 20)
    assert world.first() == 6


def test_a_clock_that_is_set_right_during_the_doubt_was_not_believed(world: World) -> None:
    world.say(5, ts=world.clock())
    world.day_ms += 200 * DAY_MS
    retention = world.retention(AGE, noted=1000 * DAY_MS)
    look_through(world, retention, DOUBT_SECONDS / 2)
    world.day_ms -= 200 * DAY_MS
    look_through(world, retention, DOUBT_SECONDS)
    world.day_ms += 200 * DAY_MS
    look_through(world, retention, DOUBT_SECONDS * 2)
    assert world.first() == 1


def test_a_database_without_a_note_of_the_time_is_in_doubt_as_a_whole(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It was made by an earlier version, or kept without an age so far."""
    world.say(5, ts=world.clock() - 100 * DAY_MS)
    retention = world.retention(AGE, noted=None)
    look_through(world, retention, DOUBT_SECONDS - 1)
    assert world.first() == 1
    assert doubts(caplog) == [{"ahead": None, "wait": DOUBT_SECONDS}]
    look_through(world, retention, 20)
    assert world.first() == 6
    assert world.store.noted_time() == pytest.approx(world.clock(), abs=60_000)


def test_the_doubt_is_no_longer_than_messages_are_kept(world: World) -> None:
    world.say(5, ts=world.clock() - 100 * DAY_MS)
    retention = world.retention(Retain(seconds=5), noted=None)
    look_through(world, retention, 4)
    assert world.first() == 1
    look_through(world, retention, 2)
    assert world.first() == 6


def test_the_present_is_noted_now_and_then_and_at_the_end(world: World) -> None:
    retention = world.retention(AGE, noted=None)
    retention.step()
    begin = world.clock()
    assert world.store.noted_time() == begin, "a new database knows its time"
    look_through(world, retention, NOTE_MS / 1000 - 61)
    assert world.store.noted_time() == begin
    look_through(world, retention, 180)
    assert begin + NOTE_MS <= (world.store.noted_time() or 0) <= world.clock()
    world.day_ms += 200 * DAY_MS
    retention.close()
    assert world.store.noted_time() == world.clock() - 200 * DAY_MS, "the present, not what the clock says"


def test_while_the_disk_fails_the_time_is_not_noted(world: World) -> None:
    retention = world.retention(AGE, noted=None)
    world.store.trouble = "the disk fails"
    retention.step()
    assert world.store.noted_time() is None
    world.store.trouble = None
    look_through(world, retention)
    assert world.store.noted_time() is not None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the thread."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110  (it tells nobody)
            await trio.sleep(0.005)


@pytest.mark.parametrize("landed", [True, False])
def test_those_who_ask_are_told_of_a_trim_that_was_reported_failed(world: World, landed: bool) -> None:
    world.say(10)
    retention = world.retention(Retain(count=4))
    trim = Log.trim

    def fail(log: Log, firsts: Mapping[str, int]) -> None:
        if landed:
            trim(log, firsts)
        raise sqlite3.OperationalError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "trim", fail)
        retention.step()
    assert (world.trimmed, world.store.trouble is None) == ([], False)
    assert world.store.heal()
    world.drain(retention)
    assert world.first() == 7
    assert world.trimmed[-1] == ("r", 7)


async def test_who_reads_what_is_gone_makes_the_first_id_known(tmp_path: Path) -> None:
    async with open_engine(tmp_path / "chat.db") as engine:
        await fill(engine, 9)
        assert engine._store is not None
        store = engine._store
        assert await engine._thread.call(lambda: store.trim({"r": 6}))  # which the engine isn't told of
        assert engine.first_id("r") == 1
        with pytest.raises(Trimmed) as caught:
            await read(engine, "r", 0, 9, 50)
        assert caught.value.first == engine.first_id("r") == 6


async def test_those_who_ask_are_told(tmp_path: Path) -> None:
    async with open_engine(tmp_path / "chat.db", retain=Retain(count=10)) as engine:
        await fill(engine, 30)
        await until(lambda: engine.first_id("r") == 21)
        with pytest.raises(Trimmed):
            await read(engine, "r", 19, 30, 50)
        page = await history(engine, "r", before=None, after=None, upto=30, limit=50)
        assert (page.messages[0].id, page.more) == (21, False)
        engine.release("r")
        await fill(engine, 20, "other")  # trimmed while the room isn't in use
        engine.release("other")
        path = tmp_path / "chat.db"
        await until(lambda: query(path, "SELECT trimmed FROM room WHERE name = 'other'") == [(10,)])
        await open_room(engine, "other")
        assert engine.first_id("other") == 11
