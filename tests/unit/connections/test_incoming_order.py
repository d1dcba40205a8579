"""A message that needs no wait is taken at once, and yet nothing overtakes, and nothing is lost."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from struct import pack
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity
from chatroom.connections.ending import CLIENT_LEFT
from chatroom.connections.incoming import MESSAGE_QUEUE, QUEUED_CHARACTERS
from chatroom.core.errors import CloseCode
from chatroom.core.limits import MAX_UNANSWERED
from chatroom.core.messages import Draft, Unknown
from chatroom.core.statistics import Drop
from chatroom.rooms.broker import INBOX
from tests.support.client_frames import BINARY, CLOSE, PING, PONG, TEXT, head, masked
from tests.support.engines import Committed, HeldEngine, later
from tests.support.inbounds import frames, split
from tests.support.line import LIMITS, Caller, command, open_house, say
from tests.support.memory_transport import MemoryTransport

CLOSING = masked(CLOSE, pack("!H", 1000))
NONSENSE = masked(TEXT, b"nonsense")
AT_ONCE = MAX_UNANSWERED  # messages handed on while the store is slow,
IN_WORK = 1  # one that the reader waits with,
HELD = AT_ONCE + IN_WORK + MESSAGE_QUEUE  # and those in its queue: none more is taken from the wire
PACED = replace(LIMITS, message_rate=5, message_burst=20)

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def idle(seconds: float = 0.01) -> None:
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()


def says(number: int, start: int = 0) -> list[bytes]:
    return [say(str(each)) for each in range(start, start + number)]


def texts(number: int) -> list[str]:
    return [str(each) for each in range(number)]


# Order


COMMANDS = [
    ("message", {"text": "hi"}),
    ("message", {"text": "hi"}),
    ("message", {"text": "hi"}),
    ("message", {"text": " "}),
    ("switch_room", {"room": "r"}),
    ("switch_room", {"room": "s"}),
    ("history", {}),
    ("members", {}),
    ("typing", {"active": True}),
    ("typing", {"active": False}),
    ("ping", {}),
    ("auth", {"token": "x"}),
    ("nonsense", {}),
]
Told = tuple[list[Any], list[Any]]


def numbered(number: int, event: str, data: dict[str, object]) -> bytes:
    """A command with a cid of its own, and a text of its own if it has one."""
    if str(data.get("text", "")).strip():
        data = {"text": f"{data['text']} {number}"}
    return command(event, f"c{number}", **data)


def told(caller: Caller) -> Told:
    """Its messages and its other answers, each in their order, and of which room they are."""
    named = [(each["event"], each.get("room"), each.get("cid"), each.get("code")) for each in caller.events]
    return [each for each in named if each[0] == "message"], [each for each in named if each[0] != "message"]


async def serve(pieces: list[bytes], turns: list[int]) -> tuple[Told, list[str], list[str]]:
    """Send the pieces, with so many turns of the scheduler behind each; what is told to whom."""
    async with open_house() as house:
        bob = await house.call("bob", room="r")
        carol = await house.call("carol", room="s")
        alice = await house.call("alice", room="r")
        await idle(1)
        for number, piece in enumerate(pieces):
            alice.transport.arrive(piece)
            for _ in range(turns[number] if number < len(turns) else 0):
                await trio.lowlevel.checkpoint()
        await idle(1)
        found = told(alice)
        presence = {"joined", "left", "typing"}  # which may be gathered, and then depend on the moment
        return (found[0], [each for each in found[1] if each[0] not in presence]), bob.texts, carol.texts


@settings(deadline=None, max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(COMMANDS), max_size=40),
    cuts=st.lists(st.integers(1, 400), max_size=12),
    turns=st.lists(st.sampled_from([0, 0, 1, 2, 5, 50]), max_size=13),
)
@example(kinds=[COMMANDS[at] for at in (0, 6, 0, 5, 0, 6, 0, 4, 0, 10, 0)], cuts=[], turns=[])
@example(kinds=[COMMANDS[0]] * 20 + [COMMANDS[5]] + [COMMANDS[0]] * 40, cuts=[], turns=[])
def test_however_cut_commands_are_carried_out_as_one_by_one(
    kinds: list[tuple[str, dict[str, object]]], cuts: list[int], turns: list[int]
) -> None:
    frames = [numbered(number, *kind) for number, kind in enumerate(kinds)]
    clock = partial(MockClock, autojump_threshold=0)
    one_by_one = trio.run(serve, frames, [200] * len(frames), clock=clock())
    assert trio.run(serve, list(split(b"".join(frames), cuts)), turns, clock=clock()) == one_by_one
    (messages, others), *_ = one_by_one
    answers = {each[2] for each in (*messages, *others)} - {None}
    assert answers == {f"c{number}" for number in range(len(kinds))}, "an answer for each"
    cids = [each[2] for each in others if each[2] is not None]
    assert len(cids) == len(set(cids)), "and only one; messages are told again in a replay"


@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "one by one"])
async def test_a_message_behind_another_command_is_of_its_time(apart: bool) -> None:
    async with open_house() as house:
        bob, carol = await house.call("bob", room="r"), await house.call("carol", room="s")
        alice = await house.call()
        frames = [
            say("1"),
            command("history", "h1"),
            say("2"),
            command("switch_room", "s", room="s"),
            say("3"),
            command("history", "h2"),
            say("4"),
        ]
        for piece in frames if apart else [b"".join(frames)]:
            await alice.send(piece)
        await idle(1)
        assert (bob.texts, carol.texts) == (["1", "2"], ["3", "4"])
        assert alice.texts == ["1", "2", "3", "4"]
        switched = next(at for at, each in enumerate(alice.events) if each["event"] == "switched")
        rooms = [each["room"] for each in alice.events[switched + 1 :] if each["event"] == "message"]
        assert rooms == ["s", "s"]


BEHIND = {
    "history": lambda told: [each["text"] for each in told["data"]["messages"]][-3:],
    "members": lambda told: told["data"]["members"],
    "switched": lambda told: told["data"]["room"],
}
"""What answers a command behind three messages, and what in it shows that it is of its time."""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "one by one"])
@pytest.mark.parametrize("event", BEHIND)
@pytest.mark.parametrize("give_way", [1, 256])
async def test_a_command_behind_messages_of_ones_own_is_answered_behind_their_echoes(
    event: str, apart: bool, tls: bool, give_way: int
) -> None:
    engine = HeldEngine()
    async with open_house(engine=engine, give_way=give_way) as house:
        for number in range(5):
            await house.call(f"u{number}")
        alice = await house.call(transport=MemoryTransport(tls=tls))
        await idle(1)
        asked = command("switch_room", "q", room="s") if event == "switched" else command(event, "q")
        frames = [say("1"), say("2"), say("3"), asked]
        for piece in frames if apart else [b"".join(frames)]:
            await alice.send(piece)
        assert not alice.named(event)
        engine.go.set()
        await idle(1)
        told = [each for each in alice.events if each["event"] in ("message", event)]
        assert [each["event"] for each in told] == ["message"] * 3 + [event]
        expected = {
            "history": ["1", "2", "3"],
            "members": ["alice", *[f"u{n}" for n in range(5)]],
            "switched": "s",
        }
        assert BEHIND[event](told[-1]) == expected[event]


async def test_history_of_a_slow_reader_comes_behind_its_own_message_and_no_later() -> None:
    """Its place is there, though more has been said since; and what was said before doesn't hold it up."""
    async with open_house() as house:
        alice, bob = await house.call(transport=MemoryTransport()), await house.call("bob")
        await idle(1)
        alice.transport.room = 0
        await bob.send(*[say(f"{number} {'x' * 3000}") for number in range(10)])
        await alice.send(command("history", "h1", limit=1))
        await alice.send(say("mine"))
        await alice.send(command("history", "h2", limit=3))
        await bob.send(*[say(f"{number} {'x' * 3000}") for number in range(10, 20)])
        alice.transport.give_room(1 << 20)
        await idle(1)
        told = [each.get("cid") or each["data"]["text"].split()[0] for each in alice.events[2:]]
        assert told.index("h1") < told.index("5"), "nothing of its own was before it"
        assert told[told.index("mine") + 1] == "h2"
        (page,) = [each for each in alice.events if each.get("cid") == "h2"]
        assert "mine" in [each["text"] for each in page["data"]["messages"]]
        assert sorted(told, key=lambda each: int(each) if each.isdigit() else 99)[:20] == texts(20)


