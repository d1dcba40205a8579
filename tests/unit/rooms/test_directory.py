"""Which rooms there are: what the store says, and what is newer here."""

from collections.abc import Sequence
from typing import ClassVar

import pytest
import trio

from chatroom.auth.rights import Access, Rights
from chatroom.core.errors import Unavailable
from chatroom.core.messages import RoomSummary
from chatroom.engines.memory import MemoryEngine
from chatroom.protocol.events import ListedRoom
from chatroom.rooms.directory import page_of
from tests.support.harness import arrive, open_broker

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Counting(MemoryEngine):
    """Counts how often all rooms are read, which takes `seconds`."""

    reads = 0
    seconds = 0.0
    away = False

    async def summaries(self) -> list[RoomSummary]:
        self.reads += 1
        await trio.sleep(self.seconds)
        if self.away:
            raise Unavailable("away")
        return await super().summaries()


def names(listed: Sequence[ListedRoom]) -> list[str]:
    return [each.room for each in listed]


async def test_rooms_with_messages_or_members_are_listed_the_latest_first() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice", room="old")
        await alice.say("hi")
        await harness.settle()
        alice.leave()
        harness.now_ms += 1000
        bob, _ = await arrive(harness, "bob", "bob", room="new")
        await bob.say("hi")
        await bob.say("ho")
        await arrive(harness, "carol", room="silent")
        await bob.follow("followed")
        await harness.settle()
        assert await harness.rooms.directory.list() == [
            ListedRoom("new", 1, 2, harness.now_ms),
            ListedRoom("old", 0, 1, harness.now_ms - 1000),
            ListedRoom("silent", 1, 0, 0),
        ]


async def test_the_store_is_asked_once_a_second_and_what_happens_meanwhile_is_known() -> None:
    engine = Counting(lambda: "e")
    async with open_broker(engine=engine) as harness:
        (alice,) = await arrive(harness, "alice", room="a")
        await alice.say("hi")
        await harness.settle()
        assert names(await harness.rooms.directory.list()) == ["a"]
        (bob,) = await arrive(harness, "bob", room="b")
        await bob.say("hi")
        await harness.settle()
        bob.leave()
        await harness.settle()
        assert names(await harness.rooms.directory.list()) == ["a", "b"]
        assert engine.reads == 1
        await trio.sleep(1.1)
        assert names(await harness.rooms.directory.list()) == ["a", "b"]
        assert engine.reads == 2


async def test_who_asks_at_once_shares_one_reading_and_a_slow_one_is_used_for_longer() -> None:
    engine = Counting(lambda: "e")
    engine.seconds = 2.0
    async with open_broker(engine=engine) as harness:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(harness.rooms.directory.list)
        assert engine.reads == 1
        await trio.sleep(19)
        await harness.rooms.directory.list()
        assert engine.reads == 1
        await trio.sleep(2)
        await harness.rooms.directory.list()
        assert engine.reads == 2


async def test_a_store_that_cannot_be_read_is_asked_again() -> None:
    engine = Counting(lambda: "e")
    engine.away = True
    async with open_broker(engine=engine) as harness:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await harness.rooms.directory.list()
        engine.away = False
        assert await harness.rooms.directory.list() == []
        assert engine.reads == 3


async def test_who_waits_for_a_store_that_cannot_be_read_waits_once() -> None:
    engine = Counting(lambda: "e")
    engine.away, engine.seconds = True, 3.0
    failed = []

    async with open_broker(engine=engine) as harness:

        async def ask() -> None:
            with pytest.raises(Unavailable):
                await harness.rooms.directory.list()
            failed.append(trio.current_time())

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert failed == [start + 3.0] * 5
        assert engine.reads == 1


async def test_who_waits_for_one_that_is_going_reads_for_itself() -> None:
    engine = Counting(lambda: "e")
    engine.seconds = 3.0
    async with open_broker(engine=engine) as harness:
        with trio.CancelScope() as going:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(harness.rooms.directory.list)
                await trio.sleep(1)
                going.cancel()
        assert await harness.rooms.directory.list() == []
        assert engine.reads == 2


async def test_very_many_rooms_that_come_and_go_are_not_remembered() -> None:
    engine = Counting(lambda: "e")
    async with open_broker(engine=engine) as harness:
        await harness.rooms.directory.list()
        for number in range(1001):
            (fake,) = await arrive(harness, "alice", room=f"room-{number}")
            await fake.say("hi")
            await harness.settle()
            fake.leave()
            await harness.settle()
        assert len(await harness.rooms.directory.list()) == 1001
        assert engine.reads == 2


LISTED = [ListedRoom(name, 0, 1, 1) for name in "abcdef"]


@pytest.mark.parametrize(
    ("after", "limit", "expected", "more"),
    [
        (None, 50, "abcdef", False),
        (None, 6, "abcdef", False),
        (None, 2, "ab", True),
        ("b", 2, "cd", True),
        ("d", 2, "ef", False),
        ("f", 2, "", False),
    ],
)
def test_a_page_of_the_list(after: str | None, limit: int, expected: str, more: bool) -> None:
    page, there_is_more = page_of(LISTED, Rights.everything(), after, limit)
    assert (names(page), there_is_more) == (list(expected), more)


def test_only_what_may_be_read_is_listed() -> None:
    rights = Rights.parse({"a": "r", "b": "w", "c": "rw", "e": "m"})
    assert page_of(LISTED, rights, None, 1) == ([LISTED[0]], True)
    assert page_of(LISTED, rights, "a", 1) == ([LISTED[2]], False)


class Asked(Rights):
    """Remembers of which rooms it was asked."""

    asked: ClassVar[list[str]] = []

    def can(self, room: str, access: Access) -> bool:
        self.asked.append(room)
        return super().can(room, access)


def test_rights_are_asked_of_no_more_rooms_than_the_page_needs() -> None:
    rights = Asked.everything()
    listed = [ListedRoom(f"room{number}", 0, 1, 1) for number in range(1000)]
    assert len(page_of(listed, rights, "room500", 3)[0]) == 3
    assert rights.asked == ["room500", "room501", "room502", "room503", "room504"]


@pytest.mark.parametrize("after", ["zz", "b"])
def test_a_place_that_is_not_there_is_said(after: str) -> None:
    with pytest.raises(LookupError):
        page_of(LISTED, Rights.parse({"a": "r"}), after, 1)
