"""What a fan-out gives to whom, in which steps, and what that costs: in offers, bytes and looks."""

import tracemalloc
from collections.abc import Sequence
from typing import TypeVar

import pytest
import trio

from chatroom.core.errors import Disconnect
from chatroom.core.messages import Head, Message
from chatroom.rooms.broadcast import Broadcast, RoomEvent
from chatroom.rooms.fanout import GIVE_WAY, MEMBER_BYTES, Fanout
from chatroom.rooms.ring import RingBudget
from chatroom.rooms.room import (
    BATCHING_FACTOR,
    MAX_PRESENCE,
    MAX_QUEUED,
    MAX_TYPING,
    Member,
    Room,
    Subscription,
)
from chatroom.websocket.framing import text_frame
from tests.support.harness import TELLING, NoJoinReply, arrive, open_broker, split_frames

pytestmark = pytest.mark.usefixtures("autojump_clock")

T = TypeVar("T")


class Sink:
    """A message sink that takes what it is offered, `most` frames at a time, and notes it."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.most = most
        self.offered: list[int] = []  # bytes of each offer
        self.got: list[bytes] = []
        self.woken = 0
        self.keeps = True

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        taken = min(self.most, len(ends))
        self.offered.append(len(data))
        if self.keeps and taken:
            self.got += split_frames(data[: ends[taken - 1]])[0]
        return taken

    def wake(self) -> None:
        self.woken += 1

    def answer(self, payload: bytes) -> None: ...
    def settled(self) -> None: ...
    def reply(self, payload: bytes) -> None: ...
    def replied(self) -> None: ...
    def end(self, why: Disconnect) -> None: ...


def crowd(*names: str) -> tuple[Room, list[Sink]]:
    """A room with live members, who have been told of each other."""
    room = Room("r", Head("e", 0), RingBudget(1 << 20))
    sinks = [Sink() for _ in names]
    for name, sink in zip(names, sinks, strict=True):
        room.enter(Subscription(Member(name, sink), room, NoJoinReply()))
    for subscription in room.subscriptions:
        subscription.join_reply = None
        subscription.live = True
    return room, sinks


def live(room: Room) -> list[bool]:
    return [subscription.live for subscription in room.subscriptions]


def store(room: Room, times: int = 1, text: str = "hi") -> None:
    for _ in range(times):
        room.show(Message(room.head + 1, 1, "bob", text, None))


def tell(fanout: Fanout, room: Room, broadcast: Broadcast) -> int:
    """Have a broadcast told to its end; how often it gave way."""
    return sum(1 for _ in fanout.tell(room, broadcast))


# Who gets what


async def test_nobody_gets_their_own_typing_and_everybody_the_rest_in_order() -> None:
    names = ["ann", "bob", "cid", "cid", "dan"]
    room, sinks = crowd(*names)
    store(room, text="first")
    for name in ("ann", "cid", "bob", "cid", "ann"):
        room.tell_typing(name, True)
        store(room, text=f"after {name}")
    broadcast = room.pop_broadcast()
    tell(Fanout(), room, broadcast)
    whole = broadcast.frames
    for name, sink in zip(names, sinks, strict=True):
        wanted = [frame for frame in whole if f'"username":"{name}","active"'.encode() not in frame]
        assert [text_frame(payload) for payload in sink.got] == wanted
        assert len(sink.offered) == 1
    assert all(live(room))
    assert {subscription.cursor for subscription in room.subscriptions} == {6}


@pytest.mark.parametrize("most", range(8))
async def test_who_takes_a_part_lags_from_there(most: int) -> None:
    room, (sink,) = crowd("ann")
    fanout = Fanout()
    sink.most = most
    for number in range(3):
        room.tell_typing("ann", True)
        room.tell_typing("bob", number % 2 == 0)
        store(room)
    tell(fanout, room, room.pop_broadcast())
    (subscription,) = room.subscriptions
    shown = min(3, most // 2)
    assert (subscription.live, subscription.cursor, fanout.deliveries) == (most >= 6, shown, shown)
    queued = []
    while subscription.next_queued is not None:
        queued.append((subscription.next_queued.position, b"bob" in subscription.pop_queued().frame))
    assert queued == [(position, True) for position in range(3)][(most + 1) // 2 :]


def test_the_ends_of_what_is_left_are_those_of_its_frames() -> None:
    for gaps in ([0], [4], [0, 1], [1, 3], [0, 2, 4], [0, 1, 2, 3, 4]):
        broadcast = Broadcast(0)
        for n in range(5):
            broadcast.add(RoomEvent(b"x" * (5 + n), 0, skip="ann" if n in gaps else None))
        broadcast.seal()
        data, ends = broadcast.without("ann")
        left = [len(event.frame) for event in broadcast.ephemera if event.skip is None]
        wanted = [sum(left[: n + 1]) for n in range(len(left))]
        assert (len(data), [*ends], len(ends)) == (sum(left), wanted, len(left))
        assert (ends[:], ends[1:]) == (wanted, wanted[1:])
        assert not wanted or ends[-1] == wanted[-1]


# What it costs


async def test_when_all_type_at_once_no_more_is_held_than_was_said() -> None:
    """Each gets a broadcast without its own frame: none is kept for the others' sake."""
    room, sinks = crowd(*[f"member{number:03}" for number in range(400)])
    for sink in sinks:
        sink.keeps = False
    for subscription in room.subscriptions:
        room.tell_typing(subscription.member.username, True)
    broadcast = room.pop_broadcast()
    size = len(broadcast.data)
    tracemalloc.start()
    try:
        tell(Fanout(), room, broadcast)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {sum(sink.offered) for sink in sinks} == {size - size // 400}
    assert most < 4 * size


class Counted(list[T]):
    """A list that counts how often one looks at an item of it."""

    looks = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        for item in super().__iter__():
            self.looks += 1
            yield item

    def __getitem__(self, index):  # type: ignore[no-untyped-def,override]
        found = super().__getitem__(index)
        self.looks += len(found) if isinstance(index, slice) else 1
        return found


async def test_a_lagging_member_costs_no_look_at_each_message() -> None:
    room, sinks = crowd(*[f"member{number}" for number in range(10)])
    for subscription in room.subscriptions:
        subscription.live = False
    store(room, 250)
    broadcast = room.pop_broadcast()
    broadcast.frames = counted = Counted(broadcast.frames)
    tell(Fanout(), room, broadcast)
    assert counted.looks == 0
    assert [sink.woken for sink in sinks] == [1] * 10


async def test_of_very_many_ephemera_a_lagging_member_is_kept_a_few_and_looked_at_no_more() -> None:
    room, _ = crowd("ann")
    (subscription,) = room.subscriptions
    subscription.live = False
    looks = 0
    for _ in range(10):
        for number in range(1000):
            room.tell_typing(f"member{number}", True)
        broadcast = room.pop_broadcast()
        broadcast.ephemera = counted = Counted(broadcast.ephemera)
        tell(Fanout(), room, broadcast)
        looks += counted.looks
    assert looks == MAX_QUEUED


# In which steps


@pytest.mark.parametrize("size", [1, 1000, 100_000])
async def test_the_others_have_their_turn_after_so_many_bytes(size: int) -> None:
    members = 600
    room, sinks = crowd(*[f"member{number}" for number in range(members)])
    for sink in sinks:
        sink.keeps = False
    store(room, text="x" * size)
    broadcast = room.pop_broadcast()
    in_one = -(-GIVE_WAY // (len(broadcast.data) + MEMBER_BYTES))
    assert tell(Fanout(), room, broadcast) == members // in_one


async def test_many_rooms_are_no_way_round_it() -> None:
    fanout = Fanout()
    gave_way = 0
    for _ in range(20):
        room, _ = crowd(*[f"member{number}" for number in range(100)])
        store(room)
        gave_way += tell(fanout, room, room.pop_broadcast())
    assert gave_way == 2000 // -(-GIVE_WAY // (MEMBER_BYTES + 81))


async def test_who_catches_up_while_a_fan_out_gives_way_gets_everything_in_its_place() -> None:
    """The broadcast's messages are in the log already; what belongs before them has not come to it yet."""
    async with open_broker(give_way=1) as harness:
        first, talker, slow = await arrive(harness, "first", "talker", "slow")
        slow.transport.room = 0
        await talker.say("one")
        await harness.settle()
        assert not slow.member.current.live

        def most() -> int:  # of what the first one's socket takes: asked when the fan-out comes to it
            slow.transport.give_room(1 << 20)
            return 1 << 20

        first.transport.most = most
        await first.type(True)
        await harness.fake_member("late").enter("r")
        await talker.say("two")
        await talker.type(True)
        await talker.say("three")
        await harness.settle()
        told = [each["event"] for each in slow.events[1:]]
        assert told == ["message", "typing", "joined", "message", "typing", "message"]
        assert slow.ids == [1, 2, 3]


# How much of the time


async def test_presence_alone_takes_a_tenth_of_the_time_whatever_telling_costs() -> None:
    async with open_broker() as harness:
        await arrive(harness, *[f"member{number}" for number in range(50)])
        room = harness.rooms.get("r")
        begun, broadcasts, harness.offers = trio.current_time(), room.number, 0
        while trio.current_time() < begun + 0.3:
            fake = harness.fake_member("guest")
            await fake.enter("r")
            await trio.sleep(0.0001)
            fake.leave()
            await trio.sleep(0.0001)
        took = trio.current_time() - begun
        assert room.number > broadcasts + 10
        assert (
            harness.offers * TELLING <= took / BATCHING_FACTOR + 60 * TELLING
        )  # while it tells, no time passes here


async def test_who_asks_for_members_gets_presence_told_no_sooner() -> None:
    async def broadcasts(*, asking: bool) -> int:
        async with open_broker() as harness:
            members = await arrive(harness, *[f"member{number}" for number in range(50)])
            room = harness.rooms.get("r")
            begun = room.number
            for number in range(100):
                await harness.fake_member(f"guest{number}").enter("r")
                if asking:
                    replied = members[0].outgoing.expect_reply()
                    await members[0].request_members(f"m{number}")
                    await replied.wait()
                await trio.sleep(0.0002)
            told = room.number - begun
            await harness.settle()
            if asking:
                answers = [each["data"]["members"] for each in members[0].named("members")]
                assert [len(names) for names in answers] == list(range(51, 151))
            assert len(members[0].named("joined")) == 149
            return told

    assert await broadcasts(asking=True) <= await broadcasts(asking=False) + 1


def test_what_waits_to_be_told_is_bounded() -> None:
    room, _ = crowd("ann")
    room.delay_presence(0.0, 1.0)  # so that presence would have to wait
    for number in range(3 * MAX_TYPING):
        room.tell_typing(f"member{number}", True)
    assert room.waiting
    assert not room.is_ready(1.0)
    fakes = [
        Subscription(Member(f"guest{number}", Sink()), room, NoJoinReply()) for number in range(MAX_PRESENCE)
    ]
    for fake in fakes[:-1]:
        room.enter(fake)
        room.tell_joined(fake.member.username)
        assert not room.is_ready(1.0)
    room.enter(fakes[-1])
    room.tell_joined(fakes[-1].member.username)
    assert room.is_ready(1.0)
    assert len(room.pop_broadcast().frames) == MAX_TYPING + MAX_PRESENCE