async def test_history_that_waits_for_a_message_is_answered_whatever_becomes_of_it() -> None:
    class Failing(HeldEngine):
        def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
            later(self.go.wait, lambda: committed([Unknown()] * len(drafts)))

    engine = Failing()
    async with open_house(engine=engine) as house:
        alice = await house.call()
        await alice.send(say("1", "m"), command("history", "h"))
        await idle(5)
        assert len(alice.events) == 1
        engine.go.set()
        await idle(1)
        assert [(each["event"], each["cid"]) for each in alice.events[1:]] == [
            ("error", "m"),
            ("history", "h"),
        ]


@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "one by one"])
async def test_a_paced_message_is_not_overtaken(apart: bool) -> None:
    limits = replace(LIMITS, message_rate=0.1, command_rate=10)
    async with open_house(pace=(0.1, 1)) as house:
        alice = await house.call(limits=limits)
        frames = [say("one"), say("paced", "p"), command("ping", "1"), command("members", "2")]
        for piece in frames if apart else [b"".join(frames)]:
            await alice.send(piece)
        await idle(9)
        assert alice.texts == ["one"]
        assert not [each for each in alice.events if "cid" in each]
        await idle(2)
        assert [each["cid"] for each in alice.events if "cid" in each] == ["p", "1", "2"] or [
            each["cid"] for each in alice.events if "cid" in each
        ] == ["1", "p", "2"], "the echo comes back from the log"
        assert alice.texts == ["one", "paced"]


