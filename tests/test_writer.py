"""The one task that waits for a socket to take bytes: what it writes first, and what ends or stops it."""

import pytest
import trio
import trio.testing

from chatroom.adapters.memory import MemoryEngine
from chatroom.tasks.ending import Ending
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect, Unavailable
from chatroom.values.messages import Message
from chatroom.values.statistics import Drop
from tests.support.hall import Guest, Hall, open_hall

pytestmark = pytest.mark.usefixtures("autojump_clock")

STOP = Disconnect(CloseCode.RESTART, "server is restarting")


async def behind(hall: Hall, *texts: str, room: int = 0) -> Guest:
    """A guest who has been let in, then reads nothing while another one speaks."""
    alice, bob = hall.guest("alice"), hall.guest("bob")
    await alice.enter("r")
    await bob.enter("r")
    await hall.settle()
    alice.transport.room = room
    for text in texts:
        await bob.say(text)
    await hall.settle()
    return alice


async def test_answers_go_before_what_the_room_has_to_tell() -> None:
    async with open_hall() as hall:
        alice = await behind(hall, "one", "two", "three", room=5)  # `one` is under way
        alice.outlet.reply(b'{"event":"pong"}')
        alice.transport.give_room(1 << 30)
        await hall.settle()
        assert [each["event"] for each in alice.events[2:]] == ["message", "pong", "message", "message"]


async def test_a_peer_that_takes_nothing_ends_the_connection_without_a_word() -> None:
    async with open_hall() as hall:
        start = trio.current_time()
        alice = await behind(hall, "one")
        await trio.sleep(alice.transport.patience + 1)
        assert alice.end.ending == Ending(drop=Drop.STALLED, hard=True)
        assert trio.current_time() - start < 2 * alice.transport.patience


async def test_a_cursor_behind_what_is_kept_ends_the_connection() -> None:
    engine = MemoryEngine(lambda: "e", per_room=2)
    async with open_hall(engine=engine, ring_bytes=0) as hall:
        alice = await behind(hall, *"123456")
        alice.transport.give_room(1 << 30)
        await hall.settle()
        assert alice.end.ending is not None
        assert alice.end.ending.drop == Drop.TOO_FAR_BEHIND


class BlindEngine(MemoryEngine):
    async def read(self, room: str, after: int, upto: int, limit: int) -> list[Message]:
        raise Unavailable("no disk")


async def test_a_log_that_can_not_be_read_ends_the_connection() -> None:
    async with open_hall(engine=BlindEngine(lambda: "e"), ring_bytes=0) as hall:
        alice = await behind(hall, "one", "two")
        alice.transport.give_room(1 << 30)
        await hall.settle()
        assert alice.end.ending is not None
        assert alice.end.ending.drop == Drop.INTERNAL_ERROR


async def test_on_a_broken_connection_answers_are_taken_so_that_the_reader_can_go_on() -> None:
    async with open_hall() as hall:
        alice = await behind(hall, "one")
        alice.transport.fail()
        await hall.settle()
        for _ in range(100):
            replied = alice.outlet.expect_reply()
            alice.outlet.answer(b"1")
            alice.outlet.reply(b"2")
            await hall.settle()
            assert replied.is_set()
        assert alice.end.ending is None, "that is the reader's to say"


@pytest.mark.parametrize(("state", "seconds"), [("idle", 0), ("writing", 2), ("reading", 0)])
async def test_an_end_interrupts_whatever_is_waited_for(state: str, seconds: float) -> None:
    async with open_hall(engine=SlowEngine(lambda: "e"), ring_bytes=0) as hall:
        bob = hall.guest("bob")
        await bob.enter("r")
        await hall.settle()
        await bob.say("hello")
        await hall.settle()
        alice = Guest(hall, "alice", 0 if state == "writing" else 1 << 30)
        alice.end.listen(lambda _: alice.writer.interrupt(2))
        await alice.enter("idle" if state == "idle" else "r")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.writer.write)
            await hall.settle()
            start = trio.current_time()
            alice.end.disconnect(STOP)
        assert trio.current_time() - start == pytest.approx(seconds)


class SlowEngine(MemoryEngine):
    async def read(self, room: str, after: int, upto: int, limit: int) -> list[Message]:
        await trio.sleep_forever()
        return []


async def test_a_writer_that_was_told_to_end_before_it_began_writes_nothing() -> None:
    async with open_hall() as hall:
        alice = Guest(hall, "alice")
        alice.end.disconnect(STOP)
        await alice.enter("r")
        await hall.settle()
        await alice.writer.write()
        assert alice.events == []
