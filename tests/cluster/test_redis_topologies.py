"""Stores of several servers: a primary that Sentinels look after, and a Cluster."""

from dataclasses import replace

import pytest
import trio

from chatroom.config.parsers import read_store_url
from chatroom.core.errors import StartError, Unavailable
from chatroom.core.messages import Draft, Duplicate, Message, Retain, Unknown
from chatroom.engines.redis.library import RoomKeys, append, context_of, slot_of
from tests.support.storenodes import PATIENT, QUICK, Node, node, until
from tests.support.stores import Cluster, ClusterNode, Kind, Stores


async def say_until_stored(one: Node, text: str, room: str = "r") -> int:
    ends = trio.current_time() + 20
    while trio.current_time() < ends:
        with trio.fail_after(3):
            (outcome,) = await one.say(text, room=room, cid=text)
        match outcome:
            case Message(id=number) | Duplicate(id=number):
                return number
        await trio.sleep(0.05)
    raise AssertionError(f"{text} isn't stored: {one.engine.troubles()} {one.rooms[room].replaced}")


# Sentinel


@pytest.mark.parametrize("kind", Kind)
async def test_when_the_primary_is_stopped_the_nodes_go_on_with_the_next_one(stores: Stores) -> None:
    primary = stores.start()
    replica = stores.start(replica_of=primary)
    sentinel = stores.watch(primary)
    await trio.to_thread.run_sync(lambda: sentinel.await_knowing(1))
    address = read_store_url(sentinel.url)
    async with node(address, "n1") as one, node(address, "n2") as two:
        room, other = await one.open(), await two.open()
        one.come("ann")
        two.come("bob")
        await one.say("a", "b")
        await until(lambda: room.names == other.names == {"ann", "bob"} and other.order.head == 2)
        written = primary.replication()["master_repl_offset"]
        await until(lambda: replica.replication()["slave_repl_offset"] >= written)
        primary.freeze()
        assert await one.say("lost") == [Unknown()]
        await trio.to_thread.run_sync(lambda: sentinel.await_primary(replica))
        await until(lambda: not one.engine.troubles() and not two.engine.troubles(), 10)
        await say_until_stored(one, "c")
        await say_until_stored(two, "d")
        await until(lambda: room.texts == other.texts == ["a", "b", "c", "d"])
        primary.thaw()
        await say_until_stored(two, "e")
        await until(lambda: room.texts == other.texts == ["a", "b", "c", "d", "e"], 10)
        assert room.names == other.names == {"ann", "bob"}
        assert all(here for _, here in [*room.told, *other.told])
        assert room.replaced is other.replaced is None


async def test_sentinels_that_know_nothing_are_refused_at_the_start(stores: Stores) -> None:
    sentinel = stores.watch(stores.start())
    for url, problem in (
        (sentinel.url.replace("/chat", "/other"), "no Sentinel knows the primary 'other'"),
        ("redis+sentinel://127.0.0.1:1/chat", "no Sentinel can be reached"),
    ):
        address = read_store_url(url)
        with pytest.RaisesGroup(pytest.RaisesExc(Exception, match=problem), flatten_subgroups=True):
            async with node(address, "n1"):
                pass


async def test_all_rooms_get_a_new_epoch_at_the_primary_that_sentinels_name(stores: Stores) -> None:
    primary = stores.start()
    address = read_store_url(stores.watch(primary).url)
    async with node(address, "n1") as one:
        room = await one.open()
        await one.say("a")
    async with node(address, "n2", renew_epoch=True) as two:
        other = await two.open()
        assert (other.epoch != room.epoch, other.order.head) == (True, 1)


# Cluster


