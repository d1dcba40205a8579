"""A connection from its handshake to its end, over a transport in memory and on the virtual clock."""

from dataclasses import replace
from struct import pack
from typing import Any

import pytest
import trio
import trio.testing

from chatroom.connections.authorization import WITHDRAWN
from chatroom.connections.connection import (
    CATCH_UP_SECONDS,
    CLOSE_SECONDS,
    LINGER_SECONDS,
)
from chatroom.connections.ending import CLIENT_LEFT, Ending
from chatroom.connections.outgoing import LAST_SECONDS
from chatroom.core.errors import CloseCode, Disconnect, Unavailable
from chatroom.core.messages import Message
from chatroom.core.statistics import Drop
from chatroom.engines.memory import MemoryEngine
from tests.support.client_frames import BINARY, CLOSE, HANDSHAKE, PING, PONG, TEXT, Frame, head, masked
from tests.support.engines import Answered, HeldEngine
from tests.support.line import LIMITS, Caller, House, command, open_house, say
from tests.support.memory_transport import MemoryTransport

pytestmark = pytest.mark.usefixtures("autojump_clock")

RESTART = Disconnect(CloseCode.RESTART, "server is restarting")


def closing(code: int | None = 1000, reason: str = "") -> bytes:
    return masked(CLOSE, b"" if code is None else pack("!H", code) + reason.encode())


async def idle(seconds: float = 0.01) -> None:
    """Let time pass; by itself enough for presence to be told, which waits for a moment."""
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def tell(house: House, *texts: str, username: str = "bob", room: str = "r") -> None:
    """Somebody else says something, and is gone again."""
    other = await house.call(username, room=room)
    await other.send(*[say(text) for text in texts])
    other.transport.arrive_end()
    await trio.testing.wait_all_tasks_blocked()


# The beginning


async def test_who_comes_in_is_welcomed_and_hears_its_own_echo() -> None:
    async with open_house() as house:
        alice = await house.call("alice")
        assert alice.answer.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in alice.answer
        await alice.send(say("hi", "c1"))
        welcome, echo = alice.events
        assert welcome["data"] == {"message": "Welcome to #r, alice!", "members": []}
        assert (echo["data"], echo["cid"]) == ({"username": "alice", "text": "hi"}, "c1")
        assert alice.ending is None


@pytest.mark.parametrize("asked", [True, False])
async def test_the_subprotocol_is_answered_if_it_was_asked_for(asked: bool) -> None:
    offer = b"\r\nSec-WebSocket-Protocol: chatroom.v1\r\n\r\n"
    handshake = HANDSHAKE.replace(b"\r\n\r\n", offer)
    async with open_house() as house:
        alice = await house.call(handshake=handshake, subprotocol="chatroom.v1" if asked else None)
        assert (b"chatroom.v1" in alice.answer) == asked


async def test_frames_that_came_along_with_the_handshake_are_not_lost() -> None:
    async with open_house() as house:
        alice = await house.call(early=say("one") + say("two"))
        assert alice.texts == ["one", "two"]


async def test_frames_that_were_read_along_with_the_handshake_are_not_left_lying() -> None:
    async with open_house() as house:
        transport = MemoryTransport()
        transport.ahead = say("one") + say("two")
        alice = await house.call(transport=transport, early=say("zero"))
        assert alice.texts == ["zero", "one", "two"]
        transport.ahead = b""
        await alice.send(say("three"))
        assert alice.texts[-1] == "three"


async def test_a_client_resumes_where_it_says_that_it_is() -> None:
    async with open_house() as house:
        first = await house.call("carol")
        await tell(house, *map(str, range(9)))
        epoch = first.events[0]["epoch"]
        alice = await house.call(since=7, epoch=epoch)
        assert (alice.events[0]["recovered"], alice.events[0]["replay"]) == (True, 2)
        assert alice.texts == ["7", "8"]