async def test_a_command_whose_pace_is_used_up_holds_back_messages_behind_it() -> None:
    limits = replace(LIMITS, message_rate=100, command_rate=1)
    async with open_house(pace=(100, 100)) as house:
        alice = await house.call(limits=limits)
        await alice.send(command("ping", "1"))
        await alice.send(command("ping", "2"))
        await alice.send(say("behind"))
        await idle(0.5)
        assert (len(alice.named("pong")), alice.texts) == (1, [])
        await idle(1)
        assert (len(alice.named("pong")), alice.texts) == (2, ["behind"])


async def test_a_right_that_ends_while_a_message_is_paced_ends_it_too() -> None:
    limits = replace(LIMITS, message_rate=0.1)
    async with open_house(pace=(0.1, 1)) as house:
        alice, bob = await house.call(limits=limits), await house.call("bob")
        await alice.send(say("one"), say("paced", "p"), say("and another"))
        alice.authorization.renew(replace(alice.authorization.identity, rights=Rights.parse({"*": "r"})))
        await idle(30)
        assert bob.texts == ["one"]
        assert [(each["code"], each.get("cid")) for each in alice.named("error")] == [
            ("forbidden", "p"),
            ("forbidden", None),
        ]


# Crowding


async def test_few_messages_wait_where_they_are_large() -> None:
    engine = HeldEngine()
    limits = replace(LIMITS, frame_bytes=1 << 20, text_chars=1 << 20)
    large = say("x" * QUEUED_CHARACTERS)
    async with open_house(engine=engine) as house:
        alice = await house.call(limits=limits)
        await alice.send(*says(AT_ONCE + IN_WORK))
        await alice.send(*[large] * 4)
        read = 4 * len(large) - len(alice.transport._arrived)
        assert read < 2 * len(large) + (1 << 17), (
            "one in the queue, one in the Wire's hand, and what it reads at once"
        )
        engine.go.set()
        await idle()
        assert len(alice.texts) == AT_ONCE + IN_WORK + 4


async def test_when_too_much_waits_the_socket_is_not_read_and_then_it_goes_on() -> None:
    engine = HeldEngine()
    async with open_house(engine=engine) as house:
        alice, bob = await house.call(), await house.call("bob")
        await alice.send(*says(HELD))
        assert alice.member.outstanding == AT_ONCE
        before = len(alice.transport.asked_for)
        await alice.send(*says(1, HELD))
        after = len(alice.transport.asked_for)
        assert after > before, "what has room is read"
        await alice.send(*says(100, HELD + 1))
        assert len(alice.transport.asked_for) == after
        assert alice.transport._arrived, "it waits at the peer's"
        engine.go.set()
        await idle()
        assert bob.texts == texts(HELD + 101)
        assert alice.texts == texts(HELD + 101)
        assert not alice.transport._arrived


async def test_pings_are_answered_while_a_queue_of_messages_waits() -> None:
    engine = HeldEngine()
    async with open_house(engine=engine) as house:
        alice = await house.call()
        await alice.send(*says(HELD))
        for number in range(10):
            await alice.send(masked(PING, b"%d" % number))
        pongs = [frame.payload for frame in alice.frames if frame.opcode == PONG]
        assert pongs == [b"%d" % number for number in range(10)]
        await alice.send(*says(1, HELD), masked(PING, b"behind one too many"))
        assert len([frame for frame in alice.frames if frame.opcode == PONG]) == 10
        engine.go.set()
        await idle()
        assert alice.texts == texts(HELD + 1)
        assert len([frame for frame in alice.frames if frame.opcode == PONG]) == 11


