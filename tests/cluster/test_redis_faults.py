"""Several nodes while their store, or the way to it, fails.

In each test every call ends in time, the nodes recover by themselves, no acknowledged message is missing or
doubled, and no node is told of joins or leaves that weren't.
"""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial

import pytest
import trio

from chatroom.config.parsers import read_store_url
from chatroom.core.errors import EngineError, Replaced, StartError
from chatroom.core.messages import Draft, Duplicate, Message, Outcome, Unknown
from chatroom.core.stores import StoreAddress
from chatroom.engines.redis.connecting import Connector, look
from tests.support.relay import Relay
from tests.support.storenodes import QUICK, Node, Shown, node, until
from tests.support.stores import Kind, Store, Stores


@asynccontextmanager
async def two_nodes(
    address: StoreAddress, other: StoreAddress | None = None
) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes in one room, with a name on each and a message."""
    async with node(address, "n1") as one, node(other or address, "n2") as two:
        room, other_room = await one.open(), await two.open()
        one.come("ann")
        two.come("bob")
        await one.say("before")
        await until(lambda: room.names == other_room.names == {"ann", "bob"})
        await until(lambda: other_room.texts == ["before"])
        yield one, two


def address_of(store: Store) -> StoreAddress:
    return read_store_url(store.url)


async def say_until_stored(one: Node, text: str, cid: str) -> int:
    """As a client does: the same cid again, until it is stored. Returns the id."""
    while True:
        (outcome,) = await in_time(lambda: one.say(text, cid=cid))
        match outcome:
            case Message(id=number) | Duplicate(id=number):
                return number
        assert outcome == Unknown()
        await trio.sleep(0.02)


async def in_time(call: Callable[[], object]) -> list[Outcome]:
    """What a call returns, within the time that it has."""
    with trio.fail_after(3):
        return await call()  # type: ignore[misc,no-any-return]


async def talk(one: Node, letter: str, acknowledged: dict[str, int], stop: trio.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        text = f"{letter}{number}"
        acknowledged[text] = await say_until_stored(one, text, text)
        await trio.sleep(0.002)


async def through(one: Node, two: Node, fault: Callable[[], object], *, calm: float = 0.3) -> None:
    """Both nodes talk while something happens, and a moment longer; then all that was acknowledged is there,
    once."""
    rooms = one.rooms["r"], two.rooms["r"]
    acknowledged: dict[str, int] = {}
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, one, "a", acknowledged, stop)
        nursery.start_soon(talk, two, "b", acknowledged, stop)
        await trio.sleep(0.1)
        await trio.to_thread.run_sync(fault)
        await until(lambda: not one.engine.troubles() and not two.engine.troubles(), 10)
        await trio.sleep(calm)
        stop.set()
    last = max(acknowledged.values())
    await until(lambda: all(room.order.head >= last for room in rooms))
    for room in rooms:
        ids = {message.text: message.id for message in room.records}
        assert len(ids) == len(room.records)
        assert acknowledged.items() <= ids.items()
        assert room.replaced is None
    assert rooms[0].records[:last] == [*rooms[0].records[:1], *rooms[1].records[: last - 1]] or (
        rooms[0].records == rooms[1].records
    )


def quiet(*rooms: Shown) -> None:
    """Nobody was said to come or go."""
    for room in rooms:
        assert {name for name, here in room.told if not here} == set()
        assert len(room.told) == len(set(room.told))
        assert room.names == {"ann", "bob"}


# How the store is set up


async def test_a_store_that_is_set_up_otherwise_while_it_runs_is_warned_of(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [vars(each)["fields"]["reason"] for each in caplog.records if each.msg == "store_unsafe"]

    store = stores.start()
    unsynced = "appendfsync isn't always: a crash loses the last messages"
    async with two_nodes(address_of(store)) as (one, two):
        assert warnings() == []
        store.config_set("appendfsync", "no")
        await until(lambda: warnings() == [unsynced] * 2)
        store.config_set("maxmemory", "100mb")
        store.config_set("maxmemory-policy", "allkeys-lru")
        await until(lambda: len(warnings()) == 4)
        assert all("the store evicts keys" in each for each in warnings()[2:])
        await one.say("goes on")
        await until(lambda: two.rooms["r"].texts == ["before", "goes on"])
        store.config_set("maxmemory-policy", "noeviction")
        store.config_set("appendfsync", "always")
        await trio.sleep(1)
        store.config_set("appendfsync", "everysec")
        await until(lambda: warnings()[4:] == [unsynced] * 2)
        quiet(one.rooms["r"], two.rooms["r"])


def test_a_store_that_does_not_tell_how_it_syncs_is_taken_for_one_that_does(stores: Stores) -> None:
    """So nothing is shown that a crash might take back; only the warning can't be had."""
    told = stores.start(users=["chatroom on nopass ~* &* +@all -config"])
    url = told.url.replace("redis://", "redis://chatroom:x@")
    connection = Connector(read_store_url(url), patience=1).connect()
    facts = look(connection)
    connection.disconnect()
    assert (facts.proves, facts.risks, facts.fault) == (True, (), None)


