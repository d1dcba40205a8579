"""Arbitrary traffic in a few rooms, against a small model: each fake member got what it was owed."""

from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.rooms.fanout import FEW
from tests.support.harness import BrokerHarness, FakeMember, open_broker

NAMES = ("ann", "bob", "cid")
ROOMS = ("a", "b")

operations = st.one_of(
    st.tuples(st.just("join"), st.sampled_from(NAMES), st.sampled_from(ROOMS), st.integers(0, 400)),
    st.tuples(st.just("join_tls"), st.sampled_from(NAMES), st.sampled_from(ROOMS), st.integers(0, 400)),
    st.tuples(st.just("resume"), st.sampled_from(NAMES), st.sampled_from(ROOMS), st.integers(0, 12)),
    st.tuples(st.just("say"), st.integers(0, 9), st.integers(1, 5)),
    st.tuples(st.just("type"), st.integers(0, 9)),
    st.tuples(st.just("switch"), st.integers(0, 9), st.sampled_from(ROOMS)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("room"), st.integers(0, 9), st.integers(0, 500)),
    st.tuples(st.just("settle")),
)


@dataclass
class World:
    """The fake members that are there, and those that have gone."""

    harness: BrokerHarness
    fakes: list[FakeMember] = field(default_factory=list)
    switching: set[int] = field(default_factory=set)

    def pick(self, index: int) -> FakeMember | None:
        """A fake member that has been let in and has no switch under way."""
        able = [fake for fake in self.fakes if fake.member.current is not None and self.is_ready(fake)]
        return able[index % len(able)] if able else None

    def is_ready(self, fake: FakeMember) -> bool:
        # As the reader does: no further command until the join reply is on its way.
        return len(fake.member.subscriptions) == 1 and fake.member.subscriptions[0].join_reply is None


async def perform(world: World, operation: tuple[Any, ...]) -> None:
    harness = world.harness
    match operation:
        case ("join", name, room, size):
            fake = harness.fake_member(name, size)
            world.fakes.append(fake)
            await fake.enter(room)
        case ("join_tls", name, room, size):
            fake = harness.fake_member(name, size, tls=True)
            world.fakes.append(fake)
            await fake.enter(room)
        case ("resume", name, room, since):
            fake = harness.fake_member(name)
            world.fakes.append(fake)
            await fake.enter(room, since, "epoch1")
        case ("say", index, times):
            for number in range(times):
                if (fake := world.pick(index)) is not None:
                    await fake.say(f"text {number}")
        case ("type", index):
            if (fake := world.pick(index)) is not None:
                await fake.type(True)
        case ("switch", index, room):
            fake = world.pick(index)
            if fake is not None and fake.member.current.room.name != room and not fake.member.outstanding:
                await fake.switch(room)
                await harness.settle()
        case ("leave", index):
            if (fake := world.pick(index)) is not None:
                world.fakes.remove(fake)
                fake.leave()
        case ("room", index, size):
            if world.fakes:
                world.fakes[index % len(world.fakes)].transport.give_room(size)
        case _:
            await harness.settle()


def check_fake(fake: FakeMember, heads: dict[str, int], rosters: dict[str, list[str]]) -> None:
    """What came is its subscriptions in order: each without a gap, and the last one up to the head."""
    room, last, seen, replay = "", 0, set[str](), 0
    for event in fake.events:
        match event["event"]:
            case "welcome" | "switched":
                room = event["room"] if event["event"] == "welcome" else event["data"]["room"]
                others = event["data"]["members"] if event["event"] == "welcome" else event["members"]
                seen = {*others, fake.username}
                replay = event["replay"]
                last = event["last_id"] - replay
            case "message":
                assert event["room"] == room
                assert event["id"] == last + 1, "a gap or a repetition"
                last += 1
                replay = max(0, replay - 1)
            case "joined":
                assert event["room"] == room
                assert replay == 0, "live before the replay was over"
                assert event["data"]["username"] not in seen
                seen.add(event["data"]["username"])
            case "left":
                assert event["room"] == room
                seen.remove(event["data"]["username"])
            case "members":
                seen = set(event["data"]["members"])
            case "typing":
                assert event["data"]["username"] != fake.username
            case other:
                raise AssertionError(other)
    assert replay == 0
    assert last == heads[room]
    assert sorted(seen) == rosters[room]
    assert fake.member.subscriptions[0].live


async def run(script: list[tuple[Any, ...]], ring_bytes: int, give_way: int, few: int) -> None:
    async with open_broker(ring_bytes=ring_bytes, give_way=give_way, few=few, history=5) as harness:
        world = World(harness)
        for operation in script:
            await perform(world, operation)
        for fake in world.fakes:
            fake.transport.give_room(1 << 30)
        await harness.settle()
        rooms = {name: harness.rooms.get(name) for name in ROOMS}
        heads = {name: room.head for name, room in rooms.items() if room is not None}
        rosters = {name: sorted({fake.username for fake in world.fakes
                                 if fake.member.current.room.name == name}) for name in ROOMS}  # fmt: skip
        for fake in world.fakes:
            check_fake(fake, heads, rosters)
        for name, room in rooms.items():
            assert (room is not None) == bool(rosters[name]), "rooms live as long as somebody is in them"
            if room is not None:
                assert list(room.roster.names) == rosters[name]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(operations, max_size=40),
    st.sampled_from([0, 300, 1 << 20]),
    st.sampled_from([1, 2, 256]),
    st.sampled_from([0, FEW]),
)
def test_whatever_happens_every_member_gets_what_it_is_owed(
    script: list[tuple[Any, ...]], ring_bytes: int, give_way: int, few: int
) -> None:
    trio.run(run, script, ring_bytes, give_way, few, clock=trio.testing.MockClock(autojump_threshold=0))
