"""Several nodes on one store."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import trio

from chatroom.config.parsers import read_store_url
from chatroom.core.errors import Unavailable
from chatroom.core.messages import (
    Act,
    Delete,
    Denial,
    Denied,
    Draft,
    Duplicate,
    Edit,
    Edited,
    Head,
    Message,
    Moderate,
    Moderated,
    Retain,
    RoomSummary,
    Unknown,
)
from chatroom.core.sanctions import Action, Sanction
from chatroom.core.stores import StoreAddress
from chatroom.engines.redis import opening
from chatroom.engines.redis.library import RoomKeys, context_of, reap
from chatroom.engines.redis.sharedroom import SharedRoom
from tests.support.storenodes import QUICK, SELDOM, node, until
from tests.support.stores import Kind, Store, Stores


@pytest.fixture(scope="module", params=[(Kind.VALKEY, "always"), (Kind.REDIS, "always"), (Kind.VALKEY, "no")])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that syncs what it answers, and one that doesn't."""
    kind, fsync = request.param
    with closing(Stores(tmp_path_factory.mktemp("stores"), kind)) as stores:
        yield stores.start(appendfsync=fsync)


@pytest.fixture
def address(server: Store) -> StoreAddress:
    server.ask("FLUSHALL")
    return read_store_url(server.url)


def subscribers(server: Store) -> list[str]:
    lines = server.ask("CLIENT", "LIST", "TYPE", "PUBSUB")
    return [word for word in str(lines).split() if word.startswith("id=")]


# Messages


async def test_what_one_node_stores_is_shown_by_all_in_one_order(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        rooms = await one.open(), await two.open()

        async def talk(each: object, letter: str) -> None:
            for number in range(50):
                await (one if letter == "a" else two).say(f"{letter}{number}", f"{letter}{number}'")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, one, "a")
            nursery.start_soon(talk, two, "b")
        await until(lambda: all(room.order.head == 200 for room in rooms))
        assert rooms[0].records == rooms[1].records
        assert sorted(rooms[0].texts) == sorted(
            f"{a}{n}{tick}" for a in "ab" for n in range(50) for tick in ("", "'")
        )


