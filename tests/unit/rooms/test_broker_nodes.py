"""Several brokers on one log and a feed that drops, doubles, delays and reorders: one order, and no loss."""

import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import trio
import trio.testing

from chatroom.core.errors import CloseCode
from chatroom.core.messages import Draft, Message, Unknown
from chatroom.engines.memory import MemoryEngine
from chatroom.rooms.broker import MAX_HINT_WEIGHT
from chatroom.rooms.rooms import MANY_CHANGES
from tests.support.engines import Answered, Committed, append
from tests.support.harness import BrokerHarness, FakeMember
from tests.support.nodes import Node, SharedStore

pytestmark = pytest.mark.usefixtures("autojump_clock")

Opened = Callable[[], Any]


def memory(keep: int = 500) -> MemoryEngine:
    numbers = count(1)
    return MemoryEngine(lambda: f"e{next(numbers)}", per_room=keep)


class Cluster:
    """Some nodes, each with its broker, on one store."""

    def __init__(self, nursery: trio.Nursery, store: SharedStore) -> None:
        self.nursery = nursery
        self.store = store
        self.harnesses: list[BrokerHarness] = []

    async def add(self, kind: type[Node] = Node, **options: Any) -> BrokerHarness:
        """A node more, at work."""
        node = self.store.node(kind)
        harness = BrokerHarness(self.nursery, engine=node, **options)
        await self.nursery.start(node.serve, harness.broker)
        self.nursery.start_soon(harness.broker.run)
        self.harnesses.append(harness)
        return harness


@asynccontextmanager
async def open_cluster(
    size: int = 2, *, seed: int = 0, hostile: bool = True, node: type[Node] = Node
) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, SharedStore(memory(), random.Random(seed), hostile=hostile))
        for _ in range(size):
            await cluster.add(node)
        yield cluster
        nursery.cancel_scope.cancel()


async def come(
    harness: BrokerHarness, name: str, room: str = "r", since: int | None = None, epoch: str | None = None
) -> FakeMember:
    fake = harness.fake_member(name)
    await fake.enter(room, since, epoch)
    await trio.sleep(3)
    return fake


def texts(fake: FakeMember) -> list[str]:
    return [each["data"]["text"] for each in fake.named("message")]


def told(fake: FakeMember) -> list[str]:
    return [each["event"] for each in fake.events]


def dense(ids: list[int]) -> bool:
    return ids == list(range(ids[0], ids[0] + len(ids))) if ids else True


# One order


async def test_what_is_said_on_one_node_is_shown_on_all_in_one_order() -> None:
    async with open_cluster(3, hostile=False) as cluster:
        fakes = [await come(harness, f"guest{number}") for number, harness in enumerate(cluster.harnesses)]
        for number in range(30):
            await fakes[number % 3].say(f"{number}", f"c{number}")
        await trio.sleep(2)
        assert all(fake.ids == list(range(1, 31)) for fake in fakes)
        assert texts(fakes[0]) == texts(fakes[1]) == texts(fakes[2])


@pytest.mark.parametrize("seed", range(int(os.environ.get("CHAT_SEEDS", "25"))))
async def test_whatever_the_feed_does_nothing_is_lost_doubled_or_out_of_order(seed: int) -> None:
    async with open_cluster(3, seed=seed) as cluster:
        chance = random.Random(seed)
        fakes: list[FakeMember] = []
        posted: dict[FakeMember, list[str]] = defaultdict(list)
        asked: dict[FakeMember, int] = {}
        said: dict[str, set[str]] = defaultdict(set)
        for number in range(150):
            what = chance.random()
            # As handlers do: nothing more while a switch is under way.
            able = [fake for fake in fakes if len(stays(fake)) == asked[fake]]
            if what < 0.15 or not able:
                fake = chance.choice(cluster.harnesses).fake_member(f"name{chance.randrange(6)}")
                fakes.append(fake)
                asked[fake] = 1
                await fake.enter(chance.choice("ab"))
            elif what < 0.8:
                fake = chance.choice(able)
                text = f"{fake.username} {number}"
                said[current(fake)].add(text)
                posted[fake].append(f"c{number}")
                await fake.say(text, f"c{number}")
            elif what < 0.9:
                fake = chance.choice(able)
                asked[fake] += 1
                await fake.switch("b" if current(fake) == "a" else "a")
            elif len(fakes) > 2:
                fakes.remove(fake := chance.choice(able))
                fake.leave()
            await trio.sleep(chance.random() / 2)
        await trio.sleep(10)
        await check_all(cluster, fakes, said)
        for fake in fakes:
            check_answers(fake, posted[fake])