# The store goes and comes back


@pytest.mark.parametrize("kind", Kind)
async def test_killed_and_started_again_with_its_data(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):

        def fault() -> None:
            store.kill()
            store.start()

        await through(one, two, fault)
        quiet(one.rooms["r"], two.rooms["r"])


async def test_the_log_names_the_store_that_was_lost_without_its_password(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    def servers(event: str) -> list[object]:
        return [vars(each)["fields"]["server"] for each in caplog.records if each.msg == event]

    store = stores.start(password="s3cret")
    address = address_of(store)
    async with node(address, "n1"):
        store.kill()
        await until(lambda: servers("store_lost") == [f"redis://127.0.0.1:{store.port}"])
        await trio.to_thread.run_sync(store.start)
        await until(lambda: servers("store_back") == [f"redis://127.0.0.1:{store.port}"])


async def test_away_for_longer_than_a_lease(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):

        def fault() -> None:
            store.kill()
            trio.from_thread.run(trio.sleep, 1.5)
            assert one.engine.troubles() == two.engine.troubles() == ("the store can't be reached",)
            store.start()

        await through(one, two, fault, calm=1.5)
        quiet(one.rooms["r"], two.rooms["r"])


@pytest.mark.parametrize("kind", Kind)
async def test_frozen_it_answers_nothing_and_does_later_what_it_was_sent(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):

        def fault() -> None:
            store.freeze()
            trio.from_thread.run(trio.sleep, 2.5)
            assert one.engine.troubles() == two.engine.troubles() == ("the store does not answer",)
            store.thaw()

        await through(one, two, fault, calm=1.5)
        quiet(one.rooms["r"], two.rooms["r"])


async def test_whatever_is_asked_of_a_frozen_store_ends_in_time(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, _):
        epoch = one.rooms["r"].epoch
        store.freeze()
        ended = []

        async def ends(call: Callable[[], object]) -> None:
            began = trio.current_time()
            with pytest.raises(EngineError):
                await call()  # type: ignore[misc]
            ended.append(trio.current_time() - began)

        engine = one.engine
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ends, lambda: engine.head("r"))
                nursery.start_soon(ends, lambda: engine.read("r", epoch, 0, 1, limit=9))
                nursery.start_soon(
                    ends, lambda: engine.history("r", epoch, before=None, after=None, upto=1, limit=9)
                )
                nursery.start_soon(ends, partial(one.open, f"other{number}"))
                began = trio.current_time()
                assert await one.say("x") == [Unknown()]
                assert trio.current_time() - began < 2
        assert max(ended) < 3
        store.thaw()
        await until(lambda: not engine.troubles())
        await one.open("other")
        assert (await engine.read("r", epoch, 0, 1, limit=9))[0].text == "before"


async def test_loading_its_data(stores: Stores) -> None:
    store = stores.start("key-load-delay 100")
    with store.client().pipeline() as pipeline:
        for number in range(15_000):
            pipeline.set(f"key{number}", number)
        pipeline.execute()
    async with two_nodes(address_of(store)) as (one, two):
        seen = set()

        def fault() -> None:
            store.kill()
            store.start()

        async def look() -> None:
            while True:
                seen.update(one.engine.troubles())
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await through(one, two, fault)
            nursery.cancel_scope.cancel()
        assert "the store is loading its data" in seen
        quiet(one.rooms["r"], two.rooms["r"])


