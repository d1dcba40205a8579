"""Following rooms: who is told what of them, how often, and what that costs."""

import math
import sys
from functools import partial

import pytest
import trio

from chatroom.auth.rights import Rights
from chatroom.core.errors import Unavailable, replaced_room
from chatroom.core.messages import Edit, Head, Moderate
from chatroom.core.sanctions import Action
from chatroom.engines.memory import MemoryEngine
from chatroom.rooms.activity import Followers
from chatroom.rooms.broker import AT_ONCE, INBOX
from chatroom.rooms.entries import Follow, FollowedRoom, MemberDraft, TypingUpdate
from chatroom.rooms.room import Member
from tests.support.engines import Answered
from tests.support.harness import BrokerHarness, FakeMember, arrive, open_broker

pytestmark = pytest.mark.usefixtures("autojump_clock")


def activities(fake: FakeMember) -> list[dict[str, object]]:
    return [each["data"] for each in fake.named("activity")]


async def ops_with(harness: BrokerHarness, *names: str) -> list[FakeMember]:
    return await arrive(harness, *names, room="ops")


async def test_who_follows_is_told_where_each_room_stands_and_then_what_happens_there() -> None:
    async with open_broker() as harness:
        alice, bob = await ops_with(harness, "alice", "bob")
        await bob.say("before")
        await bob.change(Edit(1, 10**9), "before!")
        (carol,) = await arrive(harness, "carol")
        await carol.follow("ops", "lunch", cid="f")
        await harness.settle()
        ops, lunch = harness.rooms.get("ops"), harness.rooms.get("lunch")
        assert ops is not None
        assert lunch is not None
        assert carol.events[-1] == {
            "event": "ack",
            "data": {
                "rooms": [
                    {"room": "ops", "epoch": ops.epoch, "last_id": 2, "messages": 1},
                    {"room": "lunch", "epoch": lunch.epoch, "last_id": 0, "messages": 0},
                ]
            },
            "cid": "f",
        }
        await bob.say("lunch, @Alice?")
        await harness.settle()
        assert activities(carol) == [
            {"room": "ops", "last_id": 3, "messages": 2, "username": "bob", "mentions": ["alice"]}
        ]
        assert alice.named("activity") == []
        assert carol.named("message") == []
        assert [each["event"] for each in alice.events].count("joined") == 1  # following isn't presence


async def test_a_busy_room_is_told_once_a_second_and_its_last_word_is_told_late() -> None:
    async with open_broker() as harness:
        alice, bob = await ops_with(harness, "alice", "bob")
        (carol,) = await arrive(harness, "carol")
        await carol.follow("ops")
        await harness.settle()
        start = trio.current_time()
        for number in range(100):
            await bob.say("@alice" if number == 50 else str(number))
            await trio.sleep(0.05)
        await harness.settle()
        assert trio.current_time() - start < 6
        told = activities(carol)
        assert len(told) == 6
        assert told[0]["messages"] == 1
        assert told[-1]["messages"] == told[-1]["last_id"] == 100
        assert [each["mentions"] for each in told].count(["alice"]) == 1
        assert alice.named("activity") == []


async def test_very_many_busy_rooms_are_each_told_in_their_turn() -> None:
    async with open_broker() as harness:
        (carol,) = await arrive(harness, "carol")
        speakers = [(await arrive(harness, "bob", room=f"room{number}"))[0] for number in range(20)]
        await carol.follow(*[f"room{number}" for number in range(20)])
        await harness.settle()
        for text in ("one", "two", "three"):
            for speaker in speakers:
                await speaker.say(text)
                await trio.sleep(0.01)
        await carol.follow("room3")  # the turns of the others come for nothing
        await harness.settle()
        assert [each["messages"] for each in activities(carol)] == [1] * 20 + [3]
        await carol.follow("room3", "room4")
        await speakers[4].say("four")
        await harness.settle()
        assert activities(carol)[-1]["messages"] == 4
        assert harness.rooms.following.due == math.inf