async def test_a_handshake_whose_answer_nobody_takes_is_given_up() -> None:
    async with open_house() as house:
        start = trio.current_time()
        alice = await house.call(transport=MemoryTransport(room=10))
        await idle(alice.transport.patience + 1)
        assert alice.over_at == pytest.approx(start + alice.transport.patience)
        assert alice.ending == Ending(drop=Drop.STALLED, hard=True)
        assert alice.transport.aborted
        assert house.names_in("r") == []


async def test_a_handshake_that_breaks_off_is_no_fault_of_ours() -> None:
    async with open_house() as house:
        transport = MemoryTransport()
        transport.fail()
        alice = await house.call(transport=transport)
        await idle(1)
        assert (alice.error, alice.over_at is not None) == (None, True)
        assert alice.ending is not None
        assert len(house.harness.rooms) == 0


# The client ends it


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999, None])
async def test_a_close_of_the_client_is_answered_and_is_no_drop(code: int | None) -> None:
    async with open_house() as house:
        alice, bob = await house.call("alice"), await house.call("bob")
        start = trio.current_time()
        await alice.send(say("bye"), closing(code, "" if code is None else "that's all"))
        assert alice.ending == CLIENT_LEFT
        assert alice.over_at == start, "nothing is waited for"
        assert alice.closed_with is not None
        assert alice.closed_with[0] == (1005 if code is None else code)
        assert (alice.transport.closed, alice.transport.aborted) == (True, False)
        await idle()
        assert [each["event"] for each in bob.events] == ["welcome", "message", "left"]


async def test_a_close_that_comes_before_the_first_frame_is_out_is_answered() -> None:
    async with open_house() as house:
        alice = await house.call(early=closing(1000))
        assert alice.ending == CLIENT_LEFT
        assert alice.closed_with == (1000, "")
        assert house.names_in("r") == []


async def test_what_comes_behind_a_close_frame_is_ignored() -> None:
    async with open_house() as house:
        alice = await house.call()
        await alice.send(say("one"), closing(1000), say("two"), masked(PING))
        assert alice.ending == CLIENT_LEFT
        await tell(house, "still here")
        assert house.harness.rooms.messages == 2


async def test_the_end_of_the_stream_is_a_client_that_left() -> None:
    async with open_house() as house:
        alice, bob = await house.call("alice"), await house.call("bob")
        await alice.send(say("one"), say("two"))
        alice.transport.arrive_end()
        await idle()
        assert alice.ending == CLIENT_LEFT
        assert alice.transport.closed
        assert bob.texts == ["one", "two"]
        assert house.names_in("r") == ["bob"]


async def test_a_reset_is_counted_as_a_broken_connection_and_tells_nobody_but_the_room() -> None:
    async with open_house() as house:
        alice, bob = await house.call("alice"), await house.call("bob")
        alice.transport.fail()
        await idle()
        assert alice.ending == Ending(drop=Drop.BROKEN, hard=True)
        assert alice.transport.aborted
        assert bob.events[-1]["event"] == "left"


async def test_what_was_read_is_carried_out_though_nothing_can_be_written_any_more() -> None:
    """The reader's end decides, not the writer's failure; more is on its way here than may be under way."""
    engine = HeldEngine()
    async with open_house(engine=engine) as house:
        alice, bob = await house.call("alice"), await house.call("bob")
        await alice.send(*[say(str(number)) for number in range(40)])
        alice.transport.fail()
        await idle(1)
        engine.go.set()
        await idle()
        assert bob.texts == [str(number) for number in range(40)]
        assert alice.ending == Ending(drop=Drop.BROKEN, hard=True)
        assert [each["event"] for each in bob.events[-2:]] == ["message", "left"]


@pytest.mark.parametrize("number", [1, 2, 3, 150])
async def test_pings_that_can_not_be_answered_any_more_end_nothing_late(number: int) -> None:
    """The library leaves at the first that it can't answer; what it had not seen yet must not keep it."""
    async with open_house() as house:
        alice, bob = await house.call("alice"), await house.call("bob")
        alice.transport.room = 0
        start = trio.current_time()
        await alice.send(masked(PING) * number, say("behind"))
        alice.transport.fail()
        await idle()
        assert alice.ending == Ending(drop=Drop.BROKEN, hard=True)
        assert alice.over_at == start
        assert bob.events[-1]["event"] == "left"


