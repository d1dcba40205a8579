"""Edits, deletions and moderation in the rooms: what members see, in which order, and who has to leave."""

import pytest
import trio

from chatroom.auth.rights import Rights
from chatroom.core.errors import CloseCode, Disconnect
from chatroom.core.messages import Delete, Edit, Moderate, Record
from chatroom.core.sanctions import MAX_SANCTIONS, Action
from chatroom.engines.memory import MemoryEngine
from tests.support.harness import BrokerHarness, FakeMember, arrive, open_broker

pytestmark = pytest.mark.usefixtures("autojump_clock")
DAY = 24 * 3600 * 1000


def told(fake: FakeMember) -> list[tuple[str, int]]:
    """The stored records that have come, by event and id."""
    return [(each["event"], each["id"]) for each in fake.events if "id" in each]


def last(fake: FakeMember) -> dict[str, object]:
    return fake.events[-1]


async def moderator(harness: BrokerHarness, name: str = "carol") -> FakeMember:
    """A member who may moderate."""
    (fake,) = await arrive(harness, name)
    fake.member.moderator = True
    return fake


def act(action: Action, target: str = "bob", seconds: int | None = None) -> Moderate:
    return Moderate(action, target, seconds)


# Edits and deletions


async def test_an_edit_and_a_deletion_are_told_to_all_in_the_order_of_the_log() -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.say("helo", "c")
        await alice.change(Edit(1, DAY), "hello", "e")
        await bob.say("hi")
        await alice.change(Delete(1, DAY), cid="d")
        await harness.settle()
        assert told(alice) == told(bob) == [("message", 1), ("edited", 2), ("message", 3), ("deleted", 4)]
        edited = bob.named("edited")[0]
        assert edited["data"] == {"id": 1, "username": "alice", "text": "hello", "by": "alice"}
        assert edited["cid"] == "e"
        assert bob.named("deleted")[0]["data"] == {"id": 1, "username": "alice", "by": "alice"}
        assert alice.member.outstanding == 0


async def test_who_comes_later_sees_messages_as_they_are_and_each_change_at_its_place() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        await alice.say("one")
        await alice.say("two")
        await alice.change(Edit(1, DAY), "uno")
        await alice.change(Edit(1, DAY), "eins")
        await alice.change(Delete(2, DAY))
        await harness.settle()
        (bob,) = await arrive(harness, "bob")
        assert bob.events[0]["replay"] == bob.events[0]["last_id"] == 5
        assert told(bob) == [("message", 1), ("message", 2), ("edited", 3), ("edited", 4), ("deleted", 5)]
        one, two = bob.named("message")
        assert (one["data"]["text"], one["edited"]) == ("eins", 4)
        assert (two["data"]["text"], two["deleted"]) == ("", 5)
        assert [each["data"]["text"] for each in bob.named("edited")] == ["", "eins"]


@pytest.mark.parametrize("ring_bytes", [0, 1 << 20])
async def test_a_slow_reader_gets_no_text_that_is_gone_by_then(ring_bytes: int) -> None:
    async with open_broker(ring_bytes=ring_bytes) as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        bob.transport.room = 10
        await alice.say("x" * 50)
        await alice.say("secret")
        await harness.settle()
        await alice.change(Delete(2, DAY))
        await harness.settle()
        bob.transport.give_room(1 << 30)
        await harness.settle()
        assert told(bob) == [("message", 1), ("message", 2), ("deleted", 3)]
        assert b"secret" not in bytes(bob.transport.taken)


class SlowReads(MemoryEngine):
    """Reads that are answered late, with what was there before."""

    async def read(self, *args: object, **options: object) -> list[Record]:  # type: ignore[override]
        found = await super().read(*args, **options)  # type: ignore[arg-type]
        await trio.sleep(1)
        return found


async def test_what_was_read_before_a_change_is_given_as_it_is_now() -> None:
    async with open_broker(ring_bytes=0, engine=SlowReads(lambda: "e")) as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        bob.transport.room = 10
        await alice.say("x" * 50)
        await alice.say("secret")
        await trio.testing.wait_all_tasks_blocked()
        bob.transport.give_room(1 << 30)
        await trio.sleep(0.5)  # the log is being read
        await alice.change(Delete(2, DAY))
        await harness.settle()
        await trio.sleep(5)
        assert told(bob) == [("message", 1), ("message", 2), ("deleted", 3)]
        assert b"secret" not in bytes(bob.transport.taken)


