"""The way out of one connection: a channel that is never full and loses nothing, and the one task that
writes."""

from typing import Any

import pytest
import trio
import trio.testing

from chatroom.connections.ending import Ending
from chatroom.connections.outgoing import CAPACITY
from chatroom.core.errors import CloseCode, Disconnect, Unavailable
from chatroom.core.limits import MAX_UNANSWERED
from chatroom.core.messages import Message, Unknown
from chatroom.core.statistics import Drop
from chatroom.engines.memory import MemoryEngine
from tests.support.harness import BrokerHarness, FakeMember, open_broker

pytestmark = pytest.mark.usefixtures("autojump_clock")

STOP = Disconnect(CloseCode.RESTART, "server is restarting")
PONG = b'{"event":"pong"}'


# The channel


async def test_answers_come_out_in_their_order_as_frames() -> None:
    async with open_broker() as harness:
        alice = harness.fake_member("alice")
        alice.outgoing.answer(b"1")
        alice.outgoing.reply(b"2")
        alice.outgoing.answer(b"3")
        await harness.settle()
        assert alice.transport.taken == b"\x81\x011\x81\x012\x81\x013"


async def test_to_be_woken_often_is_to_be_woken_once_until_it_has_been_heard() -> None:
    async with open_broker() as harness:
        alice = harness.fake_member("alice")
        for _ in range(2):
            for _ in range(CAPACITY + 1):
                alice.outgoing.wake()
            alice.outgoing.answer(b"1")
            await harness.settle()
        assert alice.end.ending is None
        assert alice.transport.taken == b"\x81\x011" * 2


async def test_the_channel_has_place_for_all_that_can_be_under_way() -> None:
    async with open_broker() as harness:
        alice = FakeMember(harness, "alice")
        for _ in range(MAX_UNANSWERED):
            alice.outgoing.answer(b"x")
        alice.outgoing.reply(b"x")
        alice.outgoing.wake()
        assert alice.end.ending is None


async def test_past_that_the_connection_ends_and_the_broker_does_not() -> None:
    async with open_broker() as harness:
        alice = FakeMember(harness, "alice")
        for _ in range(CAPACITY):
            alice.outgoing.answer(b"x")
        assert alice.end.ending is None
        alice.outgoing.reply(b"x")
        assert alice.end.ending == Ending(drop=Drop.INTERNAL_ERROR, hard=True)


async def test_a_further_message_waits_until_fewer_are_under_way() -> None:
    async with open_broker() as harness:
        alice = harness.fake_member("alice", room=0)
        alice.outbound.put(b"\x81\x01-")
        await harness.settle()  # the writer waits for room, so that answers wait in the channel
        out, member = alice.outgoing, alice.member
        await out.wait_room()
        member.outstanding = MAX_UNANSWERED - 1
        await out.wait_room()
        out.answer(b"x")
        with trio.move_on_after(1) as scope:
            await out.wait_room()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.wait_room)
            await trio.testing.wait_all_tasks_blocked()
            out.settled(Unknown())  # but nothing has changed: it looks again, and waits on
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            member.outstanding -= 1
            out.settled(Unknown())
        async with trio.open_nursery() as nursery:
            member.outstanding += 1
            nursery.start_soon(out.wait_room)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            alice.transport.give_room(1000)


@pytest.mark.parametrize("how", ["reply", "opened"])
async def test_the_answer_to_the_other_command_is_known_when_it_is_handed_on(how: str) -> None:
    async with open_broker() as harness:
        alice = harness.fake_member("alice")
        replied = alice.outgoing.expect_reply()
        alice.outgoing.answer(b"of a message")
        await harness.settle()
        assert not replied.is_set()
        if how == "reply":
            alice.outgoing.reply(b"of the command")
            assert not replied.is_set()
            await harness.settle()
        else:
            alice.outgoing.replied()
        assert replied.is_set()
        assert not alice.outgoing.expect_reply().is_set()


async def test_an_opening_that_nobody_waits_for_is_no_trouble() -> None:
    async with open_broker() as harness:
        alice = harness.fake_member("alice")
        alice.outgoing.replied()
        alice.outgoing.settled(Unknown())
        assert alice.end.ending is None


async def test_the_broker_may_ask_for_the_end() -> None:
    async with open_broker() as harness:
        alice = harness.fake_member("alice")
        alice.outgoing.end(Disconnect(CloseCode.INTERNAL_ERROR, "no log"))
        assert alice.end.ending is not None
        assert alice.end.ending.disconnect is not None
        assert alice.end.ending.disconnect.code == CloseCode.INTERNAL_ERROR


@pytest.mark.parametrize("before", ["nothing", "an answer", "a queue", "an end"])
async def test_an_answer_goes_out_at_once_if_nothing_stands_before_it(before: str) -> None:
    async with open_broker() as harness:
        alice = harness.fake_member("alice", room=0 if before == "a queue" else 1 << 20)
        await harness.settle()
        match before:
            case "an answer":
                alice.outgoing.answer(b"1")
            case "a queue":
                alice.outbound.put(b"\x81\x011")
            case "an end":
                alice.end.disconnect(STOP)
        assert alice.outgoing.reply_at_once(PONG) == (before == "nothing")
        assert (PONG in alice.transport.taken) == (before == "nothing")


# The writer


