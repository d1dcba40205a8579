"""Three nodes on one store, a crowd that moves between them, and a nemesis that breaks what it can.

The store is one server; a primary that Sentinels look after and that fails over; or a Cluster of three.

`CHAT_SEEDS=200 ./test.sh tests/cluster/test_cluster_nemesis.py -s` plays so many seeds, and prints each;
`CHAT_SEED=17` plays that one alone.
"""

import json
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio

from tests.support.client import target
from tests.support.crowd import ROOMS, Crowd, connected, read_log
from tests.support.history import Checker, Content
from tests.support.process import ServerProcess, clean_environment
from tests.support.raw import get
from tests.support.relay import Relay
from tests.support.stores import Store, Stores, hold_port

ONE = os.environ.get("CHAT_SEED")
SEEDS = [int(ONE)] if ONE else range(int(os.environ.get("CHAT_SEEDS") or 4))
NODES = 3
CLIENTS = 12
FAULTS = {
    "kill_store": 2,
    "freeze_store": 2,
    "empty_store": 1,
    "cut_link": 2,
    "part_link": 2,
    "deafen_link": 2,
    "kill_node": 1,
    "stop_node": 1,
}
"""What may break, and how often beside the others. The first four seeds have each of them."""
LENGTH = 5
CHANGES = 0.2
"""How many of the things that clients say are edits and deletions."""
GHOSTS_SECONDS = 40
"""The names of a node that was killed stay for its lease of 20 s, which another one must see run out."""
HEADS_SECONDS = 30
"""A node looks at the heads of its rooms every 5 s, of each one of a Cluster every 20 s."""
LEAST = 50
"""Messages that must have been told to be stored in all."""


class Nemesis:
    """The store, the nodes and the links between them, and what may become of each."""

    def __init__(self, store: Store, chance: random.Random, resources: AsyncExitStack, url: str = "") -> None:
        """Without a `url` each node has a link of its own to `store`."""
        self.store = store
        self._url = url
        self.chance = chance
        self.lossy = False  # the store was emptied: what it had is gone, and that must be said
        self._resources = resources
        self._relays: list[Relay] = []
        self._nodes: list[ServerProcess] = []
        self._held = [hold_port() for _ in range(NODES)]
        self.ports = [held.getsockname()[1] for held in self._held]

    async def start(self) -> None:
        for held in self._held:  # as long as no server listens there, else a client may connect to itself
            self._resources.enter_context(held)
        for number in range(NODES):
            self._relays.append(self._resources.enter_context(Relay(self.store.port)))
            self._nodes.append(await self._node(number))
        self._resources.push_async_callback(self._end)

    async def _node(self, number: int) -> ServerProcess:
        node = ServerProcess(
            *("--host", "127.0.0.1", "--port", str(self.ports[number]), "--node", f"node{number}"),
            *("--redis", self._url or f"redis://127.0.0.1:{self._relays[number].port}", "--rate", "0"),
            *("--max-per-user", "100"),
            env=clean_environment(measured=False),
        )
        await node.__aenter__()
        return node

    async def _end(self) -> None:
        for node in self._nodes:
            await node.__aexit__(None, None, None)

    def tell(self) -> None:
        """Print how the nodes stand."""
        for node in self._nodes:
            print(get(node.port, "/readyz").text, get(node.port, "/metrics").text, node.stderr, flush=True)

    async def kill_store(self) -> None:
        self.store.kill()
        await self._wait(1.5)
        await trio.to_thread.run_sync(self.store.restart)

    async def freeze_store(self) -> None:
        self.store.freeze()
        await self._wait(4)
        self.store.thaw()

    async def empty_store(self) -> None:
        self.lossy = True
        await trio.to_thread.run_sync(lambda: self.store.restart(empty=True))

    async def cut_link(self) -> None:
        self.chance.choice(self._relays).cut()

    async def part_link(self) -> None:
        relay = self.chance.choice(self._relays)
        relay.part()
        await self._wait(4)
        relay.join()

    async def deafen_link(self) -> None:
        relay = self.chance.choice(self._relays)
        relay.part(deaf=True)
        await self._wait(4)
        relay.join()

    async def kill_node(self) -> None:
        number = self.chance.randrange(NODES)
        self._nodes[number].process.kill()
        await self._again(number)

    async def stop_node(self) -> None:
        number = self.chance.randrange(NODES)
        assert await trio.to_thread.run_sync(self._nodes[number].stop) == 0
        await self._again(number)

    async def _again(self, number: int) -> None:
        await self._nodes[number].__aexit__(None, None, None)
        await self._wait(1)
        self._nodes[number] = await self._node(number)

    async def _wait(self, longest: float) -> None:
        await trio.sleep(self.chance.uniform(0, longest))


class FailingOver(Nemesis):
    """The store is a primary with a replica, and a Sentinel that looks after both."""

    def __init__(self, stores: Stores, chance: random.Random, resources: AsyncExitStack) -> None:
        primary = stores.start()
        self._replica = stores.start(replica_of=primary)
        self._sentinel = stores.watch(primary)
        self._sentinel.await_knowing(1)
        super().__init__(primary, chance, resources, self._sentinel.url)

    async def fail_over(self) -> None:
        """The primary dies, the replica takes its place, and it comes back as the replica's."""
        self.lossy = True  # replication is asynchronous
        self.store.kill()
        await trio.to_thread.run_sync(self._sentinel.await_primary, self._replica)
        await self._wait(1)
        await trio.to_thread.run_sync(self.store.restart)
        self.store, self._replica = self._replica, self.store
        await trio.to_thread.run_sync(self._sentinel.await_knowing, 1)