@pytest.mark.parametrize("behind", [b"", masked(PING) * 3, command("members"), closing(1000)])
@pytest.mark.parametrize("number", [1, 40, 200])
async def test_who_is_reset_while_the_broker_hangs_is_not_waited_for(number: int, behind: bytes) -> None:
    async with open_house(engine=HeldEngine()) as house:
        alice = await house.call("alice")
        await alice.send(*[say(str(number)) for number in range(number)], behind)
        start = trio.current_time()
        alice.transport.fail()
        await idle(LIMITS.ping_interval + LIMITS.ping_timeout)
        assert alice.ending in (Ending(drop=Drop.BROKEN, hard=True), CLIENT_LEFT)
        assert alice.over_at is not None
        assert alice.over_at - start <= LIMITS.ping_interval + LAST_SECONDS
        assert alice.transport.closed or alice.transport.aborted


async def test_who_vanishes_while_the_broker_hangs_is_silent() -> None:
    """Nobody reads, so no answer can come; but that our pings don't arrive is seen."""
    async with open_house(engine=HeldEngine()) as house:
        alice = await house.call("alice")
        await alice.send(*[say(str(number)) for number in range(200)])
        await idle(1000)
        assert alice.ending is None
        alice.transport.unconfirmed = 2
        await idle(LIMITS.ping_interval + LIMITS.ping_timeout)
        assert alice.ending == Ending(drop=Drop.SILENT, hard=True)


async def test_what_was_paced_is_not_dripped_on_for_a_client_that_is_gone() -> None:
    limits = replace(LIMITS, message_rate=0.1, message_burst=1)
    async with open_house(pace=(0.1, 1)) as house:
        alice, bob = await house.call("alice", limits=limits), await house.call("bob")
        await alice.send(*[say(str(number)) for number in range(8)])
        alice.transport.fail()
        await idle(11)
        assert alice.ending == Ending(drop=Drop.BROKEN, hard=True)
        assert bob.texts == ["0"]
        assert bob.events[-1]["event"] == "left"


async def test_a_switch_and_messages_that_were_read_are_carried_out_on_a_broken_connection() -> None:
    async with open_house() as house:
        bob, carol = await house.call("bob", room="a"), await house.call("carol", room="b")
        transport = MemoryTransport()
        alice = await house.call("alice", room="a", transport=transport)
        transport.arrive(say("one") + command("switch_room", room="b") + say("two") + command("members", "m"))
        await trio.lowlevel.checkpoint()
        transport.room = 0
        transport.fail()
        await idle(1)
        assert alice.ending == Ending(drop=Drop.BROKEN, hard=True)
        assert house.names_in("a") == ["bob"]
        assert house.names_in("b") == ["carol"]
        for other in (bob, carol):
            assert other.events[-1]["event"] in {"left", "welcome"}


async def lag(house: House, caller: Caller) -> None:
    """Let the caller fall behind in room `a`, where bob speaks."""
    bob = await house.call("bob", room="a")
    caller.transport.room = 0
    await bob.send(say("hello"), say("again"))
    await idle()
    assert not caller.member.subscriptions[0].live


async def test_a_message_behind_a_switch_is_never_told_to_the_old_room() -> None:
    async with open_house() as house:
        carol, dave = await house.call("carol", room="a"), await house.call("dave", room="b")
        alice = await house.call("alice", room="a")
        await lag(house, alice)
        alice.transport.arrive(command("switch_room", room="b") + say("for b only"))
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        alice.transport.fail()
        await idle(1)
        assert carol.texts == ["hello", "again"]
        assert dave.texts in ([], ["for b only"])
        assert alice.ending is not None


