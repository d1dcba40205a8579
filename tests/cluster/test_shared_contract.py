"""The contract of all engines, for one that shares its store: on memory and SQLite, with a hostile feed."""

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from chatroom.core.messages import Retain
from chatroom.engines.engine import Engine
from chatroom.engines.memory import MemoryEngine
from tests.support.database import PromptEngine, epochs, serving
from tests.support.engine_contract import EngineContract
from tests.support.engines import NoNews, serve
from tests.support.nodes import Node, SharedStore


class Deaf(NoNews):
    """Hears all and does nothing."""

    def arrived(self, *news: Any) -> None: ...
    def ahead(self, *news: Any) -> None: ...
    def present(self, *news: Any) -> None: ...
    def roster(self, *news: Any) -> None: ...
    def typed(self, *news: Any, **more: Any) -> None: ...


@asynccontextmanager
async def node_on(engine: Engine) -> AsyncIterator[Node]:
    async with trio.open_nursery() as nursery:
        node = SharedStore(engine, random.Random(1), longest=0, lost=0).node()
        await nursery.start(node.serve, Deaf())
        yield node
        nursery.cancel_scope.cancel()


class TestHostileOnMemory(EngineContract):
    @asynccontextmanager
    async def opened(self, keep: int = 500) -> AsyncIterator[Node]:
        async with (
            trio.open_nursery() as nursery,
            node_on(engine := MemoryEngine(epochs(), per_room=keep)) as node,
        ):
            await nursery.start(serve, engine)
            yield node
            nursery.cancel_scope.cancel()


class TestHostileOnSqlite(EngineContract):
    @asynccontextmanager
    async def opened(self, keep: int = 500) -> AsyncIterator[Node]:
        with tempfile.TemporaryDirectory(prefix="chat-test-") as folder:
            engine = PromptEngine(f"{folder}/chat.db", epochs(), retain=Retain(count=keep))
            async with serving(engine), node_on(engine) as node:
                yield node