async def test_busy_with_a_script(stores: Stores) -> None:
    store = stores.start("busy-reply-threshold 50")
    async with two_nodes(address_of(store)) as (one, two):

        def fault() -> None:
            with closing(store.client(socket_timeout=10)) as client:
                connection = client.connection_pool.get_connection()
                connection.send_command("EVAL", "while true do end", 0)
                trio.from_thread.run(trio.sleep, 1.0)
                assert one.engine.troubles() == two.engine.troubles() == ("the store is busy with a script",)
                store.client().execute_command("SCRIPT KILL")
                connection.disconnect()

        await through(one, two, fault)
        quiet(one.rooms["r"], two.rooms["r"])


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("fault", "back", "trouble"),
    [
        (("CONFIG SET", "maxmemory", "1"), ("CONFIG SET", "maxmemory", "0"), "the store's memory is full"),
        (
            ("CONFIG SET", "min-replicas-to-write", "1"),
            ("CONFIG SET", "min-replicas-to-write", "0"),
            "too few of the store's replicas are connected",
        ),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "the store is read-only (a replica)"),
        (
            ("ACL SETUSER", "default", "-fcall"),
            ("ACL SETUSER", "default", "+fcall"),
            "the store does not let its user do what is needed",
        ),
        (
            ("ACL SETUSER", "default", "resetkeys"),
            ("ACL SETUSER", "default", "~*"),
            "the store does not let its user do what is needed",
        ),
    ],
)
async def test_taking_no_messages(
    stores: Stores, fault: tuple[str, ...], back: tuple[str, ...], trouble: str
) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):

        def happens() -> None:
            store.ask(*fault)
            trio.from_thread.run(trio.sleep, 1.3)
            assert one.engine.troubles() == two.engine.troubles() == (trouble,)
            store.ask(*back)

        await through(one, two, happens, calm=1.3)
        quiet(one.rooms["r"], two.rooms["r"])


@pytest.mark.parametrize("kind", Kind)
async def test_a_store_whose_memory_is_full_is_read_all_the_same(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):
        room = one.rooms["r"]
        store.config_set("maxmemory", 1)
        assert await one.say("x") == [Unknown()]
        assert (await one.engine.read("r", room.epoch, 0, 1, limit=9))[0].text == "before"
        two.come("cy")
        await until(lambda: room.names == {"ann", "bob", "cy"})
        await two.open("other")


@pytest.mark.parametrize("kind", Kind)
async def test_its_functions_are_gone(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):
        await through(one, two, lambda: store.ask("FUNCTION FLUSH"))
        quiet(one.rooms["r"], two.rooms["r"])


@pytest.mark.parametrize("whose", ["NORMAL", "PUBSUB"])
async def test_connections_are_killed(stores: Stores, whose: str) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):

        def fault() -> None:
            for _ in range(5):
                store.ask("CLIENT", "KILL", "TYPE", whose, "SKIPME", "yes")
                trio.from_thread.run(trio.sleep, 0.05)

        await through(one, two, fault)
        quiet(one.rooms["r"], two.rooms["r"])
        assert one.engine.statistics.reconnects_total >= (5 if whose == "NORMAL" else 0)


async def test_reading_goes_on_over_a_connection_that_is_killed(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, _):
        for _ in range(20):
            store.ask("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
            assert (await one.engine.head("r")).last_id == 1


# The store has less than it had


@pytest.mark.parametrize("how", ["flushed", "restarted"])
async def test_empty_it_gets_a_new_epoch_for_all(stores: Stores, how: str) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):
        rooms = one.rooms["r"], two.rooms["r"]
        if how == "flushed":
            store.ask("FLUSHALL")
        else:
            await trio.to_thread.run_sync(lambda: store.restart(empty=True))
        await until(lambda: all(room.replaced is not None for room in rooms))
        assert rooms[0].replaced == rooms[1].replaced
        assert rooms[0].replaced is not None
        assert rooms[0].replaced[0] != rooms[0].epoch
        for each in (one, two):
            each.release()
        again = await one.open(), await two.open()
        assert again[0].epoch == again[1].epoch == rooms[0].replaced[0]
        one.come("ann")
        two.come("bob")
        await one.say("after")
        await until(lambda: again[1].texts == ["after"])
        await until(lambda: again[0].names == again[1].names == {"ann", "bob"})