def check_answers(fake: FakeMember, cids: list[str]) -> None:
    """Each has one answer; the message itself may come behind the word that nobody knows of it."""
    answers: dict[str, list[str]] = defaultdict(list)
    for each in fake.events:
        own = each["event"] != "message" or each["data"]["username"] == fake.username
        if own and (cid := each.get("cid")) is not None:
            answers[cid].append(each["event"])
    for cid in cids:
        assert answers[cid]
        assert set(answers[cid][1:]) <= {"message"}  # it comes again where a room is entered again


def current(fake: FakeMember) -> str:
    assert fake.member.current is not None
    return fake.member.current.room.name


async def check_all(cluster: Cluster, fakes: list[FakeMember], said: dict[str, set[str]]) -> None:
    logs = {room: await whole(cluster.store, room) for room in "ab"}
    for room, log in logs.items():
        assert {message.text for message in log} >= said[room]
        assert len({message.text for message in log}) == len(log)
    for fake in fakes:
        assert not fake.member.outstanding
        for room, messages, _ in stays(fake):
            assert dense([each["id"] for each in messages])
            told = [each["data"]["text"] for each in messages]
            assert told == [logs[room][each["id"] - 1].text for each in messages]
        room, messages, members = stays(fake)[-1]
        assert room == current(fake)
        assert [each["id"] for each in messages[-1:]] in ([len(logs[room])], [])
        present = {name for name, nodes in cluster.store.present[room].items() if nodes}
        assert members | {fake.username} == present


async def whole(store: SharedStore, room: str) -> list[Message]:
    head = await store.head(room)
    epoch = head.epoch.rpartition(".")[0]
    found: list[Message] = []
    while len(found) < head.last_id:
        found += await store.engine.read(store.log(room), epoch, len(found), head.last_id, limit=500)
    return found


def stays(fake: FakeMember) -> list[tuple[str, list[dict[str, Any]], set[str]]]:
    """For each stay in a room its name, the messages, and who is there by what the fake member was told."""
    found: list[tuple[str, list[dict[str, Any]], set[str]]] = []
    for event in fake.events:
        match event["event"]:
            case "welcome" | "switched":
                room = event.get("room") or event["data"]["room"]
                found.append((room, [], set(event.get("members") or event["data"].get("members", []))))
            case "message":
                found[-1][1].append(event)
            case "joined":
                found[-1][2].add(event["data"]["username"])
            case "left":
                found[-1][2].discard(event["data"]["username"])
            case "members":
                found[-1][2].clear()
                found[-1][2].update(event["data"]["members"])
    return found


async def test_a_node_that_hears_nothing_heals_by_its_own_appends_and_by_asking_the_log() -> None:
    async with open_cluster() as cluster:
        one, two = cluster.harnesses
        cluster.store.nodes[1].deaf = True
        alice, bob = await come(one, "alice"), await come(two, "bob")
        for number in range(5):
            await alice.say(str(number))
        await trio.sleep(0.5)
        await bob.say("bob's")
        await trio.sleep(2)
        assert bob.ids == alice.ids == [1, 2, 3, 4, 5, 6]
        await alice.say("more")
        await trio.sleep(3)
        assert bob.ids == alice.ids


