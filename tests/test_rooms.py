"""What commands do to rooms when their member is on its way out, and what a stay keeps for a slow reader."""

import pytest
import trio

from chatroom.pure.ring import RingBudget
from chatroom.tasks.room import Room
from chatroom.tasks.stay import MAX_WITHHELD, Item, Stay
from chatroom.values.messages import Head
from tests.support.hall import Guest, Hall, open_hall

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def arrive(hall: Hall, *names: str) -> list[Guest]:
    guests = [hall.guest(name) for name in names]
    for guest in guests:
        await guest.enter("r")
        await hall.settle()
    return guests


async def test_a_departure_that_overtakes_a_message_waits_for_it() -> None:
    """As happens in the middle of a fan-out: commands wait in the inbox, departures are looked at first."""
    async with open_hall(give_way=1) as hall, trio.open_nursery() as nursery:
        alice, bob, carol = await arrive(hall, "alice", "bob", "carol")
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
        await hall.settle()
        told = [(each["event"], each["data"]["username"]) for each in bob.events[-2:]]
        assert told == [("message", "alice"), ("left", "alice")]
        assert hall.rooms.get("r").roster.names == ("bob", "carol")


@pytest.mark.parametrize("settled", [True, False])
async def test_commands_of_one_who_has_gone_tell_nobody_anything(settled: bool) -> None:
    async with open_hall() as hall:
        alice, bob = await arrive(hall, "alice", "bob")
        alice.leave()
        if settled:
            await hall.settle()
        await alice.type(True, "t")
        await alice.ask_members("m")
        await hall.settle()
        assert not bob.named("typing")
        assert not [each for each in alice.events if "cid" in each]


async def test_who_asks_and_leaves_in_one_batch_is_not_answered() -> None:
    async with open_hall() as hall:
        alice, bob = await arrive(hall, "alice", "bob")
        await alice.ask_members("m")
        alice.leave()
        await bob.ask_members("n")
        await hall.settle()
        assert not alice.named("members")
        assert bob.named("members")[0]["data"]["members"] == ["bob"]


def stay_of(hall: Hall) -> Stay:
    room = Room("r", Head("e", 0), RingBudget(1000))
    return Stay(Guest(hall, "alice").member, room, 0, b"")


def item(number: int, *, presence: bool = False, reply: bool = False, skip: str | None = None) -> Item:
    return Item(b"%d" % number, 0, presence=presence, reply=reply, skip=skip)


async def test_of_ephemera_a_few_are_kept_and_of_dropped_ones_only_presence_counts() -> None:
    async with open_hall() as hall:
        stay = stay_of(hall)
        stay.lag([item(number) for number in range(MAX_WITHHELD + 10)], 0)
        assert not stay.missed
        stay.lag([item(999, presence=True)], 0)
        assert stay.missed
        stay.lag([item(1000, reply=True)], 0)  # an answer is never dropped
        kept = []
        while stay.next_withheld is not None:
            kept.append(stay.take_withheld().frame)
        assert kept == [b"%d" % number for number in range(MAX_WITHHELD)] + [b"1000"]


async def test_after_presence_was_dropped_nothing_else_is_kept_that_the_list_would_contradict() -> None:
    async with open_hall() as hall:
        stay = stay_of(hall)
        stay.missed = True
        stay.lag([item(1, presence=True), item(2)], 0)
        assert stay.next_withheld is None


async def test_what_is_not_for_the_member_is_not_kept_for_it() -> None:
    async with open_hall() as hall:
        stay = stay_of(hall)
        stay.lag([item(1, skip="alice"), item(2, skip="bob"), Item(b"3", 1, stored=True)], 0)
        assert stay.take_withheld().frame == b"2"
        assert stay.next_withheld is None


async def test_what_was_taken_moves_the_cursor_and_nothing_else() -> None:
    async with open_hall() as hall:
        stay = stay_of(hall)
        stay.lag([Item(b"1", 1, stored=True), item(2), Item(b"3", 2, stored=True), item(4, presence=True)], 2)
        assert (stay.cursor, stay.live) == (1, False)
        assert stay.take_withheld().frame == b"4"