async def test_a_room_that_nobody_uses_is_not_asked_for_for_ever_when_the_store_is_empty(
    stores: Stores,
) -> None:
    store = stores.start()
    async with node(address_of(store), "n1", times=replace(QUICK, linger=1.0)) as one:
        await one.open()
        one.come("ann")
        one.go("ann")
        await trio.sleep(0.1)
        one.release()
        store.ask("FLUSHALL")
        await until(lambda: store.ask("PUBSUB", "CHANNELS") == [])


async def test_who_reads_what_a_store_has_lost_is_told_that_the_log_is_another_one(stores: Stores) -> None:
    store = stores.start()
    async with node(address_of(store), "n1", times=replace(QUICK, beat=60)) as one:
        room = await one.open()
        await one.say("a", "b", "c")
        store.ask("HSET", "chat:{r}:m", "l", "1")
        with pytest.raises(Replaced):
            await one.engine.read("r", room.epoch, 1, 3, limit=10)
        await until(lambda: room.replaced is not None)


async def test_what_is_beyond_the_end_of_the_log_is_not_there(stores: Stores) -> None:
    store = stores.start()
    async with node(address_of(store), "n1") as one:
        room = await one.open()
        await one.say("a")
        assert await one.engine.read("r", room.epoch, 1, 3, limit=10) == []


async def test_an_append_to_a_flushed_store_is_not_stored_under_the_old_epoch(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):
        rooms = one.rooms["r"], two.rooms["r"]
        store.ask("FLUSHALL")
        assert await one.say("x") == [Unknown()]
        await until(lambda: all(room.replaced is not None for room in rooms))
        assert rooms[0].replaced == rooms[1].replaced


async def test_gone_back_it_gets_a_new_epoch(stores: Stores) -> None:
    store = stores.start()
    async with two_nodes(address_of(store)) as (one, two):
        rooms = one.rooms["r"], two.rooms["r"]
        copy = store.folder / "copy"
        shutil.copytree(store.data, copy)
        await one.say("a", "b", "c")
        await until(lambda: rooms[1].order.head == 4)

        def fault() -> None:
            store.kill()
            shutil.rmtree(store.data)
            shutil.copytree(copy, store.data)
            store.start()

        await trio.to_thread.run_sync(fault)
        await until(lambda: all(room.replaced is not None for room in rooms))
        assert rooms[0].replaced == rooms[1].replaced
        assert rooms[0].replaced is not None
        assert rooms[0].replaced[1] == 1


async def test_gone_back_and_ahead_again_it_gets_a_new_epoch(stores: Stores) -> None:
    """As after a failover to a replica that was behind: a node writes there before those that saw more."""
    store, other = stores.start(), stores.start()
    with Relay(store.port) as relay:
        way = StoreAddress(address_of(store).kind, (("127.0.0.1", relay.port),))
        async with node(way, "n1") as one:
            room = await one.open()
            await one.say("before")
            other.ask("REPLICAOF", "127.0.0.1", store.port)
            other.await_synced()
            other.ask("REPLICAOF", "NO", "ONE")
            await one.say("a", "b", "c")
            async with node(address_of(other), "n2") as two:
                theirs = await two.open()
                await two.say("x", "y", "z", "zz")
                relay.target = other.port
                relay.cut()
                await until(lambda: room.replaced is not None and theirs.replaced is not None)
                assert room.replaced == theirs.replaced
                assert room.texts[:4] == ["before", "a", "b", "c"]
                assert theirs.texts == ["x", "y", "z", "zz"]


# The way to the store