async def test_of_what_a_node_can_not_take_in_time_only_the_number_is_kept_and_the_log_is_read() -> None:
    async with open_cluster(1, hostile=False) as cluster:
        harness = cluster.harnesses[0]
        alice = await come(harness, "alice")
        await trio.sleep(0.2)  # nobody looks at the heads now
        log = cluster.store.log("r")
        await append(
            cluster.store.engine, [Draft(log, "bob", "read", None, 1) for _ in range(MAX_HINT_WEIGHT + 200)]
        )
        epoch = alice.events[0]["epoch"]
        for number in range(1, MAX_HINT_WEIGHT + 201):
            harness.broker.arrived("r", epoch, [Message(number, 1, "bob", "pushed", None)])
        await trio.sleep(0.5)
        assert texts(alice) == ["pushed"] * MAX_HINT_WEIGHT + ["read"] * 200


# Settled means shown


class Late(Node):
    """Is told of others' messages only when the test says so: what its own append needs is missing."""

    def __init__(self, store: SharedStore) -> None:
        super().__init__(store)
        self.reads = trio.Event()

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        await self.reads.wait()
        return await super().read(*asked, **bounds)


@asynccontextmanager
async def behind_others(
    kind: type[Late] = Late,
) -> AsyncIterator[tuple[BrokerHarness, Late, FakeMember, FakeMember]]:
    """A node on which bob has said something that is stored behind another node's message."""
    async with trio.open_nursery() as nursery:
        store = SharedStore(memory(), random.Random(1), hostile=False)
        node = kind(store)
        store.nodes.append(node)
        harness = BrokerHarness(nursery, engine=node)
        await nursery.start(node.serve, harness.broker)
        nursery.start_soon(harness.broker.run)
        alice, bob = await come(harness, "alice"), await come(harness, "bob")
        await append(store.engine, [Draft(store.log("r"), "carol", "elsewhere", None, 1)])
        await bob.say("bob's", "c1")
        await trio.testing.wait_all_tasks_blocked()
        assert alice.ids == bob.ids == []
        yield harness, node, alice, bob
        nursery.cancel_scope.cancel()


async def test_what_a_member_does_behind_its_message_waits_until_that_is_shown() -> None:
    async with behind_others() as (_, node, alice, bob):
        bob.leave()
        await trio.sleep(0.5)
        assert told(alice)[-1] == "joined"
        node.reads.set()
        await trio.sleep(2)
        assert told(alice)[-3:] == ["message", "message", "left"]
        assert texts(alice) == ["elsewhere", "bob's"]


async def test_an_own_echo_comes_before_what_was_switched_to() -> None:
    async with behind_others() as (_, node, _, bob):
        await bob.switch("other")
        await trio.sleep(0.5)
        assert told(bob)[-1] == "welcome"
        node.reads.set()
        await trio.sleep(2)
        assert told(bob)[-3:] == ["message", "message", "switched"]


async def test_who_waits_for_the_log_too_long_is_answered_unavailable_and_has_the_message_later() -> None:
    async with behind_others() as (_, node, alice, bob):
        await trio.sleep(1.5)
        (error,) = bob.named("error")
        assert (error["code"], error["cid"], error["retry"]) == ("unavailable", "c1", True)
        bob.leave()
        await trio.sleep(1.5)
        assert told(alice)[-1] == "left"
        node.reads.set()
        await trio.sleep(3)
        assert texts(alice) == ["elsewhere", "bob's"]


async def test_a_retry_is_answered_when_its_message_has_been_shown() -> None:
    async with behind_others() as (_, node, _, bob):
        await bob.say("bob's", "c1")
        await trio.sleep(0.5)
        assert bob.named("ack") == []
        node.reads.set()
        await trio.sleep(2)
        (ack,) = bob.named("ack")
        assert ack["data"] == {"id": 2, "duplicate": True}
        assert told(bob)[-3:] == ["message", "message", "ack"]