async def test_changes_without_end_hold_up_no_reader() -> None:
    async with open_broker(ring_bytes=0, engine=SlowReads(lambda: "e")) as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        bob.transport.room = 10
        await alice.say("x" * 50)
        await alice.say("0")
        await trio.testing.wait_all_tasks_blocked()
        bob.transport.give_room(1 << 30)
        for number in range(1, 20):
            await trio.sleep(0.5)
            await alice.change(Edit(2, DAY), str(number))
        await harness.settle()
        assert told(bob)[:2] == [("message", 1), ("message", 2)]
        await trio.sleep(5)
        assert [each for _, each in told(bob)] == [*range(1, 22)]


@pytest.mark.parametrize(
    ("change", "text", "code"),
    [
        (Edit(9, DAY), "x", "not_found"),
        (Delete(9, DAY), "", "not_found"),
        (Edit(2, DAY), "x", "not_found"),  # an edit is no message
        (Edit(1, DAY), "x", "forbidden"),
        (Delete(1, DAY), "", "forbidden"),
    ],
)
async def test_what_cannot_be_changed_is_answered_to_its_sender_alone(
    change: Edit | Delete, text: str, code: str
) -> None:
    async with open_broker() as harness:
        alice, bob = await arrive(harness, "alice", "bob")
        await alice.say("helo")
        await alice.change(Edit(1, DAY), "hello")
        await harness.settle()
        await bob.change(change, text, "c")
        await harness.settle()
        assert (last(bob)["event"], last(bob)["code"], last(bob)["cid"]) == ("error", code, "c")
        assert told(alice) == [("message", 1), ("edited", 2)]
        assert bob.member.outstanding == 0


async def test_only_within_the_window_may_one_change_ones_words_but_a_moderator_deletes_always() -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        (bob,) = await arrive(harness, "bob")
        await bob.say("old")
        await harness.settle()
        harness.now_ms += 60_000
        for change in (Edit(1, 60_000), Delete(1, 60_000), Delete(1, 0)):
            await bob.change(change, "new" if isinstance(change, Edit) else "", "c")
            await harness.settle()
            assert last(bob)["code"] == "forbidden"
        await carol.change(Edit(1, DAY), "in his mouth", "c")
        await harness.settle()
        assert last(carol)["code"] == "forbidden"
        await carol.change(Delete(1, 0))
        await harness.settle()
        assert last(bob)["data"] == {"id": 1, "username": "bob", "by": "carol"}


async def test_what_is_deleted_already_is_acknowledged_and_stored_once() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        await alice.say("hi", "c")
        await alice.change(Delete(1, DAY), cid="d")
        await alice.change(Delete(1, DAY), cid="d2")
        await alice.change(Delete(1, DAY), cid="d")
        await alice.change(Edit(1, DAY), "x", "e")
        await alice.say("another text", "c")
        await harness.settle()
        assert told(alice) == [("message", 1), ("deleted", 2)]
        assert [each for each in alice.events if each["event"] in ("ack", "error")] == [
            {"event": "ack", "data": {}, "cid": "d2"},
            {"event": "ack", "data": {"id": 2, "duplicate": True}, "cid": "d"},
            {
                "event": "error",
                "data": {"message": "There is no such message"},
                "code": "not_found",
                "cid": "e",
            },
            {"event": "ack", "data": {"id": 1, "duplicate": True}, "cid": "c"},
        ]


async def test_messages_are_counted_without_what_changes_them() -> None:
    async with open_broker() as harness:
        (alice,) = await arrive(harness, "alice")
        await alice.say("hi")
        await alice.change(Edit(1, DAY), "ho")
        await alice.say("two")
        await harness.settle()
        room = harness.rooms.get("r")
        assert room is not None
        assert (room.head, room.messages) == (3, 2)


# Moderation


async def test_sanctions_that_have_ended_are_forgotten() -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        for number in range(1500):
            await carol.change(act(Action.MUTE, f"user{number}", 1))
            harness.now_ms += 1000
            await trio.testing.wait_all_tasks_blocked()
        await harness.settle()
        room = harness.rooms.get("r")
        assert room is not None
        assert room.head == 1500
        assert len(room.sanctions) <= MAX_SANCTIONS