async def test_a_new_list_replaces_the_last_one_and_outlives_a_switch() -> None:
    async with open_broker() as harness:
        (bob,) = await ops_with(harness, "bob")
        (carol,) = await arrive(harness, "carol")
        await carol.follow("ops", "lunch")
        await carol.follow("ops", "tea")
        await carol.switch("elsewhere")
        await harness.settle()
        assert harness.rooms.get("lunch") is None
        await bob.say("one")
        await harness.settle()
        assert len(activities(carol)) == 1
        await carol.follow()
        await harness.settle()
        assert carol.events[-1] == {"event": "ack", "data": {"rooms": []}}
        await bob.say("two")
        await harness.settle()
        assert len(activities(carol)) == 1
        assert harness.rooms.get("tea") is None


async def test_who_leaves_follows_no_more_and_its_rooms_are_given_up() -> None:
    async with open_broker() as harness:
        fakes = await arrive(harness, *[f"user{number}" for number in range(20)])
        for fake in fakes:
            await fake.follow("ops", "lunch")
        await harness.settle()
        for fake in fakes:
            fake.leave()
        await harness.settle()
        assert len(harness.rooms) == 0


async def test_a_reader_that_lags_is_told_when_it_has_caught_up_of_each_room_once() -> None:
    async with open_broker() as harness:
        alice, bob = await ops_with(harness, "alice", "bob")
        carol, dave = await arrive(harness, "carol", "dave")
        await carol.follow("ops")
        await harness.settle()
        carol.transport.room = 10
        await dave.say("x" * 100)
        for text in ("@alice", "two", "three"):
            await bob.say(text)
            await harness.settle()
            await trio.sleep(2)
        assert activities(carol) == []
        carol.transport.give_room(1 << 30)
        await harness.settle()
        assert carol.ids == [1]
        assert activities(carol) == [
            {"room": "ops", "last_id": 3, "messages": 3, "username": "bob", "mentions": ["alice"]}
        ]
        await bob.say("four")
        await harness.settle()
        assert len(activities(carol)) == 2
        assert alice.member.missed is None


async def test_who_may_no_longer_read_a_room_is_not_told_of_it() -> None:
    async with open_broker() as harness:
        (bob,) = await ops_with(harness, "bob")
        (carol,) = await arrive(harness, "carol")
        await carol.follow("ops")
        await harness.settle()
        carol.member.rights = Rights.parse({"r": "rw"})
        await bob.say("secret")
        await harness.settle()
        assert activities(carol) == []


async def test_a_ban_ends_following_and_prevents_it() -> None:
    async with open_broker() as harness:
        keeper, bob = await ops_with(harness, "keeper", "bob")
        keeper.member.moderator = True
        carol, twin = await arrive(harness, "carol", "carol")
        twin.member.rights = Rights.parse({"*": "rwm"})
        for fake in (carol, twin):
            await fake.follow("ops", "lunch")
        await harness.settle()
        await keeper.change(Moderate(Action.BAN, "carol", 60))
        await bob.say("without her")
        await harness.settle()
        assert activities(carol) == []
        assert len(activities(twin)) == 1
        assert [room.name for room in carol.member.follows] == ["lunch"]
        await carol.follow("ops", "tea", cid="f")
        await harness.settle()
        assert (carol.events[-1]["code"], carol.events[-1]["until"]) == (
            "forbidden",
            harness.now_ms + 60_000,
        )
        assert [room.name for room in carol.member.follows] == ["lunch"]
        assert harness.rooms.get("tea") is None


async def test_the_answer_comes_before_all_that_is_newer() -> None:
    async with open_broker() as harness:
        (bob,) = await ops_with(harness, "bob")
        (carol,) = await arrive(harness, "carol")
        follow = Follow(carol.member, ("ops",), "f", missing=1)
        bob.member.outstanding += 1
        for entry in (FollowedRoom(follow, "ops"), MemberDraft(bob.member, "hi", None)):
            assert harness.broker.submit_nowait(entry)
            while harness.broker.pump() == AT_ONCE:
                pass  # carol's writer has no turn
        await harness.settle()
        ack, activity = carol.events[-2:]
        assert [each["messages"] for each in ack["data"]["rooms"]] == [0]
        assert activity["data"]["messages"] == 1


class NoTea(MemoryEngine):
    """Cannot open one room."""

    def open(self, room: str, opened: Answered) -> None:
        if room == "tea":
            opened(Unavailable("no tea"))
        else:
            super().open(room, opened)