def rooms_of(cluster: Cluster) -> dict[int, str]:
    """A room on each of its nodes, by the node's place."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < len(cluster.nodes):
        room = f"room{number}"
        found.setdefault(cluster.nodes.index(cluster.owner("chat:{" + room + "}")), room)
        number += 1
    return found


@pytest.mark.parametrize("kind", Kind)
async def test_rooms_are_spread_over_a_cluster_and_one_of_its_nodes_may_fail(stores: Stores) -> None:
    cluster = stores.cluster()
    address = read_store_url(cluster.url)
    rooms = rooms_of(cluster)
    leases = cluster.nodes.index(cluster.owner("chat:nodes"))
    failing = (leases + 1) % 3
    async with node(address, "n1") as one, node(address, "n2") as two:
        for name in rooms.values():
            await one.open(name)
            await two.open(name)
            one.come("ann", room=name)
            two.come("bob", room=name)
            await one.say("a", room=name)
            await two.say("b", room=name)
        for name in rooms.values():
            await until(lambda name=name: one.rooms[name].texts == two.rooms[name].texts == ["a", "b"])
            await until(lambda name=name: one.rooms[name].names == two.rooms[name].names == {"ann", "bob"})
        one.engine.tell_typing(rooms[failing], "ann", active=True)
        await until(lambda: two.rooms[rooms[failing]].typed == [("ann", True)])
        cluster.nodes[failing].kill()
        for place, name in rooms.items():
            with trio.fail_after(3):
                outcomes = await one.say("c", room=name, cid="c")
            if place == failing:
                assert outcomes == [Unknown()]
            else:
                await until(lambda name=name: two.rooms[name].texts == ["a", "b", "c"])
        assert one.engine.troubles() == ()
        await trio.to_thread.run_sync(cluster.nodes[failing].start)
        await trio.to_thread.run_sync(cluster.await_agreed)
        assert await say_until_stored(two, "c", room=rooms[failing]) == 3
        for name in rooms.values():
            await until(lambda name=name: one.rooms[name].texts == two.rooms[name].texts == ["a", "b", "c"])
            assert one.rooms[name].names == two.rooms[name].names == {"ann", "bob"}
            assert all(here for _, here in one.rooms[name].told)


@pytest.mark.parametrize("leases", [False, True], ids=["another", "that of the leases"])
async def test_a_node_starts_while_a_server_of_the_cluster_is_down(
    stores: Stores, caplog: pytest.LogCaptureFixture, leases: bool
) -> None:
    cluster = stores.cluster()
    address = read_store_url(cluster.url)
    rooms = rooms_of(cluster)
    failing = (cluster.nodes.index(cluster.owner("chat:nodes")) + (not leases)) % 3
    async with node(address, "gone") as gone:
        for name in rooms.values():
            await gone.open(name)
            gone.come("bob", room=name)
            await gone.say("a", room=name)
            await until(lambda name=name: gone.rooms[name].names == {"bob"})
    cluster.nodes[failing].kill()
    async with node(address, "n1") as one:
        lost = [record for record in caplog.records if record.msg == "store_lost"]
        assert [vars(record)["fields"]["server"] for record in lost] == [
            f"127.0.0.1:{cluster.nodes[failing].port}"
        ]
        for place, name in rooms.items():
            if place == failing:
                with pytest.raises(Unavailable):
                    await one.open(name)
            else:
                await one.open(name)
                one.come("ann", room=name)
                assert [each.id for each in await one.say("b", room=name) if isinstance(each, Message)] == [2]
        assert one.engine.troubles() == ()
        await trio.to_thread.run_sync(cluster.nodes[failing].start)
        await trio.to_thread.run_sync(cluster.await_agreed)
        await until(lambda: [r.msg for r in caplog.records].count("store_back") == 1)
        room = await one.open(rooms[failing])
        one.come("ann", room=room.name)
        assert room.order.head == 1
        for name in rooms.values():
            await until(lambda name=name: one.rooms[name].names == {"ann"})


async def test_a_server_of_the_cluster_that_would_eat_history_is_refused_at_the_start(stores: Stores) -> None:
    cluster = stores.cluster()
    cluster.nodes[1].config_set("maxmemory", "100mb")
    cluster.nodes[1].config_set("maxmemory-policy", "allkeys-lru")
    with pytest.RaisesGroup(pytest.RaisesExc(StartError, match="allkeys-lru"), flatten_subgroups=True):
        async with node(read_store_url(cluster.url), "n1"):
            pass


async def test_all_rooms_of_all_shards_get_a_new_epoch_when_that_is_wanted(stores: Stores) -> None:
    cluster = stores.cluster()
    address = read_store_url(cluster.url)
    rooms = rooms_of(cluster).values()
    async with node(address, "n1", times=PATIENT) as one:
        for name in rooms:
            await one.open(name)
            await one.say("a", room=name)
        async with node(address, "n2", times=PATIENT, renew_epoch=True) as two:
            for name in rooms:
                other = await two.open(name)
                assert other.order.head == 1
                assert other.epoch != one.rooms[name].epoch
                await until(lambda name=name: one.rooms[name].replaced is not None)
                assert one.rooms[name].replaced == (two.rooms[name].epoch, 1)


async def test_what_is_too_much_goes_from_all_shards(stores: Stores) -> None:
    cluster = stores.cluster()
    address = read_store_url(cluster.url)
    rooms = rooms_of(cluster)
    async with node(address, "gone") as one:
        for name in rooms.values():
            await one.open(name)
            await one.say("a", "b", "c", room=name)
    async with node(address, "n1", retain=Retain(count=1)), node(address, "n2", retain=Retain(count=1)):
        for place, name in rooms.items():
            await until(
                lambda place=place, name=name: cluster.nodes[place].ask("XLEN", f"chat:{{{name}}}:s") == 1
            )


async def test_what_no_push_has_told_is_found_a_quarter_of_the_rooms_at_a_time(stores: Stores) -> None:
    def calls() -> int:
        found = [each.ask("INFO", "commandstats").get("cmdstat_fcall", {}) for each in cluster.nodes]
        return sum(int(each.get("calls", 0)) for each in found)

    cluster = stores.cluster()
    names = [f"room{number}" for number in range(90)]
    seldom = replace(QUICK, beat=0.5)
    async with node(read_store_url(cluster.url), "n1", times=seldom) as one:
        for name in names:
            await one.open(name)
        for name in names:  # as by a node whose push was lost
            keys = RoomKeys.of("chat", name)
            context = context_of(keys, "other", sharded=False, keep=None, keep_seconds=None)
            draft = Draft(name, "ann", "a", None, 0)
            command = append(keys, context, one.rooms[name].epoch, [draft], known=0, ts=0)
            cluster.owner(keys.meta).ask(*command)
        await until(lambda: all(one.rooms[name].texts == ["a"] for name in names))
        before, began = calls(), trio.current_time()
        await trio.sleep(6)
        beats = (trio.current_time() - began) / seldom.beat
        assert 16 * beats < calls() - before < 36 * beats  # about 23 rooms' heads, the probes, and the lease


async def test_a_slot_that_moves_takes_its_room_along(stores: Stores) -> None:
    cluster = stores.cluster()
    address = read_store_url(cluster.url)
    rooms = rooms_of(cluster)
    name = rooms[0]
    async with node(address, "n1") as one, node(address, "n2") as two:
        room, other = await one.open(name), await two.open(name)
        one.come("ann", room=name)
        await one.say("a", room=name)
        await until(lambda: other.texts == ["a"] and other.names == {"ann"})
        await trio.to_thread.run_sync(
            lambda: move(cluster.nodes[0], cluster.nodes[1], slot_of(f"chat:{{{name}}}"))
        )
        for text in "bcd":
            await say_until_stored(one, text, room=name)
            await say_until_stored(two, text.upper(), room=name)
        two.come("bob", room=name)
        await until(lambda: room.texts == other.texts == list("abBcCdD"))
        await until(lambda: room.names == other.names == {"ann", "bob"})
        await until(lambda: cluster.nodes[1].ask("PUBSUB", "SHARDCHANNELS") == [f"chat:{{{name}}}"])


async def test_until_the_keys_of_a_slot_move_its_rooms_take_messages_as_ever(stores: Stores) -> None:
    """A room in which no message has a `cid` has all its keys, too: what names an absent one is refused."""
    cluster = stores.cluster()
    name = rooms_of(cluster)[0]
    async with node(read_store_url(cluster.url), "n1", retain=Retain(count=2)) as one:
        await one.open(name)
        one.come("ann", room=name)
        await one.say("a", room=name)
        begin_move(cluster.nodes[0], cluster.nodes[1], slot_of(f"chat:{{{name}}}"))
        for text, number in zip("bcd", (2, 3, 4), strict=True):
            (outcome,) = await one.say(text, room=name)
            assert isinstance(outcome, Message)
            assert outcome.id == number
        (found,) = await one.engine.read(name, one.rooms[name].epoch, 3, 4, limit=1)
        assert found.text == "d"


def begin_move(source: ClusterNode, target: ClusterNode, slot: int) -> str:
    """What an operator's tool does before it moves a slot's keys; the target's name."""
    ids = [each.ask("CLUSTER", "MYID") for each in (source, target)]
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    return str(ids[1])


def move(source: ClusterNode, target: ClusterNode, slot: int) -> None:
    """Move a slot with its keys, as an operator's tool does."""
    new = begin_move(source, target, slot)
    for key in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    for each in (target, source):
        each.ask("CLUSTER", "SETSLOT", slot, "NODE", new)