async def behind(harness: BrokerHarness, *texts: str, room: int = 0) -> FakeMember:
    """A fake member who has been let in, then reads nothing while another one speaks."""
    alice, bob = harness.fake_member("alice"), harness.fake_member("bob")
    for fake in (alice, bob):
        await fake.enter("r")
        await harness.settle()
    alice.transport.room = room
    for text in texts:
        await bob.say(text)
    await harness.settle()
    return alice


async def test_answers_go_before_what_the_room_has_to_tell() -> None:
    async with open_broker() as harness:
        alice = await behind(harness, "one", "two", "three", room=5)  # `one` is under way
        alice.outgoing.reply(PONG)
        alice.transport.give_room(1 << 30)
        await harness.settle()
        assert [each["event"] for each in alice.events[2:]] == ["message", "pong", "message", "message"]


async def test_a_peer_that_takes_nothing_ends_the_connection_without_a_word() -> None:
    async with open_broker() as harness:
        start = trio.current_time()
        alice = await behind(harness, "one")
        await trio.sleep(alice.transport.patience + 1)
        assert alice.end.ending == Ending(drop=Drop.STALLED, hard=True)
        assert trio.current_time() - start < 2 * alice.transport.patience


async def test_a_cursor_behind_what_is_kept_ends_the_connection() -> None:
    engine = MemoryEngine(lambda: "e", per_room=2)
    async with open_broker(engine=engine, ring_bytes=0) as harness:
        alice = await behind(harness, *"123456")
        alice.transport.give_room(1 << 30)
        await harness.settle()
        assert alice.end.ending is not None
        assert alice.end.ending.drop == Drop.TOO_FAR_BEHIND


class BlindEngine(MemoryEngine):
    blind = True

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        if self.blind:
            raise Unavailable("no disk")
        return await super().read(*asked, **bounds)


async def test_who_reads_a_log_that_can_not_be_read_for_a_while_waits_and_has_answers_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = BlindEngine(lambda: "e")
    async with open_broker(engine=engine, ring_bytes=0) as harness:
        alice = await behind(harness, "one", "two")
        alice.transport.give_room(1 << 30)
        await trio.sleep(100)
        assert alice.end.ending is None
        alice.outgoing.answer(b'{"event":"an answer"}')
        await trio.sleep(0.1)
        assert alice.events[-1] == {"event": "an answer"}
        assert alice.ids == []
        engine.blind = False
        await trio.sleep(1)
        assert alice.ids == [1, 2]


async def test_a_command_does_not_wait_for_a_log_that_can_not_be_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_broker(engine=BlindEngine(lambda: "e"), ring_bytes=0) as harness:
        alice = await behind(harness, "one", "two")
        alice.transport.give_room(1 << 30)
        await trio.sleep(2)
        alice.outgoing.expect_reply()
        await trio.sleep(0.5)
        assert alice.end.ending is None
        await trio.sleep(1)
        assert alice.end.ending is not None
        assert alice.end.ending.drop == Drop.INTERNAL_ERROR


class StuckEngine(MemoryEngine):
    """Its log says only after a while that it can't be read, as a disk that doesn't answer."""

    async def read(self, *_asked: Any, **_bounds: Any) -> list[Message]:
        await trio.sleep(10)
        raise Unavailable("no disk")


async def test_the_time_of_a_first_look_at_the_log_counts_for_a_command_that_waits_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_broker(engine=StuckEngine(lambda: "e"), ring_bytes=0) as harness:
        alice = await behind(harness, "one", "two")
        alice.outgoing.expect_reply()
        alice.transport.give_room(1 << 30)
        await trio.sleep(10.5)
        assert alice.end.ending is not None
        assert alice.end.ending.drop == Drop.INTERNAL_ERROR


async def test_on_a_broken_connection_answers_are_taken_so_that_what_was_read_is_carried_out() -> None:
    async with open_broker() as harness:
        alice = await behind(harness, "one")
        alice.transport.fail()
        await harness.settle()
        for _ in range(100):
            replied = alice.outgoing.expect_reply()
            alice.outgoing.answer(b"1")
            alice.outgoing.reply(b"2")
            await trio.testing.wait_all_tasks_blocked()
            assert replied.is_set()
        assert alice.end.ending is None, "that is for whoever reads to say"


@pytest.mark.parametrize(("state", "seconds"), [("idle", 0), ("writing", 2), ("reading", 0)])
async def test_an_end_interrupts_whatever_is_waited_for(state: str, seconds: float) -> None:
    async with open_broker(engine=SlowEngine(lambda: "e"), ring_bytes=0) as harness:
        bob = harness.fake_member("bob")
        await bob.enter("r")
        await harness.settle()
        await bob.say("hello")
        await harness.settle()
        alice = FakeMember(harness, "alice", 0 if state == "writing" else 1 << 30)
        alice.patience = 2
        await alice.enter("r" if state == "reading" else "idle")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.outgoing.write)
            await harness.settle()
            start = trio.current_time()
            alice.end.disconnect(STOP)
        assert trio.current_time() - start == pytest.approx(seconds)


class SlowEngine(MemoryEngine):
    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        await trio.sleep_forever()
        return []


async def test_a_writer_that_was_told_to_end_before_it_began_writes_nothing() -> None:
    async with open_broker() as harness:
        alice = FakeMember(harness, "alice")
        alice.end.disconnect(STOP)
        await alice.enter("r")
        await harness.settle()
        await alice.outgoing.write()
        assert alice.events == []