class Lossy(Late):
    """Its replies get lost: the feed alone tells what was stored, while the outcome is being waited for."""

    async def _append(self, drafts: list[Draft], _shown: Any, committed: Committed) -> None:
        name = drafts[0].room
        head = await self._store.head(name)
        copies = [
            Draft(self._store.log(name), each.username, each.text, each.cid, each.ts) for each in drafts
        ]
        stored = await append(self._store.engine, copies)
        self.feed.arrived(name, head.epoch, [each for each in stored if isinstance(each, Message)])
        await trio.sleep(0.1)
        committed([Unknown() for _ in drafts])


async def test_whose_message_the_feed_has_brought_before_its_turn_waits_until_it_is_shown() -> None:
    async with behind_others(Lossy) as (_, node, _, bob):
        await bob.switch("other")
        await trio.sleep(0.5)
        assert told(bob)[-1] == "welcome"
        node.reads.set()
        await trio.sleep(2)
        assert told(bob)[-3:] == ["message", "message", "switched"]
        assert texts(bob) == ["elsewhere", "bob's"]
        assert bob.named("error") == []


async def test_whose_message_the_feed_has_brought_and_nobody_can_show_is_answered_in_time() -> None:
    async with behind_others(Lossy) as (_, node, _, bob):
        await trio.sleep(1.5)
        assert [each["cid"] for each in bob.named("error")] == ["c1"]
        node.reads.set()
        await trio.sleep(2)
        assert texts(bob) == ["elsewhere", "bob's"]


# A log that ends before what was told of it


class Counting(Node):
    """Counts how often its log is read."""

    reads = 0

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        self.reads += 1
        return await super().read(*asked, **bounds)


async def test_what_was_told_and_is_not_in_the_log_is_not_looked_for_for_ever() -> None:
    async with open_cluster(hostile=False, node=Counting) as cluster:
        harness, node = cluster.harnesses[0], cluster.store.nodes[0]
        assert isinstance(node, Counting)
        alice = await come(harness, "alice")
        epoch = alice.events[0]["epoch"]
        harness.broker.ahead("r", epoch, 3)
        harness.broker.arrived("r", epoch, [Message(2, 1, "carol", "taken back", None)])
        await trio.sleep(5)
        assert node.reads < 10
        for text in ("one", "two", "three"):
            await alice.say(text)
        await trio.sleep(2)
        assert texts(alice) == ["one", "two", "three"]


# Coming from another node


async def test_who_comes_from_another_node_is_resumed_though_this_one_is_behind() -> None:
    async with open_cluster() as cluster:
        one, two = cluster.harnesses
        cluster.store.nodes[1].deaf = True
        alice, _ = await come(one, "alice"), await come(two, "stays")
        for number in range(5):
            await alice.say(str(number))
        await trio.sleep(0.4)
        assert alice.ids == [1, 2, 3, 4, 5]
        epoch = alice.events[0]["epoch"]
        again = await come(two, "alice", since=4, epoch=epoch)
        assert again.events[0]["recovered"] is True
        assert again.ids == [5]


async def test_a_since_that_the_log_has_not_reached_is_not_waited_for() -> None:
    async with open_cluster(hostile=False) as cluster:
        alice = await come(cluster.harnesses[0], "alice")
        fake = cluster.harnesses[0].fake_member("bob")
        await fake.enter("r", 1000, alice.events[0]["epoch"])
        await trio.sleep(0.2)
        assert fake.events[0]["recovered"] is False


class Far(Node):
    """Hears where a room stands when the test says so: what it hears then is old."""

    def __init__(self, store: SharedStore) -> None:
        super().__init__(store)
        self.near = trio.Event()

    async def _open(self, room: str, opened: Answered) -> None:
        head = await self._store.head(room)
        await self.near.wait()
        self._open_rooms.add(room)
        opened(head)
        self.feed.roster(room, self._store.names(room, self), head.last_id)


