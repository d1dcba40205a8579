"""All servers of the store: one, or the primaries of a Cluster, and which of them has what.

1. What is asked of a Cluster's wrong server was not done: the map is taken anew, and it is asked again,
   within the same time.
2. A channel is listened to at the server that has its room. When the map changes, it is subscribed to at the
   new one.
3. Servers that are no longer in the map are given up.
4. At the start one that can be used is enough, unless another one must not be used.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol

import trio

from chatroom.core.errors import StartError, Unavailable
from chatroom.core.stores import StoreAddress, StoreKind
from chatroom.engines.redis.commander import Pace
from chatroom.engines.redis.connecting import Dialler, ask, ask_sentinels, closing_connection, problem_of
from chatroom.engines.redis.library import Command, ServerAddress, SlotMap
from chatroom.engines.redis.shard import CHANGING, Elsewhere, Pushes, Shard

AGAIN_SECONDS = 0.05
"""How long to wait before a Cluster that is changing is asked again."""
MAP: Command = ("CLUSTER", "SLOTS")
ALONE: ServerAddress = ("", 0)
"""In the place of an address where the store is one server, which `StoreAddress` or the Sentinels name."""


class Sink(Protocol):
    """Who uses the store; all is called in the Trio run."""

    def subscribed(self, channels: list[bytes]) -> None:
        """These channels are listened to from now on; there may have been a gap before."""
        ...

    def pushed(self, pushes: Pushes) -> None:
        """This has come."""
        ...

    def deaf(self, shard: Shard) -> None:
        """The channels of this server aren't listened to just now."""
        ...

    def regained(self, shard: Shard, *, restarted: bool) -> None:
        """The server can be used again; `restarted`: it isn't the process that it was."""
        ...

    def looked_at(self) -> None:
        """How a server is set up has been looked at."""
        ...

    def refused(self, error: Exception) -> None:
        """The server has refused something for a reason that is none of its states."""
        ...