async def test_if_one_room_cannot_be_read_nothing_changes() -> None:
    async with open_broker(engine=NoTea(lambda: "e")) as harness:
        (carol,) = await arrive(harness, "carol")
        await carol.follow("ops")
        await carol.follow("lunch", "tea", cid="f")
        await harness.settle()
        assert (carol.events[-1]["code"], carol.events[-1]["retry"]) == ("unavailable", True)
        assert [room.name for room in carol.member.follows] == ["ops"]
        assert harness.rooms.get("lunch") is None


async def test_who_has_gone_meanwhile_follows_nothing() -> None:
    async with open_broker() as harness:
        (carol,) = await arrive(harness, "carol")
        await carol.follow("ops")
        carol.leave()
        await harness.settle()
        assert len(harness.rooms) == 0


async def test_a_connection_that_ends_while_the_inbox_is_full_leaves_no_room_in_use() -> None:
    async with open_broker() as harness:
        (carol,) = await arrive(harness, "carol")
        rooms = [f"room{number}" for number in range(50)]
        with trio.CancelScope() as ending:
            async with trio.open_nursery() as nursery:
                for _ in range(INBOX - 10):
                    assert harness.broker.submit_nowait(TypingUpdate(carol.member, False, None))
                nursery.start_soon(partial(carol.follow, *rooms))
                nursery.start_soon(_end_at_once, ending, carol)
        await harness.settle()
        assert len(harness.rooms) == 0


async def _end_at_once(scope: trio.CancelScope, fake: FakeMember) -> None:
    fake.leave()
    scope.cancel()


async def test_a_room_that_is_replaced_while_the_others_are_opened_is_not_followed() -> None:
    engine = SlowTea(lambda: "e")
    async with open_broker(engine=engine) as harness:
        await ops_with(harness, "bob")
        (carol,) = await arrive(harness, "carol")
        await carol.follow("ops", "tea", cid="f")
        await trio.testing.wait_all_tasks_blocked()
        ops = harness.rooms.get("ops")
        assert ops is not None
        harness.rooms.renew(ops, replaced_room())
        engine.open_now()
        await harness.settle()
        assert (carol.events[-1]["code"], carol.events[-1]["cid"]) == ("unavailable", "f")
        assert carol.member.follows == ()
        assert len(harness.rooms) == 1


class SlowTea(MemoryEngine):
    """Opens one room only when it is told to."""

    waiting: Answered | None = None

    def open(self, room: str, opened: Answered) -> None:
        if room == "tea":
            self.waiting = opened
        else:
            super().open(room, opened)

    def open_now(self) -> None:
        assert self.waiting is not None
        super().open("tea", self.waiting)


async def test_fifty_rooms_cost_a_follower_less_than_a_kilobyte() -> None:
    rooms = [Followers[Member]() for _ in range(50)]
    members = [Member("user", None) for _ in range(1000)]  # type: ignore[arg-type]
    for each in rooms:
        for member in members:
            each.add(member)
    lists = sum(sys.getsizeof(each._members) for each in rooms) / len(members)
    follows = sys.getsizeof(tuple(range(50)))
    assert lists + follows < 1000


def test_a_list_of_followers_forgets_those_that_are_gone() -> None:
    followers = Followers[Member]()
    members = [Member("user", None) for _ in range(100)]  # type: ignore[arg-type]
    for member in members:
        followers.add(member)
    for member in members[:99]:
        member.gone = True
        followers.discard(member)
    assert followers.present() == members[99:]
    assert len(followers) == 1
    assert len(followers._members) < 4
    followers.discard(members[99])
    assert len(followers) == 0


async def test_where_a_room_stands_is_known_when_it_is_opened() -> None:
    async with open_broker() as harness:
        (bob,) = await ops_with(harness, "bob")
        await bob.say("helo")
        await bob.change(Edit(1, 10**9), "hello")
        await harness.settle()
        bob.leave()
        await harness.settle()
        head = await _reopened(harness)
        assert (head.last_id, head.others) == (2, 1)


async def _reopened(harness: BrokerHarness) -> Head:
    (carol,) = await arrive(harness, "carol", room="ops")
    room = harness.rooms.get("ops")
    assert room is not None
    assert room.messages == 1
    assert carol.events[0]["last_id"] == 2
    return await harness.engine.head("ops")