async def test_who_comes_while_a_room_is_being_opened_is_resumed_though_its_head_was_read_before() -> None:
    async with open_cluster(1, hostile=False) as cluster:
        alice = await come(cluster.harnesses[0], "alice")
        cluster.store.nodes.append(node := Far(cluster.store))
        far = BrokerHarness(cluster.nursery, engine=node)
        await cluster.nursery.start(node.serve, far.broker)
        cluster.nursery.start_soon(far.broker.run)
        first, again = far.fake_member("first"), far.fake_member("alice")
        await first.enter("r")
        await trio.sleep(1)
        await alice.say("said meanwhile")
        await trio.sleep(1)
        await again.enter("r", 1, alice.events[0]["epoch"])
        await trio.sleep(1)
        node.near.set()
        await trio.sleep(3)
        assert again.events[0]["recovered"] is True
        assert again.ids == []
        assert first.ids == [1]


# Another log


async def test_when_a_rooms_log_is_replaced_its_members_are_told_and_come_back_to_the_new_one() -> None:
    async with open_cluster(hostile=False) as cluster:
        one, two = cluster.harnesses
        alice, bob = await come(one, "alice"), await come(two, "bob")
        await alice.say("lost")
        await trio.sleep(1)
        epoch = alice.events[0]["epoch"]
        cluster.store.replace("r")
        await trio.sleep(2)
        for fake in (alice, bob):
            assert fake.end.ending is not None
            assert fake.end.ending.disconnect is not None
            assert fake.end.ending.disconnect.code == CloseCode.RESTART
            fake.leave()
        await trio.sleep(1)
        again = await come(two, "alice", since=1, epoch=epoch)
        assert again.events[0]["recovered"] is False
        assert again.events[0]["last_id"] == 0
        await again.say("new")
        await trio.sleep(1)
        assert texts(again) == ["new"]


async def test_what_somebody_says_who_is_being_ended_is_shown_to_those_in_the_new_log() -> None:
    async with open_cluster(1, hostile=False) as cluster:
        harness = cluster.harnesses[0]
        alice = await come(harness, "alice")
        cluster.store.replace("r")
        await trio.sleep(2)
        assert alice.end.ending is not None
        bob = await come(harness, "bob")
        cluster.store.nodes[0].deaf = True
        await trio.sleep(0.2)  # nobody looks at the heads now
        await alice.say("late", "c")
        await trio.sleep(0.2)
        assert texts(bob) == ["late"]


async def test_news_of_an_old_log_do_not_end_those_in_the_new_one() -> None:
    async with open_cluster(hostile=False) as cluster:
        harness = cluster.harnesses[0]
        alice = await come(harness, "alice")
        harness.broker.arrived("r", "an old epoch", [Message(1, 1, "x", "old", None)])
        harness.broker.ahead("r", "an old epoch", 99)
        await trio.sleep(3)
        await alice.say("new")
        await trio.sleep(1)
        assert alice.end.ending is None
        assert texts(alice) == ["new"]


class Slow(Late):
    """What it reads comes late."""

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        found = await Node.read(self, *asked, **bounds)
        await self.reads.wait()
        return found


async def test_news_of_another_log_that_come_while_the_old_one_is_read_are_not_forgotten() -> None:
    async with behind_others(Slow) as (harness, node, alice, _):
        node._store.replace("r")
        head = await node._store.head("r")
        harness.broker.ahead("r", head.epoch, head.last_id)
        node.deaf = True
        await trio.testing.wait_all_tasks_blocked()
        node.reads.set()
        await trio.testing.wait_all_tasks_blocked()
        assert alice.end.ending is not None
        assert alice.end.ending.disconnect is not None
        assert alice.end.ending.disconnect.code == CloseCode.RESTART


@pytest.mark.parametrize("seed", range(5))
async def test_a_log_that_is_replaced_under_traffic_leaves_nobody_between_two(seed: int) -> None:
    async with open_cluster(seed=seed) as cluster:
        fakes = [await come(harness, f"g{number}") for number, harness in enumerate(cluster.harnesses * 2)]
        for number in range(40):
            if number == 20:
                cluster.store.replace("r")
            for fake in fakes:
                if fake.end.ending is None and fake.member.current is not None:
                    await fake.say(f"{fake.username} {number}")
            await trio.sleep(0.1)
        await trio.sleep(5)
        for fake in fakes:
            assert fake.end.ending is not None
            assert dense(fake.ids)


