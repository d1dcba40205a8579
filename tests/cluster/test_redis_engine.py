"""The contract of all engines, on real stores: Valkey, Redis, and a Cluster."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from itertools import count
from typing import Any

import pytest
import trio

from chatroom.config.parsers import read_store_url
from chatroom.core.messages import Retain
from chatroom.core.stores import StoreAddress
from chatroom.engines.redis.engine import RedisEngine
from tests.support.engine_contract import EngineContract
from tests.support.engines import NoNews
from tests.support.stores import Kind, Stores

_numbers = count(1)


class Quiet(NoNews):
    """A feed that hears of its own messages, and of rosters."""

    def ahead(self, *news: Any) -> None: ...
    def roster(self, *news: Any) -> None: ...


@pytest.fixture(scope="module", params=["valkey", "redis", "cluster"])
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreAddress]:
    kind = Kind.REDIS if request.param == "redis" else Kind.VALKEY
    with closing(Stores(tmp_path_factory.mktemp("stores"), kind)) as stores:
        store = stores.cluster() if request.param == "cluster" else stores.start()
        yield read_store_url(store.url)


class TestContract(EngineContract):
    store_dates = True

    @pytest.fixture(autouse=True)
    def _use(self, address: StoreAddress) -> None:
        self.address = address

    @asynccontextmanager
    async def opened(self, keep: int = 500) -> AsyncIterator[RedisEngine]:
        engine = RedisEngine(
            self.address,
            lambda: f"epoch{next(_numbers)}",
            prefix=f"t{next(_numbers)}",
            node="n1",
            incarnation="x",
            retain=Retain(count=keep),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.serve, Quiet())
            yield engine
            nursery.cancel_scope.cancel()