async def test_commands_left_by_a_client_that_broke_off_in_a_switch_can_not_stop_the_broker() -> None:
    engine = HeldEngine()
    engine.go.set()
    async with open_house(engine=engine) as house:
        carol, dave = await house.call("carol", room="a"), await house.call("dave", room="b")
        alice = await house.call("alice", room="a")
        await lag(house, alice)
        engine.go = trio.Event()
        await carol.send(say("in flight"))
        await alice.send(command("switch_room", room="b"), say("for b only"), *[command("members")] * 10)
        alice.transport.fail()
        await trio.testing.wait_all_tasks_blocked()
        engine.go.set()
        await idle(1)
        assert carol.texts == ["hello", "again", "in flight"]
        assert dave.texts in ([], ["for b only"])
        assert alice.ending is not None
        assert (house.names_in("a"), house.names_in("b")) == (["bob", "carol"], ["dave"])


# Frames that end it


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (masked(3, b"x"), 1002, "protocol error"),
        (head(TEXT, 5, mask=False) + b"hello", 1002, "protocol error"),
        (head(TEXT, 5, bits=4) + b"\0\0\0\0hello", 1002, "protocol error"),
        (head(PING, 126) + b"\0" * 130, 1002, "protocol error"),
        (masked(0, b"x"), 1002, "protocol error"),
        (closing(999), 1002, "protocol error"),
        (closing(1005), 1002, "protocol error"),
        (closing(5000), 1002, "protocol error"),
        (masked(CLOSE, b"\x03"), 1002, "protocol error"),
        (masked(TEXT, b"\xff"), 1007, "text is not UTF-8"),
        (masked(TEXT, b"\xed\xa0\x80"), 1007, "text is not UTF-8"),
        (masked(BINARY, b"x"), 1003, "binary"),
        (head(TEXT, 64 * 1024 + 1), 1009, "more than 65536 bytes"),
        (masked(TEXT, b"", fin=False) + masked(0, b"", fin=False) * 64, 1008, "more than 64 fragments"),
        (masked(PING) * 201, 1008, "control frames"),
        (b"".join([masked(TEXT, b"nonsense")] * 11), 1008, "too many malformed frames"),
    ],
)
async def test_a_frame_that_breaks_the_rules_ends_the_connection_with_code_and_reason(
    data: bytes, code: int, word: str
) -> None:
    async with open_house() as house:
        alice, bob = await house.call("alice"), await house.call("bob")
        await alice.send(data)
        assert alice.closed_with is not None
        assert alice.closed_with[0] == code
        assert word in alice.closed_with[1] or code == 1002
        assert len(alice.closed_with[1]) > 0, "a person at a terminal sees why"
        alice.transport.arrive_end()
        await idle()
        assert alice.ending is not None
        assert alice.ending.drop == Drop.of(CloseCode(code))
        assert (alice.transport.closed, alice.transport.aborted) == (True, False)
        assert bob.events[-1] == {"event": "left", "data": {"username": "alice"}, "room": "r"}


async def test_a_client_that_does_not_answer_our_close_is_not_waited_for_long() -> None:
    async with open_house() as house:
        alice = await house.call()
        start = trio.current_time()
        await alice.send(masked(BINARY, b"x"), say("more"))
        await idle(CLOSE_SECONDS + 1)
        assert alice.over_at is not None
        assert 1 <= alice.over_at - start <= 2 * CLOSE_SECONDS
        assert alice.transport.closed


@pytest.mark.parametrize(("why", "seconds"), [(RESTART, LINGER_SECONDS), (WITHDRAWN, 11.5)])
async def test_only_a_restart_waits_for_no_close_frame_to_arrive(why: Disconnect, seconds: float) -> None:
    """Of very many clients a few have vanished; the others are not to wait for these."""
    async with open_house() as house:
        alice = await house.call("alice")
        alice.transport.unconfirmed = 5000
        start = trio.current_time()
        alice.end.disconnect(why)
        await idle(20)
        assert alice.closed_with == (why.code, why.reason)
        assert alice.over_at == pytest.approx(start + seconds, abs=0.6)
        assert alice.transport.aborted