@pytest.mark.parametrize("kind", Kind)
async def test_a_node_that_is_cut_off_is_missed_once_and_comes_back_without_ghosts(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as relay:
        far = StoreAddress(address_of(store).kind, (("127.0.0.1", relay.port),))
        async with two_nodes(address_of(store), far) as (one, two):
            room, other = one.rooms["r"], two.rooms["r"]
            relay.refusing = True
            relay.cut()
            await one.say("a")
            await until(lambda: room.names == {"ann"})
            assert await two.say("x") == [Unknown()]
            one.come("cy")
            one.go("ann")
            two.go("bob")
            two.come("di")
            relay.refusing = False
            await until(lambda: room.names == other.names == {"cy", "di"})
            await until(lambda: other.texts[:2] == ["before", "a"])
            assert room.told.count(("bob", False)) == 1


async def test_a_way_that_carries_nothing_and_says_nothing(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as relay:
        far = StoreAddress(address_of(store).kind, (("127.0.0.1", relay.port),))
        async with two_nodes(address_of(store), far) as (one, two):
            relay.stall()
            await one.say("a")
            await until(lambda: two.rooms["r"].texts == ["before", "a"])
            await say_until_stored(two, "b", "b")
            await until(lambda: one.rooms["r"].texts == ["before", "a", "b"])
            quiet(one.rooms["r"], two.rooms["r"])


async def test_answers_that_are_lost(stores: Stores) -> None:
    """The store does everything, and its answers are lost."""
    store = stores.start()
    with Relay(store.port) as relay:
        far = StoreAddress(address_of(store).kind, (("127.0.0.1", relay.port),))
        async with two_nodes(address_of(store), far) as (one, two):
            relay.part(deaf=True)
            (outcome,) = await two.say("a", cid="a")
            assert outcome == Unknown()
            await until(lambda: one.rooms["r"].texts == ["before", "a"])
            relay.join()
            await until(lambda: not two.engine.troubles())
            assert await two.say("a", cid="a") == [Duplicate(2)]
            await until(lambda: two.rooms["r"].texts == ["before", "a"])


# Starting and stopping


async def start_error(address: StoreAddress) -> str:
    said = []
    try:
        async with node(address, "n1"):
            pass
    except* StartError as group:
        errors: list[BaseException] = [group]
        while errors:
            error = errors.pop()
            if isinstance(error, BaseExceptionGroup):
                errors += error.exceptions
            else:
                said.append(str(error))
    (text,) = said
    return text


async def test_a_store_that_will_not_do_is_refused_at_the_start(stores: Stores) -> None:
    store = stores.start(
        "maxmemory 100mb",
        "maxmemory-policy allkeys-lru",
        password="s3cret",
        users=["ann on >pw ~* &* +@all -function"],
    )
    with Relay(store.port) as gone:
        nowhere = StoreAddress(address_of(store).kind, (("127.0.0.1", gone.port),))
    shown = f"redis://127.0.0.1:{store.port}"
    assert await start_error(nowhere) == f"{nowhere.shown}: the store can't be reached"
    wrong = read_store_url(store.url.replace("s3cret", "other"))
    assert await start_error(wrong) == f"{shown}: the store refuses the user or the password"
    assert await start_error(read_store_url(shown)) == f"{shown}: the store refuses the user or the password"
    policy = "the store evicts keys when its memory is full (allkeys-lru): set maxmemory-policy to noeviction"
    assert await start_error(address_of(store)) == f"{shown}: {policy}"
    store.config_set("maxmemory", "0")
    assert await start_error(read_store_url(store.url.replace(":s3cret", "ann:pw"))) == (
        f"{shown}: the store's user may not load functions (FUNCTION LOAD)"
    )
    store.freeze()
    assert await start_error(address_of(store)) == f"{shown}: the store does not answer"


async def test_a_stop_takes_no_longer_than_two_seconds_whatever_the_store_does(stores: Stores) -> None:
    store = stores.start()
    async with node(address_of(store), "n1") as one:
        await one.open()
        store.freeze()
        answered: list[object] = []
        one.engine.append([Draft("r", "ann", "x", None, 0)], answered.append)
        await trio.sleep(0.05)
        began = trio.current_time()
    assert trio.current_time() - began < 2
    assert answered == [[Unknown()]] or not answered


async def test_what_was_handed_in_before_the_stop_is_stored(stores: Stores) -> None:
    store = stores.start()
    answered: list[list[Outcome]] = []
    async with two_nodes(address_of(store)) as (one, _):
        one.engine.append([Draft("r", "ann", "x", None, 0)], answered.append)  # type: ignore[arg-type]
    assert [each.id for each in answered[0] if isinstance(each, Message)] == [2]