# Presence


async def test_who_is_there_is_the_same_on_all_nodes_and_is_told_once() -> None:
    async with open_cluster(3, hostile=False) as cluster:
        one, two, three = cluster.harnesses
        watcher = await come(three, "watcher")
        alice, again = await come(one, "alice"), await come(two, "alice")
        assert watcher.events[0]["data"]["members"] == []
        assert [each["data"]["username"] for each in watcher.named("joined")] == ["alice"]
        assert alice.events[0]["data"]["members"] == ["watcher"]
        assert again.events[0]["data"]["members"] == ["alice", "watcher"]
        alice.leave()
        await trio.sleep(2)
        assert watcher.named("left") == []
        again.leave()
        await trio.sleep(2)
        assert [each["data"]["username"] for each in watcher.named("left")] == ["alice"]


async def test_nobody_hears_of_their_own_coming_and_the_asker_is_on_the_list() -> None:
    async with open_cluster(hostile=False) as cluster:
        alice = await come(cluster.harnesses[0], "alice")
        await alice.request_members("m1")
        await trio.sleep(2)
        assert alice.named("joined") == []
        assert alice.named("members")[0]["data"]["members"] == ["alice"]


async def test_very_many_changes_at_once_are_told_as_one_list() -> None:
    async with open_cluster(hostile=False) as cluster:
        harness = cluster.harnesses[0]
        alice = await come(harness, "alice")
        harness.broker.roster(
            "r", {f"name{number}": 1 for number in range(MANY_CHANGES + 1)} | {"alice": 0}, 0
        )
        await trio.sleep(1)
        assert told(alice) == ["welcome", "members"]
        assert len(alice.named("members")[0]["data"]["members"]) == MANY_CHANGES + 2


async def test_typing_is_shown_on_other_nodes() -> None:
    async with open_cluster(hostile=False) as cluster:
        one, two = cluster.harnesses
        alice, bob = await come(one, "alice"), await come(two, "bob")
        await alice.type(True)
        await trio.sleep(1)
        assert [each["data"] for each in bob.named("typing")] == [{"username": "alice", "active": True}]
        assert alice.named("typing") == []


async def test_last_words_come_before_left_on_every_node() -> None:
    for seed in range(10):
        async with open_cluster(seed=seed) as cluster:
            one, two = cluster.harnesses
            alice, bob = await come(one, "alice"), await come(two, "bob")
            await alice.say("last words")
            alice.leave()
            await trio.sleep(6)
            assert told(bob)[-2:] == ["message", "left"] or told(bob)[-2:] == ["message", "members"]


async def test_a_stopping_node_tells_nothing_of_who_leaves() -> None:
    async with open_cluster(hostile=False) as cluster:
        one, two = cluster.harnesses
        alice, bob = await come(one, "alice"), await come(two, "bob")
        one.rooms.fall_silent()
        alice.leave()
        await trio.sleep(2)
        assert bob.named("left") == []
        assert set(one.broker.here("r")) == {"alice"}, "should the store have to be told again"


async def test_nobody_is_told_of_their_own_leaving_who_is_back() -> None:
    for seed in range(10):
        async with open_cluster(seed=seed) as cluster:
            one, two = cluster.harnesses
            _, bob, alice = await come(one, "carol"), await come(two, "bob"), await come(one, "alice")
            alice.leave()
            await trio.sleep(0.001)
            again = await come(one, "alice")
            await trio.sleep(3)
            assert again.named("left") == again.named("joined") == []
            assert stays(bob)[-1][2] == {"alice", "carol"}
            assert stays(again)[-1][2] - {"alice"} == {"bob", "carol"}