class Shards:
    """The servers of one store, by slot."""

    def __init__(
        self,
        address: StoreAddress,
        *,
        node: str,
        pace: Pace,
        ping: float,
        observe: Callable[[float], None],
    ) -> None:
        """`observe` is told how long each round trip took, in seconds."""
        self._address = address
        self._sink: Sink  # from `run` on, before there is a server
        self._node = node
        self._pace = pace
        self._ping = ping
        self._observe = observe
        self.sharded = address.kind is StoreKind.CLUSTER
        self._map = SlotMap([])
        self._shards: dict[ServerAddress, Shard] = {}
        self._homes: dict[str, tuple[int, Shard]] = {}
        self._tasks: trio.Nursery | None = None
        self._looking = False
        self._looked = trio.Event()
        self._unheard: set[int] = set()

    def begin(self) -> None:
        """Say from now on in the log what is wrong: before the start has succeeded, its one line does."""
        for shard in self.all:
            shard.begin()

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reach all servers, and look after them until cancelled. Raises StartError before it has started."""
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
        """Why not to start: no server can be used, or one must not be."""
        down = {shard: shard.down for shard in self.all if shard.down is not None}
        unfit = [problem for shard, problem in down.items() if shard.unfit]
        if unfit or len(down) == len(self._shards):
            return (unfit or list(down.values()))[0]
        return None

    def _add(self, server: ServerAddress) -> Shard:
        address, where, shown = self._address, None, self._address.shown
        if address.kind is StoreKind.SENTINEL:
            where = partial(ask_sentinels, address, self._pace.answer)
        elif self.sharded:
            where, shown = partial(_at, server), f"{server[0]}:{server[1]}"
        dialler = Dialler(address, patience=self._pace.answer, where=where)
        shard = self._shards[server] = Shard(
            server,
            dialler,
            self,
            shown=shown,
            node=self._node,
            pace=self._pace,
            ping=self._ping,
            observe=self._observe,
            sharded=self.sharded,
        )
        assert self._tasks is not None
        self._tasks.start_soon(shard.run)
        return shard

    async def close(self, last: Callable[[], None]) -> None:
        """Take nothing more but what `last` asks for; ends when all is done that was asked for."""
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
        """Why no message can be stored just now; None if some room's can."""
        troubles = [shard.trouble for shard in self._shards.values()]
        return troubles[0] if troubles and all(troubles) else None

    @property
    def doubts(self) -> list[str]:
        """What acknowledged messages may be lost by."""
        facts = [shard.facts for shard in self._shards.values() if shard.facts is not None]
        faults = [each.fault for each in facts if each.fault is not None]
        return list(dict.fromkeys([*faults, *(doubt for each in facts for doubt in each.doubts)]))

    def look_again(self) -> None:
        """Find out whether the servers are set up as they were."""
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
        again: bool,
        urgent: bool = False,
    ) -> None:
        """See Shard.submit."""
        if self.sharded:
            due = trio.current_time() + patience
            answered = partial(self._answered, _Asked(slot, command, answered, again, urgent, due))
        self.of(slot).submit(command, answered, patience=patience, again=again, urgent=urgent)

    def _answered(self, asked: "_Asked", reply: Any) -> None:
        if isinstance(reply, Elsewhere) and self._tasks is not None and trio.current_time() < asked.due:
            self._tasks.start_soon(self._submit_again, asked)
        else:
            asked.answered(reply)

    async def _submit_again(self, asked: "_Asked") -> None:
        with trio.move_on_at(asked.due):
            await self._look_again()
        left = asked.due - trio.current_time()
        if left > 0:
            self.submit(
                *(asked.slot, asked.command, asked.answered),
                patience=left,
                again=asked.again,
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
                except Elsewhere:
                    await self._look_again()
        raise Unavailable(CHANGING)

    def tell(self, slot: int, command: Command) -> None:
        """Have a command done that may be lost."""
        self.of(slot).tell(command)

    def publish(self, channel: str, push: str | bytes) -> Command:
        """The command that publishes in the channel of a room."""
        return ("SPUBLISH" if self.sharded else "PUBLISH", channel, push)

    def probe(self, *, troubled: bool = False) -> None:
        """Find out whether messages can be stored; with `troubled`, only where they couldn't be."""
        for shard in self._shards.values():
            if not troubled or (shard.trouble is not None and shard.facts is not None):
                shard.probe()
        if self.sharded and any(shard.trouble is not None for shard in self._shards.values()):
            self.moved()

    # The map

    def _find_map(self) -> SlotMap:
        """In a thread."""
        return find_map(self._address, self._pace.answer)

    def moved(self) -> None:
        """The map may have changed."""
        if self._tasks is not None and not self._looking:
            self._tasks.start_soon(self._look)

    async def _look_again(self) -> None:
        self.moved()
        await trio.sleep(AGAIN_SECONDS)
        if self._looking:
            await self._looked.wait()

    async def _look(self) -> None:
        """Take the map anew from any server that tells."""
        if self._looking:
            return
        self._looking, self._looked = True, trio.Event()
        try:
            for shard in sorted(self.all, key=lambda shard: shard.trouble is not None):
                try:
                    reply = await shard.call(MAP, patience=self._pace.answer)
                except Unavailable:
                    continue
                found = SlotMap.read(reply, shard.address[0])
                if found.servers:
                    self._use(found)
                    break
            if self._unheard:
                await trio.sleep(AGAIN_SECONDS)
        finally:
            self._looking = False
            self._looked.set()
        unheard, self._unheard = self._unheard, set()
        for channel, (slot, home) in self._homes.items():
            if slot in unheard:
                home.subscribe(channel)

    def _use(self, found: SlotMap) -> None:
        self._map = found
        for server in found.servers:
            if server not in self._shards:
                self._add(server).begin()
        for channel, (slot, home) in list(self._homes.items()):
            if self.of(slot) is not home:
                home.unsubscribe(channel)
                self.subscribe(slot, channel)
        for server in self._shards.keys() - set(found.servers):
            self._shards.pop(server).stop()

    # Listening

    def subscribe(self, slot: int, channel: str) -> None:
        """Listen to a channel."""
        shard = self.of(slot)
        self._homes[channel] = (slot, shard)
        shard.subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        """Listen to it no longer."""
        _, shard = self._homes.pop(channel)
        shard.unsubscribe(channel)

    def unheard(self, slots: Iterable[int]) -> None:
        """See ShardSink: who has these slots is looked for, and subscribed to."""
        self._unheard.update(slots)
        self.moved()

    def subscribed(self, channels: list[bytes]) -> None:
        """See Sink."""
        self._sink.subscribed(channels)

    def pushed(self, pushes: Pushes) -> None:
        """See Sink."""
        self._sink.pushed(pushes)

    def deaf(self, shard: Shard) -> None:
        """See Sink."""
        self._sink.deaf(shard)

    def regained(self, shard: Shard, *, restarted: bool) -> None:
        """See Sink."""
        self._sink.regained(shard, restarted=restarted)

    def looked_at(self) -> None:
        """See Sink."""
        self._sink.looked_at()

    def refused(self, error: Exception) -> None:
        """See Sink."""
        self._sink.refused(error)


class _Asked(NamedTuple):
    """What was asked of a Cluster, and may have to be asked again."""

    slot: int
    command: Command
    answered: Callable[[Any], None]
    again: bool
    urgent: bool
    due: float


def _at(server: ServerAddress) -> ServerAddress:
    return server


def find_map(address: StoreAddress, patience: float) -> SlotMap:
    """Who has what in a Cluster, by the first server that tells. It blocks. Raises StartError."""
    problem = ""
    for server in address.hosts:
        try:
            dialler = Dialler(address, patience=patience, where=partial(_at, server))
            with closing_connection(dialler.dial()) as connection:
                found = SlotMap.read(ask(connection, MAP), server[0])
        except Exception as error:
            problem = problem or problem_of(error)
        else:
            if found.servers:
                return found
            problem = "the store's cluster has no slots"
    raise StartError(problem)