async def test_who_is_muted_says_nothing_more_and_is_told_until_when() -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        (bob,) = await arrive(harness, "bob")
        await bob.say("before", "c1")
        await carol.change(act(Action.MUTE, seconds=600), "flooding", "m1")
        await harness.settle()
        until = harness.now_ms + 600_000
        assert last(bob) == {
            "event": "moderated",
            "data": {
                "action": "mute",
                "username": "bob",
                "by": "carol",
                "until": until,
                "reason": "flooding",
            },
            "room": "r",
            "id": 2,
            "ts": harness.now_ms,
            "cid": "m1",
        }
        await bob.say("after", "c2")
        await harness.settle()
        muted = {"message": "You are muted in this room"}
        assert last(bob) == {
            "event": "error",
            "data": muted,
            "code": "forbidden",
            "until": until,
            "cid": "c2",
        }
        await bob.type(True, "t")
        await harness.settle()
        assert (last(bob)["code"], last(bob)["until"]) == ("forbidden", until)
        assert carol.named("typing") == []
        await bob.change(Edit(1, DAY), "x", "e")
        await harness.settle()
        assert last(bob)["code"] == "forbidden"
        await bob.say("before", "c1")  # a retry of what is stored
        await harness.settle()
        assert last(bob)["data"] == {"id": 1, "duplicate": True}
        await bob.change(Delete(1, DAY))  # that needs no voice
        await harness.settle()
        assert told(carol)[-1] == ("deleted", 3)
        harness.now_ms = until
        await bob.say("again")
        await harness.settle()
        assert told(carol)[-1] == ("message", 4)


async def test_a_mute_is_taken_back() -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        (bob,) = await arrive(harness, "bob")
        await carol.change(act(Action.MUTE))
        await carol.change(act(Action.UNMUTE))
        await carol.change(act(Action.UNMUTE), cid="m")
        await bob.say("hi")
        await harness.settle()
        assert told(bob) == [("moderated", 1), ("moderated", 2), ("message", 3)]
        assert carol.named("ack") == [{"event": "ack", "data": {}, "cid": "m"}]


@pytest.mark.parametrize(
    ("action", "reason", "said"),
    [
        (Action.KICK, "flooding", "flooding"),
        (Action.KICK, "", "kicked"),
        (Action.BAN, "", "banned"),
    ],
)
async def test_who_has_to_leave_is_told_why_and_others_stay(action: Action, reason: str, said: str) -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        bob, twin, other = await arrive(harness, "bob", "bob", "dave")
        await carol.change(act(action), reason)
        await harness.settle()
        for fake in (bob, twin):
            assert last(fake)["event"] == "moderated"
            assert fake.end.ending is not None
            why = fake.end.ending.disconnect
            assert why is not None
            assert (why.code, why.reason) == (CloseCode.REMOVED, said)
        assert other.end.ending is carol.end.ending is None


async def test_who_is_kicked_may_come_back_and_who_is_banned_may_not() -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        await carol.change(act(Action.KICK))
        await harness.settle()
        (bob,) = await arrive(harness, "bob")
        assert bob.named("welcome")
        await carol.change(act(Action.BAN, seconds=60), "spam")
        await harness.settle()
        (bob,) = await arrive(harness, "bob")
        assert bob.events == []
        assert isinstance(bob.end.ending and bob.end.ending.disconnect, Disconnect)
        assert bob.end.ending.disconnect.reason == "spam"  # type: ignore[union-attr]
        (bob,) = await arrive(harness, "bob", room="other")
        await bob.switch("r", cid="s")
        await harness.settle()
        assert (last(bob)["code"], last(bob)["until"]) == ("forbidden", harness.now_ms + 60_000)
        await bob.say("still there")
        await harness.settle()
        assert last(bob)["room"] == "other"
        harness.now_ms += 60_000
        await bob.switch("r", cid="s")
        await harness.settle()
        assert bob.named("switched")


async def test_a_sanction_does_not_bite_a_moderator() -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        bob = await moderator(harness, "bob")
        for action in (Action.MUTE, Action.KICK, Action.BAN):
            await carol.change(act(action))
        await bob.say("ha")
        await harness.settle()
        assert bob.end.ending is None
        assert told(carol)[-1] == ("message", 4)


@pytest.mark.parametrize(("from_room", "to", "stays"), [("r", "other", False), ("other", "r", True)])
async def test_who_is_switching_is_a_moderator_of_the_room_that_it_comes_to(
    from_room: str, to: str, stays: bool
) -> None:
    async with open_broker() as harness:
        bob = harness.fake_member("bob")
        bob.member.rights = Rights.parse({"r": "rwm", "other": "rw"})
        await bob.enter(from_room)
        (carol,) = await arrive(harness, "carol", room=to)
        carol.member.moderator = True
        await bob.switch(to)
        await carol.change(act(Action.BAN))  # nobody has told bob's connection that it has switched
        await harness.settle()
        assert (bob.end.ending is None) == stays


async def test_sanctions_outlast_the_use_of_a_room() -> None:
    async with open_broker() as harness:
        carol = await moderator(harness)
        await carol.change(act(Action.BAN))
        await harness.settle()
        carol.leave()
        await harness.settle()
        assert harness.rooms.get("r") is None
        assert await harness.broker.ban("r", "bob") is not None
        assert await harness.broker.ban("r", "dave") is None
        (bob,) = await arrive(harness, "bob")
        assert bob.events == []
        assert harness.rooms.get("r") is None
