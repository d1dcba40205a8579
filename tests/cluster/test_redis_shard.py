"""One server of the store: pushes and their proof, and jobs that are answered in time."""

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from chatroom.config.parsers import read_store_url
from chatroom.core.errors import Unavailable
from chatroom.engines.redis.commander import Timing
from chatroom.engines.redis.connecting import Connector
from chatroom.engines.redis.pushes import Typing, typing
from chatroom.engines.redis.shard import Pushes, Shard
from tests.support.relay import Relay
from tests.support.storenodes import until
from tests.support.stores import Store, Stores


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.channels: list[bytes] = []
        self.pushes: Pushes = []

    def subscribed(self, channels: list[bytes]) -> None:
        self.channels += channels

    def pushed(self, pushes: Pushes) -> None:
        self.pushes += pushes

    def subscriptions_lost(self, shard: Shard) -> None: ...
    def unsubscribable(self, slots: Any) -> None: ...
    def regained(self, shard: Shard, *, restarted: bool) -> None: ...


@asynccontextmanager
async def shard_on(store: Store, relay: Relay) -> AsyncIterator[tuple[Shard, Sink]]:
    """A server whose answers come by the relay, and whose pushes don't."""

    def where() -> tuple[str, int]:
        listens = threading.current_thread().name == "chatroom-pushes"
        return "127.0.0.1", store.port if listens else relay.port

    sink, timing = Sink(), Timing(answer=5, pipeline=5)
    connector = Connector(read_store_url(store.url), patience=5, where=where)
    shard = Shard(
        ("", 0),
        connector,
        sink,
        shown="store",
        node="n1",
        timing=timing,
        ping=3,
        observe=lambda _seconds: None,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        await shard.wait_looked()
        shard.subscribe("c")
        await until(lambda: sink.channels == [b"c"])
        yield shard, sink
        shard.stop()
        await shard.wait_ended()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("fsync", "proves"), [("always", True), ("everysec", False)])
async def test_where_answers_prove_what_is_stored_a_push_waits_for_one(
    stores: Stores, fsync: str, proves: bool
) -> None:
    store = stores.start(appendfsync=fsync)
    with Relay(store.port) as relay:
        async with shard_on(store, relay) as (_, sink):
            relay.part(deaf=True)
            store.ask("PUBLISH", "c", typing("n2", "e1", "ann", active=True))
            if proves:
                await trio.sleep(0.3)
                assert sink.pushes == []
                relay.join()
            await until(lambda: sink.pushes == [(b"c", Typing("ann", True))])
            relay.join()


async def test_a_job_is_answered_in_its_time_and_what_comes_later_is_dropped(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as relay:
        async with shard_on(store, relay) as (shard, _):
            assert await shard.call(("GET", "x"), patience=1) is None
            relay.part(deaf=True)
            answers: list[Any] = []
            began = time.monotonic()
            shard.submit(("SET", "x", "1"), answers.append, patience=0.3, retry=False)
            await until(lambda: answers)
            assert 0.3 <= time.monotonic() - began < 0.8
            assert isinstance(answers[0], Unavailable)
            with pytest.raises(Unavailable):
                await shard.call(("GET", "x"), patience=0.2)
            relay.join()
            assert await shard.call(("GET", "x"), patience=1) == b"1"
            assert len(answers) == 1
            assert shard.under_way == 0