async def test_who_cancels_does_not_wait_until_a_close_frame_has_arrived() -> None:
    async with open_house() as house, trio.open_nursery() as nursery:
        other = House(house.harness, nursery, (0, 1))
        alice = await other.call("alice")
        alice.transport.unconfirmed = 5000
        start = trio.current_time()
        alice.end.disconnect(WITHDRAWN)
        await idle(5)
        assert alice.over_at is None
        nursery.cancel_scope.cancel()
        await idle()
        assert alice.over_at == pytest.approx(start + 5, abs=0.1)
        assert alice.transport.aborted


async def test_a_close_frame_that_nobody_takes_is_not_waited_for_long() -> None:
    async with open_house() as house:
        alice = await house.call()
        alice.transport.room = 1
        start = trio.current_time()
        await alice.send(masked(BINARY, b"x"))
        await idle(3 * CLOSE_SECONDS)
        assert alice.over_at is not None
        assert alice.over_at - start <= 2 * CLOSE_SECONDS
        assert alice.transport.aborted


async def test_a_message_that_does_not_end_is_not_waited_for() -> None:
    async with open_house() as house:
        alice = await house.call()
        await alice.send(masked(TEXT, b"abc", fin=False))
        for _ in range(9):
            await trio.sleep(1)
            await alice.send(masked(PONG))
        assert alice.closed_with is None
        await idle(1.5)
        assert alice.closed_with == (1008, "message not finished in 10 seconds")


async def test_one_that_does_not_end_behind_many_that_wait_their_turn_has_its_time_from_when_we_read_on() -> (
    None
):
    async with open_house(pace=(5, 20)) as house:
        alice = await house.call(limits=replace(LIMITS, message_rate=5, message_burst=20))
        await alice.send(*[say("x")] * 42, masked(TEXT, b"abc")[:3])
        await idle(10.5)  # of which the socket isn't read for one second
        assert (len(alice.texts), alice.closed_with) == (42, None)
        await idle(1)
        assert alice.closed_with == (1008, "message not finished in 10 seconds")


# The keepalive


def pings(caller: Caller) -> int:
    return caller.frames.count(Frame(PING, b""))


async def test_a_silent_peer_is_pinged_and_dropped_when_it_does_not_answer() -> None:
    async with open_house() as house:
        alice, bob = (
            await house.call("alice"),
            await house.call("bob", limits=replace(LIMITS, ping_interval=1e6)),
        )
        await idle(19)
        assert pings(alice) == 0
        await idle(2)
        assert pings(alice) == 1
        await idle(18)
        assert alice.ending is None
        await idle(2)
        assert alice.ending == Ending(drop=Drop.SILENT, hard=True)
        assert (alice.transport.aborted, alice.closed_with) == (True, None)
        assert bob.events[-1]["event"] == "left"


async def test_a_peer_that_answers_stays_for_ever() -> None:
    async with open_house() as house:
        alice = await house.call()
        for number in range(10):
            await idle(20.1)
            assert pings(alice) == number + 1
            await alice.send(masked(PONG))
        assert alice.ending is None


async def test_any_byte_is_a_sign_of_life() -> None:
    async with open_house() as house:
        alice = await house.call()
        for _ in range(10):
            await idle(15)
            await alice.send(command("ping"))
        assert alice.ending is None
        assert Frame(PING, b"") not in alice.frames


async def test_a_paced_client_is_not_dropped_for_a_silence_of_ours() -> None:
    limits = replace(LIMITS, message_rate=0.01, message_burst=1)
    async with open_house(pace=(0.01, 1)) as house:
        alice = await house.call(limits=limits)
        # More than the reader's queue and one read hold: the pong lies behind what isn't read.
        await alice.send(*[say(f"{number:-<3000}") for number in range(60)])
        await idle(1000)
        assert alice.ending is None
        assert len(alice.texts) == 11


# Slow peers


async def test_a_peer_that_takes_nothing_is_dropped_for_lack_of_progress() -> None:
    async with open_house() as house:
        alice = await house.call()
        alice.transport.room = 0
        start = trio.current_time()
        await tell(house, "hello")
        await idle(9)
        assert alice.ending is None
        await idle(2)
        assert alice.ending == Ending(drop=Drop.STALLED, hard=True)
        assert alice.over_at == pytest.approx(start + 10)
        assert alice.transport.aborted