@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "one by one"])
async def test_while_the_broker_is_behind_everything_waits_and_nothing_is_lost(apart: bool) -> None:
    engine = HeldEngine()
    async with open_house(engine=engine) as house:
        many = [await house.call(f"u{number}") for number in range(60)]
        await idle(1)
        for caller in many:
            for piece in says(60) if apart else [b"".join(says(60))]:
                await caller.send(piece)
        handed = sum(caller.member.outstanding for caller in many)
        assert INBOX < handed < 60 * MAX_UNANSWERED, "the inbox is full"
        engine.go.set()
        await idle(1)
        said = [each["data"] for each in many[0].named("message")]
        for caller in many:
            own = [data["text"] for data in said if data["username"] == caller.member.username]
            assert own == texts(60)
        assert all(caller.ending is None and caller.member.outstanding == 0 for caller in many)


# Stops and ends


async def test_after_a_stop_nothing_is_taken_whatever_waits() -> None:
    engine = HeldEngine()
    async with open_house(engine=engine) as house:
        alice, bob = await house.call(), await house.call("bob")
        await alice.send(*says(HELD + 10))
        alice.connection.stop_reading()
        await alice.send(say("late"), NONSENSE * 20)
        engine.go.set()
        await idle(1)
        assert bob.texts == texts(AT_ONCE), "what had been handed on"
        assert alice.ending is None


async def test_after_a_stop_an_idle_reader_judges_nothing() -> None:
    async with open_house() as house:
        alice = await house.call()
        alice.connection.stop_reading()
        for _ in range(20):
            await alice.send(NONSENSE)
            await alice.send(say("late"))
        await idle(5)
        assert (len(alice.events), alice.closed_with) == (1, None)


FAULTY = [
    (head(TEXT, 1 << 17), CloseCode.TOO_BIG),
    (masked(BINARY, b"x"), CloseCode.UNSUPPORTED_DATA),
    (head(TEXT, 5, mask=False) + b"hello", CloseCode.PROTOCOL_ERROR),
    (masked(TEXT, b"\xff"), CloseCode.INVALID_UTF8),
]


@pytest.mark.parametrize(("fault", "code"), FAULTY)
async def test_messages_before_a_fault_are_shown_though_not_to_who_ended_it(
    fault: bytes, code: CloseCode
) -> None:
    async with open_house() as house:
        alice, bob = await house.call(), await house.call("bob")
        await idle()
        await alice.send(say("one"), say("two"), fault, say("three"))
        assert bob.texts == ["one", "two"]
        assert alice.closed_with is not None
        assert alice.closed_with[0] == code
        assert alice.texts == []
        alice.transport.arrive_end()
        await idle()
        assert alice.ending is not None
        assert alice.ending.drop == Drop.of(code)


@pytest.mark.parametrize(("fault", "code"), FAULTY)
async def test_what_waited_for_another_command_before_a_fault_is_not_taken(
    fault: bytes, code: CloseCode
) -> None:
    async with open_house() as house:
        alice, bob = await house.call(), await house.call("bob")
        await idle()
        await alice.send(say("one"), command("members", "m"), say("two"), fault)
        await idle(1)
        assert bob.texts == ["one"]
        assert alice.closed_with is not None
        assert alice.closed_with[0] == code


@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "one by one"])
async def test_too_much_nonsense_ends_it_wherever_it_is_judged(apart: bool) -> None:
    async with open_house() as house:
        alice, bob = await house.call(), await house.call("bob")
        await idle()
        frames = [say("before"), *[NONSENSE] * 11, say("after")]
        for piece in frames if apart else [b"".join(frames)]:
            await alice.send(piece)
        assert alice.closed_with == (1008, "too many malformed frames")
        assert len(alice.named("error")) == 10
        assert bob.texts == ["before"]
        await alice.send(masked(CLOSE, pack("!H", 1008)))
        assert alice.ending is not None
        assert (alice.ending.drop, alice.error) == (Drop.of(CloseCode.POLICY), None)


async def test_a_command_that_ends_it_lets_nothing_behind_it_through() -> None:
    nothing = Identity("alice", Rights.parse({}), "static", "key")
    async with open_house() as house:
        alice, bob = await house.call(renew=lambda *_: nothing), await house.call("bob")
        await alice.send(say("before"), command("auth", token="x"), say("after"), *says(40))
        await idle(1)
        assert bob.texts == ["before"]
        assert alice.closed_with == (4503, "no longer allowed in this room")