class Sharded(Nemesis):
    """The store is a Cluster of three."""

    def __init__(self, stores: Stores, chance: random.Random, resources: AsyncExitStack) -> None:
        self._cluster = stores.cluster()
        super().__init__(self._cluster.nodes[0], chance, resources, self._cluster.url)

    async def kill_shard(self) -> None:
        """One of them dies and comes back with its data; the others go on."""
        shard = self.chance.choice(self._cluster.nodes)
        shard.kill()
        await self._wait(4)
        await trio.to_thread.run_sync(shard.restart)
        await trio.to_thread.run_sync(self._cluster.await_agreed)


Made = Callable[[random.Random, AsyncExitStack], Nemesis]


@asynccontextmanager
async def nemesis_of(make: Made, chance: random.Random) -> AsyncIterator[Nemesis]:
    async with AsyncExitStack() as resources:
        nemesis = make(chance, resources)
        await nemesis.start()
        yield nemesis


async def play(seed: int, make: Made, faults: Mapping[str, int], length: int = LENGTH) -> None:
    chance = random.Random(seed)
    async with nemesis_of(make, chance) as nemesis, trio.open_nursery() as nursery:
        crowd = Crowd(nemesis.ports, Checker(), random.Random(seed), CHANGES)
        crowd.add(CLIENTS)
        for client in crowd.clients:
            nursery.start_soon(client.run)
        plan = chance.choices(list(faults), list(faults.values()), k=length)
        print(f"seed {seed}: {' '.join(plan)}", flush=True)
        for fault in plan:
            await trio.sleep(chance.uniform(0.2, 1))
            await getattr(nemesis, fault)()
        crowd.talking = False
        with trio.move_on_after(60):
            while crowd.pending:  # noqa: ASYNC110  (it tells nobody)
                await trio.sleep(0.05)
        if crowd.pending:
            print("\n".join(client.state for client in crowd.clients if client.pending), flush=True)
            nemesis.tell()
            pytest.fail("some are not answered")
        await judge(crowd, nemesis)
        nursery.cancel_scope.cancel()


async def judge(crowd: Crowd, nemesis: Nemesis) -> None:
    deadline = trio.current_time() + HEADS_SECONDS
    logs = await read_logs(nemesis)
    while not logs[0] == logs[1] == logs[2]:  # a node that was cut off hears of the last ones when it asks
        assert trio.current_time() < deadline, "the nodes don't agree"
        await trio.sleep(0.5)
        logs = await read_logs(nemesis)
    assert crowd.checker.judge(logs[0]) == []
    print(f"  {sum(map(len, logs[0].values()))} messages kept, {crowd.settled} told to be stored", flush=True)
    assert crowd.settled >= LEAST
    assert crowd.changed
    if not nemesis.lossy:
        assert all(len(epochs) == 1 for epochs in crowd.epochs.values())
    deadline = trio.current_time() + GHOSTS_SECONDS
    while wrong := await disagreements(crowd, nemesis):
        assert trio.current_time() < deadline, wrong
        await trio.sleep(0.5)


async def read_logs(nemesis: Nemesis) -> list[dict[str, list[tuple[int, Content]]]]:
    """What each node has of each room."""
    return [dict([await read_log(port, room) for room in ROOMS]) for port in nemesis.ports]


async def disagreements(crowd: Crowd, nemesis: Nemesis) -> list[str]:
    """The rooms whose members a node doesn't name exactly."""
    wrong = []
    for room in ROOMS:
        there = {client.username for client in crowd.clients if client.room == room}
        for number, port in enumerate(nemesis.ports):
            told = set(await members(port, room))
            if told != there:
                wrong.append(f"{room} on {number}: not {sorted(there - told)}, but {sorted(told - there)}")
    return wrong


async def members(port: int, room: str) -> list[str]:
    """The other members of a room, by an answer of the server."""
    async with connected(port, target(room, "asker")) as socket:
        names: list[str] = json.loads(await socket.get_message())["data"]["members"]
    return [name for name in names if name not in ("asker", "reader")]


@pytest.mark.usefixtures("pyz")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_out_of_order_whatever_breaks(
    seed: int, stores: Stores, alive: Callable[[], None]
) -> None:
    alive()
    store = stores.start()
    trio.run(play, seed, partial(Nemesis, store), FAULTS)


@pytest.mark.usefixtures("pyz")
def test_what_a_failover_loses_is_said_and_nothing_is_doubled_or_out_of_order(
    stores: Stores, alive: Callable[[], None]
) -> None:
    alive()
    trio.run(play, 0, partial(FailingOver, stores), {"fail_over": 1}, 1)


@pytest.mark.usefixtures("pyz")
def test_in_a_cluster_nothing_is_lost_when_a_server_dies_and_comes_back(
    stores: Stores, alive: Callable[[], None]
) -> None:
    alive()
    trio.run(play, 0, partial(Sharded, stores), {"kill_shard": 1}, 3)
