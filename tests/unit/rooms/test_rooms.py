"""What commands do to rooms when their member is on its way out, and what is queued for a slow reader."""

import tracemalloc

import pytest
import trio

from chatroom.core.messages import Head
from chatroom.rooms.broadcast import RoomEvent
from chatroom.rooms.entries import MAX_OTHERS, MemberDraft
from chatroom.rooms.ring import RingBudget
from chatroom.rooms.room import MAX_QUEUED, Room, Subscription
from tests.support.harness import BrokerHarness, FakeMember, NoJoinReply, arrive, broadcast_of, open_broker

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def test_a_departure_comes_after_what_was_posted_before_it() -> None:
    """In the middle of a fan-out, too, though it doesn't come through the inbox."""
    async with open_broker(give_way=1) as harness, trio.open_nursery() as nursery:
        alice, bob, carol = await arrive(harness, "alice", "bob", "carol")
        started: list[str] = []

        async def hurry_off() -> None:
            await alice.say("last words")
            alice.leave()

        def most() -> int:  # of what bob's socket takes: asked when the fan-out has come to him
            if not started:
                started.append("now")
                nursery.start_soon(hurry_off)
            return 1 << 20

        bob.transport.most = most
        await carol.say("hello")
        await harness.settle()
        told = [(each["event"], each["data"]["username"]) for each in bob.events[-2:]]
        assert told == [("message", "alice"), ("left", "alice")]
        assert harness.rooms.get("r").roster.names == ("bob", "carol")


async def test_an_entry_or_an_outcome_without_a_case_is_a_fault() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        with pytest.raises(AssertionError):
            harness.rooms.apply(object())  # type: ignore[arg-type]
        with pytest.raises(AssertionError):
            harness.rooms.settle(MemberDraft(alice.member, "hi", None), object())  # type: ignore[arg-type]


@pytest.mark.parametrize("settled", [True, False])
async def test_commands_of_one_who_has_gone_tell_nobody_anything(settled: bool) -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        alice.leave()
        if settled:
            await harness.settle()
        await alice.type(True, "t")
        await alice.request_members("m")
        await harness.settle()
        assert not bob.named("typing")
        assert not [each for each in alice.events if "cid" in each]


async def test_who_asks_and_leaves_in_one_batch_is_not_answered() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.request_members("m")
        await bob.request_members("n")
        alice.leave()
        await harness.settle()
        assert not alice.named("members")
        assert [each["event"] for each in bob.events[-2:]] == ["members", "left"]
        assert bob.named("members")[0]["data"]["members"] == ["alice", "bob"]


def subscription_of(harness: BrokerHarness) -> Subscription:
    room = Room("r", Head("e", 0), RingBudget(1000))
    subscription = Subscription(FakeMember(harness, "alice").member, room, NoJoinReply())
    subscription.join_reply = None
    return subscription


def event(number: int, *, after: int = 0, presence: bool = False, skip: str | None = None) -> RoomEvent:
    return RoomEvent(b"%d" % number, after, presence=presence, skip=skip)


async def test_of_ephemera_a_few_are_kept_and_of_dropped_ones_only_presence_counts() -> None:
    async with open_broker() as harness:
        subscription = subscription_of(harness)
        subscription.lag(broadcast_of(*[event(number) for number in range(MAX_QUEUED + 10)]))
        assert not subscription.presence_dropped
        subscription.lag(broadcast_of(event(999, presence=True)))
        assert subscription.presence_dropped
        subscription.answer_behind((b"1000",), 0)  # an answer is never dropped
        kept = []
        while subscription.next_queued is not None:
            taken = subscription.pop_queued()
            kept.append(b"".join(taken.reply) or taken.frame)
        assert kept == [b"%d" % number for number in range(MAX_QUEUED)] + [b"1000"]


async def test_after_presence_was_dropped_nothing_else_is_kept_that_the_list_would_contradict() -> None:
    async with open_broker() as harness:
        subscription = subscription_of(harness)
        subscription.presence_dropped = True
        subscription.lag(broadcast_of(event(1, presence=True), event(2)))
        assert subscription.next_queued is None


async def test_what_is_not_for_the_member_is_not_kept_for_it() -> None:
    async with open_broker() as harness:
        subscription = subscription_of(harness)
        subscription.lag(broadcast_of(event(1, skip="alice"), event(2, skip="bob"), b"3"))
        assert subscription.pop_queued().frame == b"2"
        assert subscription.next_queued is None


async def test_what_was_taken_moves_the_cursor_and_nothing_else() -> None:
    async with open_broker() as harness:
        subscription = subscription_of(harness)
        subscription.lag(broadcast_of(b"1", event(2, after=1), b"3", event(4, after=2)), 2)
        assert (subscription.cursor, subscription.live) == (1, False)
        assert subscription.pop_queued().frame == b"4"


async def test_an_answer_whose_place_is_ahead_lets_pass_what_comes_late_and_belongs_before() -> None:
    async with open_broker() as harness:
        subscription = subscription_of(harness)
        subscription.lag(broadcast_of(event(1, after=1)))
        subscription.answer_behind((b"answer",), 4)
        subscription.lag(broadcast_of(event(2, after=2), event(4, after=4), event(5, after=5)))
        kept = []
        while subscription.next_queued is not None:
            taken = subscription.pop_queued()
            kept.append(b"".join(taken.reply) or taken.frame)
        assert kept == [b"1", b"2", b"4", b"answer", b"5"]


async def test_very_many_who_come_at_once_and_do_not_read_share_one_list() -> None:
    async with open_broker() as harness:
        await arrive(harness, "first")
        room = harness.rooms.get("r")
        for number in range(2000):
            room.roster.enter(f"a-name-of-some-length-{number:06}")
        fakes = [harness.fake_member(f"guest{number:03}", room=0) for number in range(90)]
        tracemalloc.start()
        try:
            for fake in fakes:
                await fake.enter("r")
            await harness.settle()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        size = len(room.roster.as_json())
        assert held < 20 * size, "90 times as much, if each had its own"
        for fake in fakes:
            fake.transport.give_room(1 << 30)
        await harness.settle()
        names = set(room.roster.names)
        for fake in fakes:
            assert {*fake.events[0]["data"]["members"], fake.username} == names
            assert fake.member.current.live


class ReadPoller(trio.abc.Instrument):
    """Notes how many have come into a room in one step of a task."""

    def __init__(self, harness: BrokerHarness) -> None:
        self.harness = harness
        self.known = 0
        self.most = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        room = self.harness.rooms.get("r")
        here = len(room.subscriptions) if room is not None else 0
        self.most = max(self.most, abs(here - self.known))
        self.known = here


async def test_of_very_many_who_come_and_go_at_once_a_few_do_so_in_one_step() -> None:
    """All of them wait for their room to be opened; and then all are reset at once."""
    async with open_broker() as harness, trio.open_nursery() as nursery:
        fakes = [harness.fake_member(f"guest{number:03}") for number in range(400)]
        steps = ReadPoller(harness)
        trio.lowlevel.add_instrument(steps)
        for fake in fakes:
            nursery.start_soon(fake.enter, "r")
        await harness.settle()
        assert steps.known == 400
        for fake in fakes:
            fake.leave()
        await harness.settle()
        assert steps.known == 0
        trio.lowlevel.remove_instrument(steps)
        assert steps.most <= MAX_OTHERS
