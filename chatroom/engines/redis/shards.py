"""All servers of the store: the only one, or the primaries of a Cluster; and which of them has which slots.

Owns: the map of slots, the shards, and at which shard each channel is subscribed to.

1. A command that was sent to the wrong server of a Cluster was not done. The map is read again, and the
   command is sent again, within its time.
2. A channel is subscribed to at the server that has its room. When the map changes, the channel moves with
   its room.
3. A server that is no longer in the map is given up.
4. At the start one usable server is enough, unless the version or the settings of another one forbid its use.

Doesn't know: rooms, and what commands mean.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol

import trio

from chatroom.core.errors import StartError, Unavailable
from chatroom.core.stores import StoreAddress, StoreKind
from chatroom.engines.redis.commander import Timing
from chatroom.engines.redis.connecting import Connector, ask, ask_sentinels, closing_connection, problem_of
from chatroom.engines.redis.library import Command, ServerAddress, SlotMap
from chatroom.engines.redis.shard import CHANGING, Pushes, Shard, WrongServer

RETRY_SECONDS = 0.05
"""Seconds before a Cluster that is changing is asked again."""
MAP: Command = ("CLUSTER", "SLOTS")
ALONE: ServerAddress = ("", 0)
"""In the place of an address where the store is one server, which `StoreAddress` or the Sentinels name."""


class Sink(Protocol):
    """The user of the store; all its methods are called in the Trio run."""

    def subscribed(self, channels: list[bytes]) -> None:
        """These channels are subscribed to from now on; pushes before it may have been lost."""
        ...

    def pushed(self, pushes: Pushes) -> None:
        """These pushes have come."""
        ...

    def subscriptions_lost(self, shard: Shard) -> None:
        """No channel of this server is subscribed to just now."""
        ...

    def regained(self, shard: Shard, *, restarted: bool) -> None:
        """The server can be used again; `restarted`: it is another process than before."""
        ...

    def looked_at(self) -> None:
        """The facts of a server were asked for again."""
        ...

    def refused(self, error: Exception) -> None:
        """The server has refused a command for a reason that is none of its states."""
        ...


class Shards:
    """The servers of one store, by slot."""

    def __init__(
        self,
        address: StoreAddress,
        *,
        node: str,
        timing: Timing,
        ping: float,
        observe: Callable[[float], None],
    ) -> None:
        """`observe` is told how long each round trip took, in seconds."""
        self._address = address
        self._sink: Sink  # from `run` on, before there is a server
        self._node = node
        self._timing = timing
        self._ping = ping
        self._observe = observe
        self.sharded = address.kind is StoreKind.CLUSTER
        self._map = SlotMap([])
        self._shards: dict[ServerAddress, Shard] = {}
        self._subscriptions: dict[str, tuple[int, Shard]] = {}
        self._tasks: trio.Nursery | None = None
        self._looking = False
        self._looked = trio.Event()
        self._unsubscribable: set[int] = set()

    def begin(self) -> None:
        """Log trouble from now on: a start that fails says so in its one line."""
        for shard in self.all:
            shard.begin()

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect to all servers, and serve until cancelled. Raises StartError before it has started."""
        self._sink = sink
        if self.sharded:
            self._map = await trio.to_thread.run_sync(self._find_map, abandon_on_cancel=True)
        servers = self._map.servers if self.sharded else [ALONE]
        async with trio.open_nursery() as self._tasks:
            for server in servers:
                self._add(server)
            for shard in self.all:
                await shard.wait_looked()
            if (refusal := self._refusal) is None:
                task_status.started()
            else:  # raised alone, not in the nursery's group
                self._tasks.cancel_scope.cancel()
        if refusal is not None:
            raise StartError(refusal)

    @property
    def _refusal(self) -> str | None:
        """The reason not to start: no server can be used, or one must not be used."""
        down = {shard: shard.down for shard in self.all if shard.down is not None}
        unfit = [problem for shard, problem in down.items() if shard.unfit]
        if unfit or len(down) == len(self._shards):
            return (unfit or list(down.values()))[0]
        return None

    def _add(self, server: ServerAddress) -> Shard:
        address, where, shown = self._address, None, self._address.shown
        if address.kind is StoreKind.SENTINEL:
            where = partial(ask_sentinels, address, self._timing.answer)
        elif self.sharded:
            where, shown = partial(_at, server), f"{server[0]}:{server[1]}"
        connector = Connector(address, patience=self._timing.answer, where=where)
        shard = self._shards[server] = Shard(
            server,
            connector,
            self,
            shown=shown,
            node=self._node,
            timing=self._timing,
            ping=self._ping,
            observe=self._observe,
            sharded=self.sharded,
        )
        assert self._tasks is not None
        self._tasks.start_soon(shard.run)
        return shard

    async def close(self, last: Callable[[], None]) -> None:
        """Refuse further commands after those that `last` submits; wait until all are done."""
        last()
        for shard in self.all:
            shard.stop()
        for shard in self.all:
            await shard.wait_ended()

    @property
    def all(self) -> list[Shard]:
        """All servers."""
        return list(self._shards.values())

    @property
    def trouble(self) -> str | None:
        """The reason why no room can store a message just now; None if some room can."""
        troubles = [shard.trouble for shard in self._shards.values()]
        return troubles[0] if troubles and all(troubles) else None

    @property
    def risks(self) -> list[str]:
        """The reasons why acknowledged messages may be lost."""
        facts = [shard.facts for shard in self._shards.values() if shard.facts is not None]
        faults = [each.fault for each in facts if each.fault is not None]
        return list(dict.fromkeys([*faults, *(risk for each in facts for risk in each.risks)]))

    def look_again(self) -> None:
        """Ask the servers for their facts again."""
        for shard in self._shards.values():
            shard.look_again()

    def of(self, slot: int) -> Shard:
        """The server that has a slot."""
        if not self.sharded:
            return self._shards[ALONE]
        server = self._map.owner(slot)
        if server is None or (shard := self._shards.get(server)) is None:
            shard = next(iter(self._shards.values()))  # it will say which one has it, or that none has
        return shard

    # Asking

    def submit(
        self,
        slot: int,
        command: Command,
        answered: Callable[[Any], None],
        *,
        patience: float,
        retry: bool,
        urgent: bool = False,
    ) -> None:
        """See Shard.submit."""
        if self.sharded:
            due = trio.current_time() + patience
            answered = partial(self._answered, _Request(slot, command, answered, retry, urgent, due))
        self.of(slot).submit(command, answered, patience=patience, retry=retry, urgent=urgent)

    def _answered(self, asked: "_Request", reply: Any) -> None:
        if isinstance(reply, WrongServer) and self._tasks is not None and trio.current_time() < asked.due:
            self._tasks.start_soon(self._submit_again, asked)
        else:
            asked.answered(reply)

    async def _submit_again(self, asked: "_Request") -> None:
        with trio.move_on_at(asked.due):
            await self._look_again()
        left = asked.due - trio.current_time()
        if left > 0:
            self.submit(
                *(asked.slot, asked.command, asked.answered),
                patience=left,
                retry=asked.retry,
                urgent=asked.urgent,
            )
        else:
            asked.answered(Unavailable(CHANGING))

    async def call(self, slot: int, command: Command, *, patience: float, weight: int = 1) -> Any:
        """The reply to a command that may be sent twice. Raises Unavailable."""
        due = trio.current_time() + patience
        with trio.move_on_at(due):
            while True:
                try:
                    left = due - trio.current_time()
                    return await self.of(slot).call(command, patience=left, weight=weight)
                except WrongServer:
                    await self._look_again()
        raise Unavailable(CHANGING)

    def send_and_forget(self, slot: int, command: Command) -> None:
        """Have a command done that may be lost; its reply is dropped."""
        self.of(slot).send_and_forget(command)

    def publish(self, channel: str, push: str | bytes) -> Command:
        """The command that publishes in the channel of a room."""
        return ("SPUBLISH" if self.sharded else "PUBLISH", channel, push)

    def probe(self, *, troubled: bool = False) -> None:
        """Find out whether messages can be stored; with `troubled`, only at servers in trouble."""
        for shard in self._shards.values():
            if not troubled or (shard.trouble is not None and shard.facts is not None):
                shard.probe()
        if self.sharded and any(shard.trouble is not None for shard in self._shards.values()):
            self.moved()

    # The map

    def _find_map(self) -> SlotMap:
        """In a thread."""
        return find_map(self._address, self._timing.answer)

    def moved(self) -> None:
        """The map may have changed."""
        if self._tasks is not None and not self._looking:
            self._tasks.start_soon(self._look)

    async def _look_again(self) -> None:
        self.moved()
        await trio.sleep(RETRY_SECONDS)
        if self._looking:
            await self._looked.wait()

    async def _look(self) -> None:
        """Read the map again, from the first server that answers."""
        if self._looking:
            return
        self._looking, self._looked = True, trio.Event()
        try:
            for shard in sorted(self.all, key=lambda shard: shard.trouble is not None):
                try:
                    reply = await shard.call(MAP, patience=self._timing.answer)
                except Unavailable:
                    continue
                found = SlotMap.read(reply, shard.address[0])
                if found.servers:
                    self._use(found)
                    break
            if self._unsubscribable:
                await trio.sleep(RETRY_SECONDS)
        finally:
            self._looking = False
            self._looked.set()
        unsubscribable, self._unsubscribable = self._unsubscribable, set()
        for channel, (slot, home) in self._subscriptions.items():
            if slot in unsubscribable:
                home.subscribe(channel)

    def _use(self, found: SlotMap) -> None:
        self._map = found
        for server in found.servers:
            if server not in self._shards:
                self._add(server).begin()
        for channel, (slot, home) in list(self._subscriptions.items()):
            if self.of(slot) is not home:
                home.unsubscribe(channel)
                self.subscribe(slot, channel)
        for server in self._shards.keys() - set(found.servers):
            self._shards.pop(server).stop()

    # Listening

    def subscribe(self, slot: int, channel: str) -> None:
        """Listen to a channel."""
        shard = self.of(slot)
        self._subscriptions[channel] = (slot, shard)
        shard.subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to a channel."""
        _, shard = self._subscriptions.pop(channel)
        shard.unsubscribe(channel)

    def unsubscribable(self, slots: Iterable[int]) -> None:
        """See ShardSink. The map is read again, and the channels are subscribed to again."""
        self._unsubscribable.update(slots)
        self.moved()

    def subscribed(self, channels: list[bytes]) -> None:
        """See Sink."""
        self._sink.subscribed(channels)

    def pushed(self, pushes: Pushes) -> None:
        """See Sink."""
        self._sink.pushed(pushes)

    def subscriptions_lost(self, shard: Shard) -> None:
        """See Sink."""
        self._sink.subscriptions_lost(shard)

    def regained(self, shard: Shard, *, restarted: bool) -> None:
        """See Sink."""
        self._sink.regained(shard, restarted=restarted)

    def looked_at(self) -> None:
        """See Sink."""
        self._sink.looked_at()

    def refused(self, error: Exception) -> None:
        """See Sink."""
        self._sink.refused(error)


class _Request(NamedTuple):
    """A command for a Cluster, which may have to be sent again."""

    slot: int
    command: Command
    answered: Callable[[Any], None]
    retry: bool
    urgent: bool
    due: float


def _at(server: ServerAddress) -> ServerAddress:
    return server


def find_map(address: StoreAddress, patience: float) -> SlotMap:
    """The map of a Cluster, from the first server that answers. It blocks. Raises StartError."""
    problem = ""
    for server in address.hosts:
        try:
            connector = Connector(address, patience=patience, where=partial(_at, server))
            with closing_connection(connector.connect()) as connection:
                found = SlotMap.read(ask(connection, MAP), server[0])
        except Exception as error:
            problem = problem or problem_of(error)
        else:
            if found.servers:
                return found
            problem = "the store's cluster has no slots"
    raise StartError(problem)