@pytest.mark.parametrize("number", [1, 10, 200])
@pytest.mark.parametrize("end", ["close", "end of the stream"])
async def test_what_came_before_the_clients_end_is_carried_out(number: int, end: str) -> None:
    async with open_house() as house:
        bob, carol = await house.call("bob", room="r"), await house.call("carol", room="s")
        alice = await house.call()
        await idle()
        frames = [
            *says(number),
            command("switch_room", room="s"),
            command("typing", active=True),
            *says(number),
        ]
        alice.transport.arrive(b"".join(frames) + (CLOSING if end == "close" else b""))
        if end != "close":
            alice.transport.arrive_end()
        await idle(1)
        assert (bob.texts, carol.texts) == (texts(number), texts(number))
        assert alice.ending == CLIENT_LEFT
        assert (alice.transport.closed, alice.transport.aborted) == (True, False)
        assert (house.names_in("r"), house.names_in("s")) == (["bob"], ["carol"])


@pytest.mark.parametrize("end", ["close", "end of the stream"])
async def test_who_has_closed_is_not_kept_for_its_pace_and_loses_nothing_of_a_burst(end: str) -> None:
    async with open_house(pace=(5, 20)) as house:
        bob = await house.call("bob")
        alice = await house.call(limits=PACED)
        await idle(1)
        start = trio.current_time()
        await alice.send(*says(20 + MESSAGE_QUEUE), CLOSING if end == "close" else b"")
        if end != "close":
            alice.transport.arrive_end()
            await idle()
        assert (bob.texts, house.names_in("r")) == (texts(20 + MESSAGE_QUEUE), ["bob"])
        assert (alice.ending, alice.over_at) == (CLIENT_LEFT, pytest.approx(start, abs=0.1))
        again = await house.call(limits=PACED)
        await again.send(say("later"))
        await idle(MESSAGE_QUEUE / 5 - 0.5)
        assert bob.texts[-1] != "later", "the name has used up its pace"
        await idle(1)
        assert bob.texts[-1] == "later"


async def test_many_of_a_name_that_close_are_over_at_once_and_take_one_burst_more() -> None:
    async with open_house(pace=(5, 20)) as house:
        bob = await house.call("bob")
        tabs = [await house.call(limits=PACED) for _ in range(20)]
        await idle(1)
        start = trio.current_time()
        for tab in tabs:
            await tab.send(*says(MESSAGE_QUEUE))
        for tab in tabs:
            await tab.send(CLOSING)
        await idle()
        assert house.names_in("r") == ["bob"]
        for tab in tabs:
            assert (tab.ending, tab.over_at) == (CLIENT_LEFT, start)
        assert 20 + 20 <= len(bob.texts) <= 20 + 20 + 1


async def test_a_close_behind_a_full_queue_waits_for_its_turn() -> None:
    engine = HeldEngine()
    async with open_house(engine=engine) as house:
        alice, bob = await house.call(), await house.call("bob")
        await alice.send(*says(HELD + 5), CLOSING)
        assert alice.closed_with is None
        engine.go.set()
        await idle()
        assert bob.texts == texts(HELD + 5)
        assert alice.ending == CLIENT_LEFT
        assert alice.closed_with == (1000, "")


# Whatever a client sends


async def bear(data: bytes, cuts: list[int], broken: bool, room: int, early: int) -> None:
    """Take this from a client, who is gone or stays then; nobody else is any the worse for it."""
    async with open_house() as house:
        bob = await house.call("bob")
        caller = await house.call("alice", transport=MemoryTransport(room=room), early=data[:early])
        for piece in split(data[early:], cuts):
            await caller.send(piece)
        if broken:
            caller.transport.fail()
        else:
            caller.transport.arrive_end()
        await idle(30)
        assert caller.error is None
        assert caller.ending is not None
        assert caller.transport.closed or caller.transport.aborted
        assert house.names_in("r") == ["bob"]
        await bob.send(say("still here"))
        assert bob.texts[-1] == "still here"


@settings(deadline=None, max_examples=100)
@given(
    data=st.lists(frames() | st.sampled_from([say("hi"), command("ping", "c")]), max_size=8).map(b"".join),
    cuts=st.lists(st.integers(1, 60), max_size=6),
    broken=st.booleans(),
    room=st.sampled_from([0, 200, 300, 1 << 40]),
    early=st.sampled_from([0, 0, 1, 20]),
)
@example(data=masked(TEXT, b"x" * 70_000) + masked(PING), cuts=[], broken=False, room=1 << 40, early=0)
@example(data=masked(CLOSE) + masked(PING), cuts=[6], broken=True, room=200, early=0)
@example(data=masked(CLOSE, pack("!H", 1000) + b"\xff"), cuts=[], broken=False, room=1 << 40, early=0)
def test_no_bytes_end_more_than_their_own_connection(
    data: bytes, cuts: list[int], broken: bool, room: int, early: int
) -> None:
    clock = MockClock(autojump_threshold=0)
    trio.run(bear, data, cuts, broken, room, early, clock=clock)
