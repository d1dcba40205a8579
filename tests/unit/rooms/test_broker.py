"""The broker with its rooms, members and writers: order, presence, lagging, switching, departure."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import trio
import trio.testing

from chatroom.core.errors import CloseCode, Disconnect, Unavailable
from chatroom.core.messages import Draft, Failed, Message, Outcome, Unknown
from chatroom.engines.engine import Feed
from chatroom.engines.memory import MemoryEngine
from chatroom.rooms.broker import AT_ONCE, INBOX
from chatroom.rooms.entries import MAX_DRAFTS, MAX_OTHERS, MemberDraft, TypingUpdate
from tests.support.engines import Answered, Committed, HeldEngine
from tests.support.harness import BrokerHarness, FakeMember, arrive, open_broker

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def test_everyone_in_the_room_gets_the_message_and_nobody_else() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        (carol,) = await arrive(harness, "carol", room="other")
        await alice.say("hi", "c1")
        await harness.settle()
        expected = {
            "event": "message",
            "data": {"username": "alice", "text": "hi"},
            "room": "r",
            "id": 1,
            "ts": 1_764_000_000_000,
            "cid": "c1",
        }
        assert alice.named("message") == bob.named("message") == [expected]
        assert carol.named("message") == []


async def test_presence_is_per_username() -> None:
    async with open_broker() as harness:
        alice, bob, bob2 = await arrive(harness, "alice", "bob", "bob")
        assert bob2.named("welcome")[0]["data"]["members"] == ["alice", "bob"]
        bob.leave()
        await harness.settle()
        assert [each["event"] for each in alice.events] == ["welcome", "joined"]
        bob2.leave()
        await harness.settle()
        assert alice.events[2:] == [{"event": "left", "data": {"username": "bob"}, "room": "r"}]


async def test_left_comes_after_the_last_message_of_the_departed() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await bob.say("bye")
        bob.leave()  # before the broker has looked at the message
        await harness.settle()
        assert [each["event"] for each in alice.events[2:]] == ["message", "left"]


async def test_a_connection_that_is_gone_before_it_is_let_in_is_never_announced() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        ghost = harness.fake_member("ghost")
        ghost.leave()
        await ghost.enter("r")
        await harness.settle()
        assert len(alice.events) == 1
        assert len(harness.rooms.get("r").roster) == 1


async def test_the_echo_of_a_message_sent_just_before_a_switch_is_not_lost() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.say("last words")
        await alice.switch("other", cid="s")
        await harness.settle()
        assert [each["event"] for each in alice.events[2:]] == ["message", "switched"]
        assert [each["event"] for each in bob.events[1:]] == ["message", "left"]
        assert alice.events[-1]["cid"] == "s"


async def test_a_slow_switcher_gets_all_of_the_old_room_before_switched_and_nothing_after() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        alice.transport.room = 10
        for number in range(30):
            await bob.say(f"old {number}")
        await harness.settle()
        await alice.switch("other")
        await harness.settle()
        for number in range(5):
            await bob.say(f"too late {number}")
        await harness.settle()
        alice.transport.give_room(1 << 30)
        await harness.settle()
        assert alice.ids == list(range(1, 31))
        assert alice.events[-1]["event"] == "switched"


async def test_a_freed_room_waits_for_those_who_still_read_there() -> None:
    async with open_broker(ring_bytes=0) as harness:
        (alice,) = await arrive(harness, "alice")
        alice.transport.room = 10
        for number in range(30):
            await alice.say(str(number))
        await harness.settle()
        await alice.switch("other")
        await harness.settle()
        assert harness.rooms.get("r") is not None
        alice.transport.give_room(1 << 30)
        await harness.settle()
        assert alice.ids == list(range(1, 31))
        assert harness.rooms.get("r") is None


async def test_rooms_in_which_nothing_was_stored_are_freed() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice", room="r0")
        for number in range(1, 100):
            await alice.switch(f"r{number}")
            await harness.settle()
        assert len(harness.rooms) == 1
        assert len(harness.engine._used) == 1
        assert not harness.engine._idle


async def test_a_lagging_member_catches_up_from_ring_and_log_and_goes_live() -> None:
    for ring_bytes in (0, 500, 1 << 20):
        async with open_broker(ring_bytes=ring_bytes) as harness:
            alice, slow = await arrive(harness, "alice", "slow")
            slow.transport.room = 100
            for number in range(200):
                await alice.say(f"message {number}")
                await harness.settle()
            assert harness.rooms.lagging == 1
            slow.transport.give_room(1 << 30)
            await harness.settle()
            assert slow.ids == alice.ids == list(range(1, 201))
            assert harness.rooms.lagging == 0
            await alice.say("live again")
            await harness.settle()
            assert slow.ids[-1] == 201


async def test_a_member_whose_next_message_was_trimmed_is_closed_too_far_behind() -> None:
    async with open_broker(ring_bytes=0) as harness:
        alice, slow = await arrive(harness, "alice", "slow")
        slow.transport.room = 10
        for number in range(600):
            await alice.say(f"message {number}")
        await harness.settle()
        slow.transport.give_room(1 << 30)
        await harness.settle()
        assert slow.end.ending.disconnect.code == 4008
        assert slow.ids == list(range(1, len(slow.ids) + 1))  # a cursor never skips


async def test_members_follows_when_presence_was_dropped_for_a_slow_reader() -> None:
    async with open_broker() as harness:
        _, slow = await arrive(harness, "alice", "slow")
        slow.transport.room = 0
        for number in range(300):
            (fake,) = await arrive(harness, f"guest{number}")
            if number % 2:
                fake.leave()
        await harness.settle()
        slow.transport.give_room(1 << 30)
        await harness.settle()
        (members,) = slow.named("members")
        assert members["data"]["members"] == list(harness.rooms.get("r").roster.names)
        assert "cid" not in members


async def test_ephemera_of_a_slow_reader_keep_their_place_among_the_messages() -> None:
    async with open_broker() as harness:
        alice, slow = await arrive(harness, "alice", "slow")
        slow.transport.room = 5
        await alice.say("one")
        await harness.settle()
        (bob,) = await arrive(harness, "bob")
        await bob.say("two")
        await harness.settle()
        bob.leave()
        await harness.settle()
        await alice.say("three")
        await harness.settle()
        slow.transport.give_room(1 << 30)
        await harness.settle()
        assert [each["event"] for each in slow.events[1:]] == [
            "message",
            "joined",
            "message",
            "left",
            "message",
        ]


async def test_typing_goes_to_other_usernames_only_and_is_acknowledged() -> None:
    async with open_broker() as harness:
        alice, alice2, bob = await arrive(harness, "alice", "alice", "bob")
        await alice.type(True, "t")
        await alice.say("x")
        await harness.settle()
        typing = {"event": "typing", "data": {"username": "alice", "active": True}, "room": "r"}
        assert bob.named("typing") == [typing]
        assert not alice.named("typing")
        assert not alice2.named("typing")
        assert alice.named("ack") == [{"event": "ack", "data": {}, "cid": "t"}]


async def test_members_asked_for_include_the_asker() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "bob", "alice")
        await alice.request_members("m")
        await harness.settle()
        expected = {"event": "members", "data": {"members": ["alice", "bob"]}, "room": "r", "cid": "m"}
        assert alice.named("members") == [expected]
        assert not bob.named("members")


async def test_a_retry_is_stored_once_and_a_conflict_is_told() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.say("x", "c")
        await alice.say("x", "c")
        await alice.say("y", "c")
        await harness.settle()
        assert bob.ids == [1]
        assert alice.named("ack") == [{"event": "ack", "data": {"id": 1, "duplicate": True}, "cid": "c"}]
        (error,) = alice.named("error")
        assert (error["code"], error["cid"]) == ("cid_conflict", "c")


async def test_resume_gives_everything_since_or_says_that_it_can_not() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        epoch = alice.events[0]["epoch"]
        for number in range(100):
            await alice.say(f"message {number}")
        await harness.settle()
        cases = [
            (40, epoch, True, list(range(41, 101))),
            (100, epoch, True, []),
            (0, epoch, True, list(range(1, 101))),
            (101, epoch, False, list(range(51, 101))),
            (40, "another", False, list(range(51, 101))),
        ]
        for since, stated, recovered, ids in cases:
            fake = harness.fake_member("guest")
            await fake.enter("r", since, stated)
            await harness.settle()
            welcome = fake.events[0]
            assert (welcome["recovered"], welcome["replay"], fake.ids) == (recovered, len(ids), ids)


async def test_joiners_in_the_middle_of_a_batch_miss_nothing_and_get_nothing_twice() -> None:
    engine = HeldEngine()
    async with open_broker(engine=engine, give_way=1) as harness:
        (alice,) = await arrive(harness, "alice")
        await alice.say("1")
        await harness.settle()  # under way: the rest gathers into one batch
        joiners = []
        for number in range(2, 20):
            fake = harness.fake_member(f"guest{number}")
            joiners.append(fake)
            await fake.enter("r")
            await alice.say(str(number))
        engine.go.set()
        await harness.settle()
        for fake in joiners:
            assert fake.ids == list(range(1, 20))
        everybody = {"alice", *(fake.username for fake in joiners)}
        for fake in joiners:
            told = fake.events[0]["data"]["members"]
            told += [each["data"]["username"] for each in fake.named("joined")]
            assert sorted(told) == sorted(everybody - {fake.username})


async def test_batches_are_bounded_and_the_inbox_pushes_back() -> None:
    engine = HeldEngine()
    async with open_broker(engine=engine) as harness:
        fakes = await arrive(harness, *[f"guest{number}" for number in range(50)])
        sent = 0

        async def flood(fake: FakeMember) -> None:
            nonlocal sent
            for number in range(100):
                await fake.say(str(number))
                sent += 1

        async with trio.open_nursery() as nursery:
            for fake in fakes:
                nursery.start_soon(flood, fake)
            await harness.settle()
            assert sent <= INBOX + 3 * MAX_DRAFTS < 5000, "the others wait"
            engine.go.set()
        await harness.settle()
        assert max(engine.batches) <= MAX_DRAFTS
        assert sum(engine.batches) == 5000
        assert fakes[0].ids == list(range(1, 5001))


async def test_a_stalled_commit_is_reported_and_departures_wait_for_their_turn() -> None:
    engine = HeldEngine()
    async with open_broker(engine=engine) as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.say("x")
        bob.leave()
        await harness.settle()
        assert harness.broker.troubles() == ()
        assert not alice.named("left")
        engine.go.set()
        await harness.settle()
        assert [each["event"] for each in alice.events[2:]] == ["message", "left"]


async def test_while_a_commit_hangs_those_who_come_and_go_leave_nothing_behind() -> None:
    engine = HeldEngine()
    async with open_broker(engine=engine) as harness:
        (alice,) = await arrive(harness, "alice")
        await alice.say("held")
        await harness.settle()
        for number in range(1000):
            ghost = harness.fake_member(f"ghost{number}")
            with trio.move_on_after(0.001):
                await ghost.enter("r")
            ghost.leave()
        assert len(harness.broker._side_queue) == 0
        engine.go.set()
        await harness.settle()
        assert [each["event"] for each in alice.events] == ["welcome", "message"]
        assert len(harness.rooms.get("r").roster) == 1


async def test_a_commit_that_waits_for_over_two_seconds_is_trouble() -> None:
    engine = HeldEngine()
    async with open_broker(engine=engine) as harness:
        (alice,) = await arrive(harness, "alice")
        await alice.say("x")
        await trio.sleep(2.5)
        assert harness.broker.troubles() == ("a commit is waiting",)
        engine.go.set()
        await trio.sleep(1)
        assert harness.broker.troubles() == ()


@pytest.mark.parametrize(
    ("outcome", "code", "retry"), [(Unknown(), "unavailable", True), (Failed(), "internal", None)]
)
async def test_an_append_that_fails_shows_nothing_and_is_told(
    outcome: Outcome, code: str, retry: bool | None
) -> None:
    class FailingEngine(MemoryEngine):
        def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
            committed([outcome for _ in drafts])

    async with open_broker(engine=FailingEngine(lambda: "e")) as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.say("x", "c")
        await harness.settle()
        (error,) = alice.named("error")
        assert (error["code"], error.get("retry"), error["cid"]) == (code, retry, "c")
        assert bob.ids == []


async def test_a_room_that_can_not_be_opened_ends_a_join_and_fails_a_switch() -> None:
    class ShutEngine(MemoryEngine):
        def open(self, room: str, opened: Answered) -> None:
            if room == "shut":
                opened(Unavailable("no"))
            else:
                super().open(room, opened)

    async with open_broker(engine=ShutEngine(lambda: "e")) as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.switch("shut", cid="s")
        await harness.settle()
        (error,) = alice.named("error")
        assert (error["code"], error["retry"], error["cid"]) == ("unavailable", True, "s")
        assert harness.rooms.unavailable == 1, "it counts in the metrics"
        assert not bob.named("left")
        stranger = harness.fake_member("stranger")
        await stranger.enter("shut")
        await harness.settle()
        assert stranger.end.ending.disconnect.code == 1011


async def test_while_the_server_stops_nobody_hears_of_departures() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        harness.rooms.fall_silent()
        bob.leave()
        await harness.settle()
        assert not alice.named("left")


async def test_settled_means_that_all_that_was_handed_in_is_shown() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        for number in range(300):
            await alice.say(str(number))
        await harness.broker.wait_settled()
        assert harness.rooms.get("r").head == 300


async def test_tls_members_get_everything() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        sealed = harness.fake_member("sealed", tls=True)
        await sealed.enter("r")
        for number in range(50):
            await alice.say(str(number))
        await harness.settle()
        assert sealed.ids == list(range(1, 51))


async def test_a_broken_member_harms_nobody() -> None:
    async with open_broker() as harness:
        alice, bob, carol = await arrive(harness, "alice", "bob", "carol")
        bob.transport.fail()
        for number in range(3):
            await alice.say(str(number))
            await harness.settle()
        assert carol.ids == alice.ids == [1, 2, 3]
        assert bob.outbound.broken


async def test_a_storm_of_joins_is_told_in_few_broadcasts_and_nobody_misses_one() -> None:
    async with open_broker() as harness:
        early = await arrive(harness, *[f"early{number}" for number in range(100)])
        broadcasts = harness.rooms.get("r").number
        late = [harness.fake_member(f"late{number}") for number in range(100)]
        for fake in late:
            await fake.enter("r")
            await trio.testing.wait_all_tasks_blocked()
        assert harness.rooms.due < math.inf
        await harness.settle()
        assert harness.rooms.get("r").number - broadcasts < 20
        for fake in early:
            assert [each["data"]["username"] for each in fake.named("joined")[-100:]] == [
                each.username for each in late
            ]
        for fake in late:
            told = {each["data"]["username"] for each in fake.named("joined")}
            told |= set(fake.events[0]["data"]["members"])
            assert told == {each.username for each in early + late} - {fake.username}


async def test_a_message_takes_waiting_presence_with_it() -> None:
    async with open_broker() as harness:
        early = await arrive(harness, *[f"early{number}" for number in range(100)])
        for name in ("bob", "carol"):
            await harness.fake_member(name).enter("r")
        await early[0].say("hello")
        await trio.testing.wait_all_tasks_blocked()
        assert [each["event"] for each in early[1].events[-3:]] == ["joined", "joined", "message"]


async def test_on_a_broken_connection_an_opening_is_passed_over_so_that_its_reader_goes_on() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        alice.transport.room = 5
        await alice.say("a message that gets stuck")
        await harness.settle()
        replied = alice.outgoing.expect_reply()
        await alice.switch("other")
        alice.transport.fail()
        await harness.settle()
        assert replied.is_set()


async def test_an_answer_of_members_stands_where_it_is_true() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        fakes = [harness.fake_member(f"guest{number}") for number in range(6)]
        for number, fake in enumerate(fakes):
            await fake.enter("r")
            await alice.request_members(f"m{number}")  # more at once than a reader would ask
            if number % 2:
                fakes[number - 1].leave()
        await harness.settle()
        known: set[str] = {"alice"}
        for event in alice.events[1:]:
            match event["event"]:
                case "joined":
                    known.add(event["data"]["username"])
                case "left":
                    known.remove(event["data"]["username"])
                case "members":
                    assert event["data"]["members"] == sorted(known)
        assert len(alice.named("members")) == 6


async def test_an_answer_of_members_is_never_dropped() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        alice.transport.room = 0
        for number in range(300):
            await arrive(harness, f"guest{number}")
        replied = alice.outgoing.expect_reply()
        await alice.request_members("m")
        await harness.settle()
        alice.transport.give_room(1 << 30)
        await harness.settle()
        assert replied.is_set()
        assert [each.get("cid") for each in alice.named("members")] == ["m", None]


async def test_answers_that_are_under_way_are_given_before_a_stop_closes() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        for number in [*range(5), *range(5)]:
            await alice.say(f"text {number}", f"c{number}")
        alice.end.disconnect(Disconnect(CloseCode.RESTART, "stop"))
        await alice.outgoing.catch_up()
        assert len(alice.named("message")) == len(alice.named("ack")) == 5


async def test_a_storm_of_leaves_owes_the_leavers_nothing() -> None:
    async with open_broker() as harness:
        fakes = await arrive(harness, *[f"guest{number}" for number in range(50)])
        for fake in fakes:
            fake.transport.room = 0
            fake.leave()
        await harness.settle()
        assert len(harness.rooms) == 0
        assert all(fake.member.subscriptions == [] for fake in fakes)


# The pump


class AskedEngine(MemoryEngine):
    """Answers an append when it is asked to, and tells of what others store."""

    def __init__(self) -> None:
        super().__init__(lambda: "epoch")
        self.answer: Callable[[], None] = lambda: None
        self.feed: Feed

    async def serve(
        self, feed: Feed, /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.feed = feed
        await super().serve(feed, task_status=task_status)

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        self.answer = partial(super().append, drafts, committed)

    def store(self, room: str, *texts: str) -> None:
        """Others, somewhere else, have posted this."""
        outcomes = [self._append(Draft(room, "carol", text, None, 1)) for text in texts]
        self.feed.arrived(room, "epoch", [message for message in outcomes if isinstance(message, Message)])


def pump(harness: BrokerHarness) -> None:
    """Have done what there is to do at once."""
    while harness.broker.pump() == AT_ONCE:
        pass


async def pumped(harness: BrokerHarness, *names: str) -> list[FakeMember]:
    """Fake members who have come in, where the test itself pumps."""
    fakes = [harness.fake_member(name) for name in names]
    for fake in fakes:
        await fake.enter("r")
        pump(harness)
        await trio.testing.wait_all_tasks_blocked()
    return fakes


async def test_where_the_engine_answers_at_once_one_pump_takes_a_message_to_everybody() -> None:
    async with trio.open_nursery() as nursery:
        harness = BrokerHarness(nursery)
        alice, bob = await pumped(harness, "alice", "bob")
        await alice.say("hi")
        assert harness.broker.pump() == math.inf
        assert alice.ids == bob.ids == [1]
        assert len(harness.commits) == 1
        nursery.cancel_scope.cancel()


async def test_what_comes_from_the_engine_is_looked_at_before_commands_that_fill_the_inbox() -> None:
    engine = AskedEngine()
    async with trio.open_nursery() as nursery:
        harness = BrokerHarness(nursery, engine=engine)
        alice, bob = await pumped(harness, "alice", "bob")
        await alice.say("hi")
        pump(harness)
        for _ in range(2):  # a batch is full that can't be handed on, and then the inbox
            while harness.broker.submit_nowait(TypingUpdate(bob.member, True, None)):
                pass
            pump(harness)
        assert len(alice.events) == 2
        assert harness.broker.uncommitted == 1
        engine.answer()
        assert harness.broker.uncommitted == 0
        for told in (["message"], ["typing"] * MAX_OTHERS, ["typing"] * MAX_OTHERS):
            before = len(alice.events)
            assert harness.broker.pump() == AT_ONCE
            assert [each["event"] for each in alice.events[before:]] == told
        nursery.cancel_scope.cancel()


async def test_a_fan_out_that_gives_way_goes_on_and_nothing_overtakes_it() -> None:
    engine = AskedEngine()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            engine.serve, (harness := BrokerHarness(nursery, engine=engine, give_way=1)).broker
        )
        fakes = alice, bob, carol = await pumped(harness, "alice", "bob", "carol")
        dave = harness.fake_member("dave")
        await alice.say("one")
        pump(harness)
        engine.answer()
        for told in (1, 2, 3):
            assert harness.broker.pump() == AT_ONCE
            assert [fake.ids for fake in fakes] == [[1]] * told + [[]] * (3 - told)
            if told == 1:
                await bob.say("three")
                carol.leave()
                await dave.enter("r")
                engine.store("r", "two")
        pump(harness)
        engine.answer()
        pump(harness)
        await trio.testing.wait_all_tasks_blocked()
        told_last = [each["event"] for each in bob.events[-4:]]
        assert told_last == ["message", "message", "left", "joined"]
        assert alice.ids == bob.ids == dave.ids == [1, 2, 3]
        assert carol.ids == [1, 2]
        nursery.cancel_scope.cancel()


async def test_what_others_have_stored_is_shown_like_ones_own() -> None:
    engine = AskedEngine()
    async with open_broker(engine=engine) as harness, trio.open_nursery() as nursery:
        await nursery.start(engine.serve, harness.broker)
        alice, bob = await arrive(harness, "alice", "bob")
        bob.transport.room = 5
        engine.store("r", "one", "two")
        await harness.settle()
        await alice.say("three")
        await harness.settle()
        engine.answer()
        await harness.settle()
        engine.store("r", "four")
        bob.transport.give_room(1 << 30)
        await harness.settle()
        late = harness.fake_member("late")
        await late.enter("r")
        await harness.settle()
        texts = [each["data"]["text"] for each in alice.named("message")]
        assert texts == ["one", "two", "three", "four"]
        assert alice.ids == bob.ids == late.ids == [1, 2, 3, 4]
        assert harness.rooms.messages == 4
        engine.feed.arrived("elsewhere", "epoch", [Message(1, 1, "carol", "nobody is there any more", None)])
        await harness.settle()
        assert harness.rooms.messages == 4
        nursery.cancel_scope.cancel()


async def test_what_others_store_at_once_is_told_at_once() -> None:
    engine = AskedEngine()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.serve, (harness := BrokerHarness(nursery, engine=engine)).broker)
        alice, _ = await pumped(harness, "alice", "bob")
        for number in range(2 * MAX_DRAFTS + 1):
            engine.store("r", str(number))
        before = harness.offers
        told = []
        while harness.broker.pump() == AT_ONCE:
            told.append(len(alice.ids))
        assert told == [MAX_DRAFTS, 2 * MAX_DRAFTS]
        assert len(alice.ids) == 2 * MAX_DRAFTS + 1
        assert harness.offers - before == 3 * 2, "each batch is one offer to each member"
        nursery.cancel_scope.cancel()


async def test_an_echo_that_the_feed_has_brought_is_the_one_answer_if_the_outcome_is_unknown() -> None:
    engine = AskedEngine()
    engine.shared = True
    async with open_broker(engine=engine) as harness, trio.open_nursery() as nursery:
        await nursery.start(engine.serve, harness.broker)
        (alice,) = await arrive(harness, "alice")
        await alice.say("one", "c1")
        await alice.say("two", "c2")
        await harness.settle()
        engine.feed.arrived("r", "epoch", [Message(1, 1, "alice", "one", "c1")])
        await harness.settle()
        harness.broker.committed([Unknown(), Unknown()])
        await harness.settle()
        answers = [(each["event"], each["cid"]) for each in alice.events[1:]]
        assert answers == [("message", "c1"), ("error", "c2")]
        assert alice.member.outstanding == 0
        nursery.cancel_scope.cancel()


async def test_departures_take_effect_however_much_others_store() -> None:
    engine = AskedEngine()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.serve, (harness := BrokerHarness(nursery, engine=engine)).broker)
        alice, bob = await pumped(harness, "alice", "bob")
        bob.leave()
        for number in range(5):
            engine.store("r", str(number))
            harness.broker.pump()
        assert [each["event"] for each in alice.events[2:]].count("left") == 1
        nursery.cancel_scope.cancel()


async def test_a_departure_behind_a_message_that_found_place_by_another_ones_wait_comes_after_it() -> None:
    engine = AskedEngine()
    async with trio.open_nursery() as nursery:
        harness = BrokerHarness(nursery, engine=engine)
        alice, bob, carol = await pumped(harness, "alice", "bob", "carol")
        while harness.broker.submit_nowait(TypingUpdate(alice.member, True, None)):
            pass
        nursery.start_soon(alice.type, True)
        await trio.testing.wait_all_tasks_blocked()
        harness.broker.pump()  # what alice waits to hand in has its place now, which her task has yet to hear
        bob.member.outstanding += 1
        assert harness.broker.submit_nowait(MemberDraft(bob.member, "bye", None))
        bob.leave()
        pump(harness)
        await trio.testing.wait_all_tasks_blocked()
        pump(harness)
        engine.answer()
        pump(harness)
        told = [each["event"] for each in carol.events if each["event"] != "typing"]
        assert told[-2:] == ["message", "left"]
        nursery.cancel_scope.cancel()


async def test_a_fault_that_an_engine_tells_of_later_is_raised_by_the_pump() -> None:
    class Fault(Exception):
        pass

    async with trio.open_nursery() as nursery:
        harness = BrokerHarness(nursery, engine=AskedEngine())
        (alice,) = await pumped(harness, "alice")
        await alice.say("hi")
        pump(harness)
        harness.broker.committed(Fault())
        assert harness.broker.uncommitted == 1
        with pytest.raises(Fault):
            harness.broker.pump()
        nursery.cancel_scope.cancel()
