"""Visits: how long a room is in use for them, and that no wait is too long."""

import pytest
import trio
import trio.testing

from chatroom.auth.rights import Rights
from chatroom.connections.timers import Timers
from chatroom.connections.visitor import ANSWER_SECONDS, LOOK_SECONDS, Patience, Visits
from chatroom.core.errors import replaced_room
from chatroom.core.messages import Message, Unknown
from chatroom.rooms.broker import INBOX
from chatroom.rooms.entries import Barrier
from chatroom.rooms.room import NO_RIGHTS
from tests.support.engines import HeldEngine
from tests.support.harness import BrokerHarness, open_broker

pytestmark = pytest.mark.usefixtures("autojump_clock")

ALL = Rights.everything()


def patience(nursery: trio.Nursery) -> Patience:
    timers = Timers()
    nursery.start_soon(timers.run)
    return Patience(timers.add)


async def test_a_visit_goes_on_for_the_same_room_and_name() -> None:
    async with open_broker() as harness:
        visits = Visits(harness.broker)
        visitor = await visits.begin("alice", "r", ALL)
        assert await visits.begin("alice", "r", ALL) is visitor
        for name, room, rights in (("bob", "r", ALL), ("bob", "s", ALL), ("bob", "s", NO_RIGHTS)):
            other = await visits.begin(name, room, rights)
            assert other is not visitor
            visitor = other
        await harness.settle()
        assert [harness.rooms.get(room) is not None for room in ("r", "s")] == [False, True]
        visits.end()
        visits.end()
        await harness.settle()
        assert len(harness.rooms) == 0


async def test_a_visit_ends_with_the_room_s_log() -> None:
    async with open_broker() as harness:
        visits = Visits(harness.broker)
        visitor = await visits.begin("alice", "r", ALL)
        harness.rooms.renew(visitor.room, replaced_room())
        other = await visits.begin("alice", "r", ALL)
        assert other.room is not visitor.room
        await harness.settle()
        assert visitor.room.refcount == 0


async def test_a_draft_outlives_the_visit() -> None:
    engine = HeldEngine()
    async with open_broker(engine=engine) as harness, trio.open_nursery() as nursery:
        visits = Visits(harness.broker)
        visitor = await visits.begin("alice", "r", ALL)
        with trio.move_on_after(1):
            await visitor.post("hi", None, None, patience(nursery))
        visits.end()
        await trio.testing.wait_all_tasks_blocked()
        assert (harness.rooms.outstanding, visitor.room.refcount) == (1, 1)
        engine.go.set()
        await harness.settle()
        assert (harness.rooms.outstanding, len(harness.rooms), visitor.room.head) == (0, 0, 1)
        nursery.cancel_scope.cancel()


async def test_nobody_waits_forever() -> None:
    async with open_broker(engine=HeldEngine()) as harness, trio.open_nursery() as nursery:
        shared, outcomes = patience(nursery), []

        async def post(after: float) -> None:
            await trio.sleep(after)
            began = trio.current_time()
            visitor = await Visits(harness.broker).begin("alice", "r", ALL)
            outcomes.append((await visitor.post("hi", None, None, shared), trio.current_time() - began))

        async with trio.open_nursery() as posts:
            for number in range(5):
                posts.start_soon(post, number * 0.3)
        assert all(outcome == Unknown() for outcome, _ in outcomes)
        assert all(ANSWER_SECONDS <= spent <= ANSWER_SECONDS + LOOK_SECONDS for _, spent in outcomes)
        nursery.cancel_scope.cancel()


async def test_a_full_inbox_is_not_waited_for_long() -> None:
    engine = HeldEngine()
    async with trio.open_nursery() as nursery:
        harness = BrokerHarness(nursery, engine=engine)
        visits = Visits(harness.broker)
        async with trio.open_nursery() as opening:
            opening.start_soon(visits.begin, "alice", "r", ALL)
            await trio.testing.wait_all_tasks_blocked()
            harness.broker.pump()
            harness.broker.pump()
        visitor = await visits.begin("alice", "r", ALL)
        for _ in range(INBOX):
            assert harness.broker.submit_nowait(Barrier(trio.Event()))
        assert await visitor.post("hi", None, None, patience(nursery)) == Unknown()
        assert (visitor.member.outstanding, len(harness.rooms.visitors)) == (0, 0)
        nursery.cancel_scope.cancel()


async def test_no_timer_is_left_when_nobody_waits() -> None:
    async with open_broker() as harness, trio.open_nursery() as nursery:
        timers = Timers()
        nursery.start_soon(timers.run)
        visitor = await Visits(harness.broker).begin("alice", "r", ALL)
        shared = Patience(timers.add)
        for _ in range(100):
            assert isinstance(await visitor.post("hi", None, None, shared), Message)
            assert len(timers) == 1
        await trio.sleep(2 * LOOK_SECONDS)
        assert len(timers) == 0
        nursery.cancel_scope.cancel()