async def test_own_messages_come_as_outcomes_alone(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open()
        room = await two.open()
        outcomes = await one.say("a", "b")
        await until(lambda: room.texts == ["a", "b"])
        assert room.records == outcomes
        assert one.arrivals == []
        assert (await two.say("c"))[0].id == 3  # type: ignore[union-attr]
        await until(lambda: one.arrivals == ["c"])


async def test_own_messages_are_not_read_from_the_log(address: StoreAddress) -> None:
    names = [f"r{number}" for number in range(100)]
    # The engine reads no heads here, so they may be ahead of the outcomes.
    async with node(address, "n1", times=SELDOM) as one:
        rooms = [await one.open(name) for name in names]
        for turn in range(20):
            await one.post(*[Draft(name, "ann", str(turn), None, 0) for name in names])
        await until(lambda: all(len(room.texts) == 20 for room in rooms))
        assert sum(room.reads for room in rooms) == 0
        assert one.arrivals == []


async def test_a_room_that_is_not_open_is_not_heard_of(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open("r")
        await two.open("s")
        await one.say("a")
        await two.say("b", room="s")
        await trio.sleep(0.1)
        assert one.arrivals == two.arrivals == []


async def test_the_same_cid_is_stored_once_whichever_node_it_is_sent_to(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open()
        room = await two.open()
        await one.say("a", cid="c")
        assert await two.say("a", cid="c") == [Duplicate(1)]
        await until(lambda: room.texts == ["a"])


async def test_a_subscription_that_was_cut_is_made_again_and_what_was_missed_is_read(
    address: StoreAddress, server: Store
) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        room = await one.open()
        await two.open()
        for number in range(20):
            await two.say(str(number))
            if number % 5 == 0:
                server.ask("CLIENT", "KILL", "TYPE", "PUBSUB")
        await until(lambda: room.order.head == 20)
        assert room.texts == [str(number) for number in range(20)]
        assert one.engine.troubles() == two.engine.troubles() == ()


async def test_many_messages_at_once_are_all_shown(address: StoreAddress) -> None:
    # The engine reads no heads here, so they may be ahead of the pushes.
    async with node(address, "n1", times=SELDOM) as one, node(address, "n2", times=SELDOM) as two:
        await one.open()
        room = await two.open()
        for start in range(0, 3000, 250):
            await one.post(*[Draft("r", "ann", str(start + n), None, 0) for n in range(250)])
        await until(lambda: room.order.head == 3000)
        assert room.texts == [str(number) for number in range(3000)]
        assert room.reads == 0


async def test_an_outcome_brings_what_was_missed(address: StoreAddress, server: Store) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        room = await one.open()
        await two.open()
        server.ask("CLIENT", "PAUSE", "1", "WRITE")
        outcomes = await two.say("a")
        outcomes += await one.say("b")
        await until(lambda: room.texts == ["a", "b"])
        assert room.records == outcomes


# Changes


def act(what: Act, text: str = "", username: str = "ann", cid: str | None = None) -> Draft:
    return Draft("r", username, text, cid, 0, isinstance(what, Moderate), what)


async def test_changes_come_to_other_nodes_in_their_order(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        rooms = await one.open(), await two.open()
        await one.say("a", "b")
        mute = act(Moderate(Action.MUTE, "bob", 60), "why", "carol")
        outcomes = await one.post(act(Edit(1, 9999), "c"), act(Delete(2, 9999)), mute)
        await until(lambda: rooms[1].order.head == 5)
        assert rooms[0].records == rooms[1].records
        assert rooms[1].records[2:] == outcomes
        assert rooms[1].texts == ["a", "b", "c", "", "why"]  # pushed as they were said
        assert rooms[1].reads == 0


async def test_a_sanction_of_one_node_bites_on_the_other_one(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open()
        await two.open()
        (ban,) = await one.post(act(Moderate(Action.BAN, "bob", 60), username="carol"))
        assert isinstance(ban, Moderated)
        assert await two.say("a", username="bob") == [Denied(Denial.BANNED, ban.until)]
        sanctions = (Sanction(Action.BAN, "bob", "carol", ban.until, ""),)
        assert await two.engine.sanctions("r") == sanctions
        assert (await two.engine.head("r")).sanctions == sanctions


async def test_changes_that_were_missed_are_read_from_the_log_as_they_are_now(
    address: StoreAddress, server: Store
) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        room = await one.open()
        await two.open()
        await two.say("a")
        await until(lambda: room.order.head == 1)
        for number in range(30):
            server.ask("CLIENT", "KILL", "TYPE", "PUBSUB")
            await two.post(act(Edit(1, 9999), f"edit {number}", cid=f"c{number}"))
        await until(lambda: room.order.head == 31)
        edits = room.records[1:]
        assert all(isinstance(each, Edited) for each in edits)
        assert [each.text or f"edit {number}" for number, each in enumerate(edits)] == [
            f"edit {number}" for number in range(30)
        ]
        assert edits[-1].text == "edit 29"


async def test_an_outcome_brings_changes_that_were_missed(address: StoreAddress, server: Store) -> None:
    async with node(address, "n1", times=SELDOM) as one, node(address, "n2", times=SELDOM) as two:
        room = await one.open()
        await two.open()
        await two.say("a", "b")
        await until(lambda: room.order.head == 2)
        server.ask("CLIENT", "PAUSE", "1", "WRITE")
        await two.post(act(Edit(1, 9999), "c"), act(Moderate(Action.KICK, "bob", None), username="carol"))
        await one.say("d")
        await until(lambda: room.order.head == 5)
        assert room.texts == ["a", "b", "c", "", "d"]


async def test_the_same_change_is_made_once_whichever_node_it_is_sent_to(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open()
        await two.open()
        await one.say("a")
        await one.post(act(Edit(1, 9999), "b", cid="c"))
        assert await two.post(act(Edit(1, 9999), "b", cid="c")) == [Duplicate(2)]


async def test_summaries_tell_of_all_rooms_and_of_the_names_on_all_nodes(address: StoreAddress) -> None:
    async with (
        node(address, "n1") as one,
        node(address, "n2") as two,
        node(address, "n3", prefix="x") as other,
    ):
        await one.open()
        await two.open()
        await other.open()
        await other.say("elsewhere")
        (message,) = await one.say("a")
        assert isinstance(message, Message)
        one.come("ann", "bob")
        two.come("bob", "cy")
        await until(lambda: two.rooms["r"].names == {"ann", "bob", "cy"})
        for number in range(120):
            await two.open(f"s{number}")
        await two.post(*[Draft(f"s{number}", "ann", "x", None, 0) for number in range(120)])
        found = {each.room: each for each in await one.engine.summaries()}
        assert found.keys() == {"r", *(f"s{number}" for number in range(120))}
        assert found["r"] == RoomSummary("r", 1, message.ts, 3)
        assert found["s7"].members == 0


async def test_a_record_of_a_newer_version_can_not_be_read_and_is_in_no_history(
    address: StoreAddress, server: Store
) -> None:
    async with node(address, "n1", times=SELDOM) as one, node(address, "n2", times=SELDOM) as two:
        room = await one.open()
        await one.say("a")
        await one.post(act(Moderate(Action.KICK, "bob", None), username="carol"))
        keys = RoomKeys.of("chat", "r")
        line = [1, "carol", "", False, '{"event":"new"}']
        server.client().hset(keys.cids, "\0" + "2", json.dumps(line))
        await two.open()
        with pytest.raises(Unavailable, match="newer version"):
            await two.engine.read("r", room.epoch, 0, 2, limit=9)
        page = await two.engine.history("r", room.epoch, before=None, after=None, upto=2, limit=9)
        assert page.messages == tuple(room.records[:1])
        assert await two.engine.read("r", room.epoch, 0, 1, limit=9) == room.records[:1]


# Presence


async def test_names_are_announced_once_for_all_nodes(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        rooms = await one.open(), await two.open()
        one.come("ann")
        await until(lambda: all(room.told == [("ann", True)] for room in rooms))
        two.come("ann", "bob")
        await until(lambda: all(room.told == [("ann", True), ("bob", True)] for room in rooms))
        assert rooms[0].others == {"ann": 1, "bob": 1}
        assert rooms[1].others == {"ann": 1, "bob": 0}
        one.go("ann")
        await until(lambda: rooms[1].others == {"ann": 0, "bob": 0})
        two.go("ann")
        await until(lambda: all(room.told[2:] == [("ann", False)] for room in rooms))
        assert rooms[0].names == rooms[1].names == {"bob"}


async def test_who_says_something_at_once_has_come_before(address: StoreAddress) -> None:
    """By the pushes; a look at the heads in between may read a message from the log before they come."""
    async with node(address, "n1", times=SELDOM) as one, node(address, "n2", times=SELDOM) as two:
        room, other = await one.open(), await two.open()
        names = [f"u{number}" for number in range(50)]
        for name in names:
            two.come(name)
            await two.say("hello", username=name)
        await until(lambda: len(room.texts) == len(names))
        assert room.first_words == dict.fromkeys(names, True)
        assert other.first_words == dict.fromkeys(names, True)


async def test_who_opens_a_room_gets_the_list(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        room = await one.open()
        one.come("ann", "bob")
        await until(lambda: room.names == {"ann", "bob"})
        other = await two.open()
        assert other.others == {"ann": 1, "bob": 1}
        assert other.rosters == 1


async def test_names_come_and_go_quickly_and_the_last_word_counts(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        room = await one.open()
        other = await two.open()
        for number in range(200):
            one.come(f"u{number % 7}")
            two.come(f"u{number % 5}")
            one.go(f"u{number % 7}")
            if number % 10 == 0:
                await trio.sleep(0.001)
            two.go(f"u{number % 5}")
        one.come("zoe")
        await until(lambda: room.names == other.names == {"zoe"})
        for each in (room, other):
            state: dict[str, bool] = {}
            for name, here in each.told:  # no name comes twice, or goes without having come
                assert state.get(name, False) is not here
                state[name] = here


async def test_a_node_that_dies_is_missed_once_and_only_when_its_lease_is_over(
    address: StoreAddress, server: Store
) -> None:
    async with node(address, "n1") as one:
        room = await one.open()
        one.come("bob")
        async with node(address, "n2") as two:
            await two.open()
            two.come("ann", "bob")
            await until(lambda: room.names == {"ann", "bob"})
            server.ask(
                "ZREM",
                "chat:nodes",
                *[line for line in server.ask("ZRANGE", "chat:nodes", 0, -1) if "n2" in line],
            )
            await trio.sleep(0.15)  # its next beat takes a lease again, and states its names
        stopped = trio.current_time()
        await until(lambda: room.names == {"bob"})
        assert trio.current_time() - stopped > 0.3  # the grace
        assert room.told == [("bob", True), ("ann", True), ("ann", False)]


async def test_who_comes_back_on_another_node_within_the_grace_was_never_away(address: StoreAddress) -> None:
    async with node(address, "n1") as one:
        room = await one.open()
        async with node(address, "n2") as two:
            await two.open()
            two.come("ann")
            await until(lambda: room.names == {"ann"})
        one.come("ann")
        await trio.sleep(1.5)
        assert room.told == [("ann", True)]
        assert room.others == {"ann": 0}


async def test_the_dead_are_not_among_those_whom_a_newcomer_finds(address: StoreAddress) -> None:
    async with node(address, "n1") as one:
        async with node(address, "n2") as two:
            await two.open()
            two.come("ann")
            await trio.sleep(0.1)
        await trio.sleep(1.2)  # longer than a lease
        room = await one.open()
        assert room.names == set()
        assert room.told == []


async def test_a_node_that_is_taken_for_dead_and_lives_says_so(address: StoreAddress, server: Store) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        room, other = await one.open(), await two.open()
        two.come("ann")
        await until(lambda: room.names == {"ann"})
        keys = RoomKeys.of("chat", "r")
        (line,) = [line for line in server.ask("ZRANGE", "chat:nodes", 0, -1) if "n2" in line]
        context = context_of(keys, "n1", sharded=False, keep=None, keep_seconds=None)
        server.ask(*reap(keys, context, [line.split(" ")[0]]))
        await until(lambda: len(room.told) == len(other.told) == 3)
        assert room.names == other.names == {"ann"}


async def test_typing_is_told_to_other_nodes(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        room, other = await one.open(), await two.open()
        one.engine.tell_typing("r", "ann", active=True)
        one.engine.tell_typing("r", "ann", active=False)
        await until(lambda: other.typed == [("ann", True), ("ann", False)])
        assert room.typed == []


def test_of_messages_that_are_behind_what_is_shown_nothing_is_kept() -> None:
    room = SharedRoom("r", RoomKeys.of("chat", "r"), "")
    room.remember_times([Message(number, number, "ann", "a", None) for number in range(1, 11)], None)
    assert len(room.stored_at) == 10
    room.remember_times([Message(11, 11, "ann", "a", None), Message(3, 3, "ann", "a", None)], Head("e", 9))
    assert room.stored_at == {9: 9, 10: 10, 11: 11}


# Rooms


async def test_a_room_that_was_released_is_open_again_at_once(address: StoreAddress, server: Store) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open()
        await two.open()
        one.release()
        await two.say("a")
        assert (await one.open()).order.head == 1
        await two.say("b")
        await until(lambda: one.rooms["r"].texts == ["b"])


async def test_a_room_that_nobody_uses_is_unsubscribed_from_and_leaves_nothing(
    address: StoreAddress, server: Store
) -> None:
    async with node(address, "n1") as one:
        await one.open()
        assert server.ask("PUBSUB", "CHANNELS") == ["chat:{r}"]
        one.come("ann")
        one.go("ann")
        one.release()
        await until(lambda: server.ask("PUBSUB", "CHANNELS") == [])
        await until(lambda: 0 < server.ask("TTL", "chat:{r}:m") <= 60)
        assert (await one.open()).order.head == 0
        assert server.ask("TTL", "chat:{r}:m") > 60


async def test_a_room_in_which_nothing_was_said_is_kept_while_a_node_uses_it_and_then_goes(
    address: StoreAddress, server: Store
) -> None:
    """Also where the node has died, and can't say that it uses it no longer."""
    keys = ("chat:{r}:m", "chat:{r}:p")
    async with node(address, "n1") as one:
        await one.open()
        one.come("ann")
        await until(lambda: server.ask("EXISTS", *keys) == 2)
        for key in keys:
            server.ask("EXPIRE", key, 100)
        await until(lambda: all(server.ask("TTL", key) > 3000 for key in keys))
        await one.open("other")
        await one.say("said", room="other")
        assert server.ask("TTL", "chat:{other}:m") == -1
    assert all(0 < server.ask("TTL", key) <= 3600 for key in keys)


async def test_of_rooms_that_nobody_uses_a_bounded_number_is_kept(
    address: StoreAddress, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MOST_IDLE", 10)
    async with node(address, "n1", times=replace(QUICK, linger=60)) as one:
        await one.open("stays")
        for number in range(40):
            await one.open(f"r{number}")
            one.come("ann", room=f"r{number}")
            one.go("ann", room=f"r{number}")
            one.release(f"r{number}")
        newest = {f"chat:{{r{number}}}" for number in range(30, 40)}
        await until(lambda: set(server.ask("PUBSUB", "CHANNELS")) == newest | {"chat:{stays}"})
        await until(lambda: 0 < server.ask("TTL", "chat:{r0}:m") <= 60)
        assert (await one.open("r0")).order.head == 0


async def test_whoever_is_late_in_a_room_that_was_given_up_is_told_so(address: StoreAddress) -> None:
    async with node(address, "n1") as one:
        epoch = (await one.open()).epoch
        one.release()
        await trio.sleep(0.6)
        assert await one.say("late") == [Unknown()]
        for call in (
            lambda: one.engine.head("r"),
            lambda: one.engine.read("r", epoch, 0, 1, limit=1),
            lambda: one.engine.history("r", epoch, before=None, after=None, upto=1, limit=1),
        ):
            with pytest.raises(Unavailable):
                await call()
        assert one.engine.first_id("r") == 1


async def test_what_is_too_old_goes_also_where_nobody_writes(address: StoreAddress) -> None:
    async with node(address, "n1", retain=Retain(seconds=0.5)) as one:
        await one.open()
        await one.say("a", "b")
        assert one.engine.first_id("r") == 1
        await until(lambda: one.engine.first_id("r") == 3)


def kept(server: Store, room: str = "r") -> tuple[int, int, int]:
    """The numbers of messages and of cids of a room, and its last id."""
    return (
        server.ask("XLEN", f"chat:{{{room}}}:s"),
        server.ask("HLEN", f"chat:{{{room}}}:c") - 1,  # one field is the placeholder
        int(server.ask("HGET", f"chat:{{{room}}}:m", "l")),
    )


async def write_and_leave(address: StoreAddress, *rooms: str, messages: int = 2) -> dict[str, str]:
    """Write in rooms and leave them; returns their epochs."""
    async with node(address, "gone") as one:
        for room in rooms:
            await one.open(room)
            for number in range(messages):
                await one.say(str(number), room=room, cid=f"c{number}")
        return {room: shown.epoch for room, shown in one.rooms.items()}


async def test_what_is_too_old_goes_also_from_rooms_that_nobody_is_in(
    address: StoreAddress, server: Store
) -> None:
    names = [f"room {{{number}}}" for number in range(30)]
    escaped = [f"room %7B{number}%7D" for number in range(30)]
    epochs = await write_and_leave(address, *names)
    async with node(address, "n1", retain=Retain(seconds=0.5)) as one:
        await until(lambda: all(kept(server, name) == (0, 0, 2) for name in escaped))
        room = await one.open(names[0])
        assert room.epoch == epochs[names[0]]
        assert one.engine.first_id(names[0]) == 3
        assert [each.id for each in await one.say("c", room=names[0]) if isinstance(each, Message)] == [3]


async def test_what_is_too_much_goes_also_from_rooms_that_nobody_is_in_or_writes_in(
    address: StoreAddress, server: Store
) -> None:
    await write_and_leave(address, "r", "s", messages=450)
    async with node(address, "n1", retain=Retain(count=3)) as one:
        await one.open("s")
        await until(lambda: kept(server) == kept(server, "s") == (3, 3, 450))
        await until(lambda: one.engine.first_id("s") == 448)
        await one.open()
        (found,) = await one.engine.read("r", one.rooms["r"].epoch, 449, 450, limit=10)
        assert found.id == 450


async def test_one_node_of_several_looks_for_what_is_too_old_and_another_one_after_it(
    address: StoreAddress, server: Store
) -> None:
    def scans() -> int:
        return int(server.ask("INFO", "commandstats").get("cmdstat_scan", {}).get("calls", 0))

    server.ask("CONFIG", "RESETSTAT")
    retain = Retain(count=1)
    async with node(address, "n2", retain=retain):
        async with node(address, "n1", retain=retain):
            await trio.sleep(0.5)
            server.ask("CONFIG", "RESETSTAT")
            await trio.sleep(1.1)
            assert 3 <= scans() <= 6  # one of them every 0.2 s
        await write_and_leave(address, "r")
        await until(lambda: kept(server) == (1, 1, 2))


async def test_nothing_is_looked_for_where_nothing_is_to_go(address: StoreAddress, server: Store) -> None:
    server.ask("CONFIG", "RESETSTAT")
    async with node(address, "n1"):
        await trio.sleep(1)
        assert "cmdstat_scan" not in server.ask("INFO", "commandstats")


async def test_what_is_too_old_goes_when_the_store_is_back(address: StoreAddress, server: Store) -> None:
    await write_and_leave(address, "r")
    server.ask("SET", "chat:{other}:m", "somebody else's")
    async with node(address, "n1", retain=Retain(seconds=1)):
        await trio.sleep(0.5)
        server.ask("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
        await until(lambda: kept(server) == (0, 0, 2))


async def test_a_node_says_how_it_stands(address: StoreAddress) -> None:
    async with node(address, "n1") as one, node(address, "n2") as two:
        await one.open()
        await two.open()
        await two.say("a", "b")
        await until(lambda: one.engine.statistics.foreign_messages_total == 2)
        await until(lambda: one.engine.statistics.nodes == 2)
        statistics = one.engine.statistics
        assert statistics.commands == 0
        assert statistics.lease_age < 1
        assert statistics.silence < 1
        assert isinstance(Message, type)