async def test_a_peer_that_takes_little_but_goes_on_is_kept_and_gets_all() -> None:
    async with open_house() as house:
        alice = await house.call(limits=replace(LIMITS, ping_interval=1e6))
        alice.transport.room = 0
        texts = [f"{number:-<100}" for number in range(20)]
        await tell(house, *texts)
        while len(alice.texts) < 20:
            await idle(9)
            assert alice.ending is None
            alice.transport.give_room(300)
        assert alice.texts == texts


async def test_a_reader_too_far_behind_is_told_so() -> None:
    async with open_house(engine=MemoryEngine(lambda: "e", per_room=5), ring_bytes=0) as house:
        alice = await house.call()
        alice.transport.room = 20
        await tell(house, *map(str, range(30)))
        alice.transport.give_room(1 << 30)
        await idle()
        assert alice.closed_with == (4008, "too far behind")
        assert alice.ending is None
        await alice.send(closing(4008))
        assert alice.ending == Ending(alice.ending.disconnect, Drop.TOO_FAR_BEHIND)


class BlindEngine(MemoryEngine):
    """Stores, and can't read what it has stored."""

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        raise Unavailable("no disk")


async def test_a_log_that_can_not_be_read_is_our_fault_and_is_said(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(engine=BlindEngine(lambda: "e"), ring_bytes=0) as house:
        await tell(house, "one")
        carol = await house.call("carol")
        await tell(house, "two")
        assert carol.closed_with is None or carol.closed_with[0] == 1011
        alice = await house.call("alice")
        await trio.sleep(3.5)
        assert alice.closed_with == (1011, "the log can't be read now")
        await alice.send(closing(1011))
        assert alice.ending == Ending(alice.ending.disconnect, Drop.INTERNAL_ERROR)


class LockedEngine(MemoryEngine):
    """Can't open anything."""

    def open(self, room: str, opened: Answered) -> None:
        opened(Unavailable("no disk"))


async def test_a_room_that_can_not_be_opened_ends_the_connection_before_it_began() -> None:
    async with open_house(engine=LockedEngine(lambda: "e")) as house:
        alice = await house.call()
        assert alice.closed_with == (1011, "the room can't be read now")
        await alice.send(closing(1011))
        assert alice.ending is not None


class Fault(Exception):
    """Something that nobody expected."""


class BrokenEngine(MemoryEngine):
    """Can't open rooms but `r`, in a way that no port allows."""

    def open(self, room: str, opened: Answered) -> None:
        if room != "r":
            raise Fault
        super().open(room, opened)


async def test_a_fault_in_opening_a_room_concerns_nobody_but_those_who_want_to_go_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_house(engine=BrokenEngine(lambda: "e")) as house:
        alice, bob = await house.call("alice"), await house.call("bob", room="s")
        assert bob.closed_with is not None
        assert bob.closed_with[0] == 1011
        await alice.send(command("switch_room", "c", room="s"), say("still here"))
        assert [(each["code"], each["cid"]) for each in alice.named("error")] == [("internal", "c")]
        assert alice.texts == ["still here"]
    assert caplog.messages.count("open_failed") == 2


# Pace


async def test_messages_are_paced_by_not_reading_and_none_is_lost() -> None:
    limits = replace(LIMITS, message_rate=5, message_burst=20)
    async with open_house(pace=(5, 20)) as house:
        alice, bob = await house.call("alice", limits=limits), await house.call("bob")
        await alice.send(*[say(str(number)) for number in range(50)])
        assert len(bob.texts) == 20
        for second in range(1, 7):
            await idle(1)
            assert len(bob.texts) == pytest.approx(20 + 5 * second, abs=1)
        assert bob.texts == [str(number) for number in range(50)]


async def test_the_pace_is_shared_by_all_connections_of_a_name() -> None:
    limits = replace(LIMITS, message_rate=1, message_burst=2)
    async with open_house(pace=(1, 2)) as house:
        alices = [await house.call("alice", limits=limits) for _ in range(3)]
        for alice in alices:
            await alice.send(say("hi"))
        assert house.harness.rooms.messages == 2
        await idle(1.1)
        assert house.harness.rooms.messages == 3


async def test_other_commands_have_a_pace_of_their_own() -> None:
    limits = replace(LIMITS, message_rate=1, message_burst=1, command_rate=10)
    async with open_house(pace=(1, 1)) as house:
        alice = await house.call(limits=limits)
        await alice.send(*[command("ping", str(number)) for number in range(25)])
        assert len(alice.named("pong")) == 10
        await idle(0.55)
        assert len(alice.named("pong")) == 15
        await idle(2)
        assert [each["cid"] for each in alice.named("pong")] == [str(number) for number in range(25)]


async def test_while_it_is_paced_small_pieces_are_read() -> None:
    limits = replace(LIMITS, message_rate=1, message_burst=1)
    async with open_house(pace=(1, 1)) as house:
        alice = await house.call(limits=limits)
        await alice.send(command("ping"))
        await alice.send(say("one"), say("two"))
        assert set(alice.transport.asked_for) == {64 * 1024}
        await idle(0.5)
        await alice.send(say("three"))
        assert alice.transport.asked_for[-1] == 4 * 1024
        await idle(10)
        for _ in range(2):
            await alice.send(command("ping"))
        assert alice.transport.asked_for[-1] == 64 * 1024


# We end it


async def test_a_restart_waits_until_the_member_has_all_that_was_shown() -> None:
    async with open_house() as house:
        alice = await house.call()
        alice.transport.room = 0
        texts = [f"{number:-<1000}" for number in range(30)]
        await tell(house, *texts)
        alice.connection.stop_reading()
        alice.end.disconnect(RESTART)
        await idle(CATCH_UP_SECONDS / 2)
        assert alice.ending is None
        alice.transport.give_room(1 << 30)
        await idle()
        assert alice.texts == texts
        assert alice.closed_with == (1012, "server is restarting")
        await alice.send(closing(1012))
        assert alice.ending == Ending(RESTART, Drop.RESTART)
        assert alice.transport.closed


async def test_a_restart_waits_a_moment_and_no_longer() -> None:
    async with open_house() as house:
        alice = await house.call()
        alice.transport.room = 0
        await tell(house, "x" * 1000)
        start = trio.current_time()
        alice.end.disconnect(RESTART)
        await idle(30)
        assert alice.over_at is not None
        assert alice.over_at - start <= CATCH_UP_SECONDS + 3 * CLOSE_SECONDS
        assert alice.ending == Ending(RESTART, Drop.RESTART)
        assert alice.transport.aborted


async def test_a_restart_in_the_middle_of_a_handshake_is_no_wait_without_an_end() -> None:
    async with open_house() as house:
        start = trio.current_time()
        alice = await house.call(transport=MemoryTransport(room=10))
        alice.end.disconnect(RESTART)
        await idle(30)
        assert alice.over_at is not None
        assert alice.over_at - start <= CATCH_UP_SECONDS + 3 * CLOSE_SECONDS


async def test_any_other_end_does_not_wait_for_what_the_member_lacks() -> None:
    async with open_house() as house:
        alice = await house.call()
        alice.transport.room = 3
        await tell(house, "x" * 1000, "never shown")
        alice.end.disconnect(Disconnect(CloseCode.NOT_ALLOWED, "no longer allowed here"))
        alice.transport.give_room(1 << 30)
        await idle()
        assert alice.closed_with == (4503, "no longer allowed here")
        assert [each["event"] for each in alice.events] == ["welcome", "joined"], (
            "what was under way is finished"
        )
        assert house.names_in("r") == [], "its place is given up before the peer has answered"
        assert alice.ending is None
        await alice.send(closing(4503))
        assert alice.ending is not None


async def test_commands_that_come_after_an_end_was_asked_for_are_not_taken() -> None:
    async with open_house() as house:
        alice, bob = await house.call("alice"), await house.call("bob")
        await idle()
        alice.transport.room = 0
        await bob.send(say("hello"))
        alice.end.disconnect(RESTART)  # which waits until alice has caught up
        await alice.send(say("too late"))
        assert alice.closed_with is None
        alice.transport.give_room(1 << 30)
        await idle()
        await alice.send(closing(1012))
        assert alice.ending == Ending(RESTART, Drop.RESTART)
        assert bob.texts == ["hello"]


async def test_an_end_interrupts_a_pace() -> None:
    limits = replace(LIMITS, message_rate=0.001, message_burst=1)
    async with open_house(pace=(0.001, 1)) as house:
        alice, bob = await house.call("alice", limits=limits), await house.call("bob")
        await alice.send(say("one"), say("two"))
        alice.end.disconnect(RESTART)
        await idle()
        assert alice.closed_with == (1012, "server is restarting")
        await alice.send(closing(1012))
        assert alice.ending is not None
        await idle(5000)
        assert bob.texts == ["one"]


async def test_a_cancelled_connection_leaves_no_departure_undone() -> None:
    async with open_house() as house:
        bob = await house.call("bob")
        async with trio.open_nursery() as nursery:
            other = House(house.harness, nursery, (0, 1))
            alice = await other.call("alice")
            assert house.names_in("r") == ["alice", "bob"]
            nursery.cancel_scope.cancel()
        await idle()
        assert alice.transport.aborted
        assert alice.ending is None
        assert house.names_in("r") == ["bob"]
        assert bob.events[-1]["event"] == "left"


# Faults of ours


class FaultyEngine(MemoryEngine):
    """Fails in reading, in a way that no port allows."""

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        raise Fault

    async def history(self, room: str, **how: object) -> object:  # type: ignore[override]
        raise Fault


class FaultyTransport(MemoryTransport):
    """Fails once, in a way that no transport may: in what `fails_in` names."""

    fails_in = ""

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        self._fail_in("receive")
        return super().receive_nowait(max_bytes)

    def send_nowait(self, data: bytes | memoryview) -> int:
        self._fail_in("send")
        return super().send_nowait(data)

    def _fail_in(self, where: str) -> None:
        if self.fails_in == where:
            self.fails_in = ""
            raise Fault


@pytest.mark.parametrize("where", ["receive", "send"])
async def test_a_fault_in_a_task_that_all_connections_share_ends_one_connection(where: str) -> None:
    async with open_house() as house:
        bob = await house.call("bob")
        alice = await house.call("alice", transport=(transport := FaultyTransport()))
        transport.fails_in = where
        if where == "receive":
            await alice.send(say("hello"))
        else:  # a ping
            await idle(LIMITS.ping_interval + 1)
            bob.transport.arrive(masked(PONG))
        await idle(5)
        assert alice.error is not None
        assert house.names_in("r") == ["bob"]
        assert bob.ending is None
        await bob.send(say("still here"))
        assert bob.texts == ["still here"]


@pytest.mark.parametrize("where", ["reader", "writer", "renew"])
async def test_an_exception_in_a_task_of_the_connection_leaves_no_departure_undone(where: str) -> None:
    def fail(*_: object) -> None:
        raise Fault

    async with open_house(engine=FaultyEngine(lambda: "e"), ring_bytes=0) as house:
        bob = await house.call("bob")
        alice = await house.call("alice", renew=fail)
        if where == "reader":
            await alice.send(command("history"))
        elif where == "renew":
            await alice.send(command("auth", token="x"))
        else:
            alice.transport.room = 0
            await bob.send(say("hello"), say("again"))
            alice.transport.give_room(1 << 30)
        await idle()
        assert alice.closed_with == (1011, "internal error")
        await alice.send(closing(1011))
        await idle()
        assert alice.error is not None
        assert house.names_in("r") == ["bob"]
        assert bob.events[-1]["event"] == "left"
