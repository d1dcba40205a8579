"""SQLite engines for tests: in a folder of the test's own, with whatever clock it wants."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any

import trio

from chatroom.core.messages import Draft, Outcome
from chatroom.engines.sqlite.engine import SqliteEngine
from chatroom.engines.sqlite.opening import open_database
from chatroom.engines.sqlite.store import Store
from chatroom.engines.sqlite.worker import Job
from tests.support.engines import Committed, serve


def epochs(prefix: str = "e") -> Callable[[], str]:
    """New epochs, one after the other."""
    numbers = count(1)
    return lambda: f"{prefix}{next(numbers)}"


@asynccontextmanager
async def open_engine(path: Path, **options: Any) -> AsyncIterator[SqliteEngine]:
    """An engine that serves until the end of the block."""
    async with serving(
        SqliteEngine(str(path), options.pop("new_epoch", None) or epochs(), **options)
    ) as engine:
        yield engine


@asynccontextmanager
async def serving(engine: SqliteEngine) -> AsyncIterator[SqliteEngine]:
    """Have an engine serve until the end of the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, engine)
        yield engine
        nursery.cancel_scope.cancel()


class PromptEngine(SqliteEngine):
    """Trims what there is to trim before an append is answered, as the engine in memory does."""

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        def trim(outcomes: list[Outcome] | Exception) -> None:
            self._thread.submit(Job(self._trim_all, lambda _: committed(outcomes)))

        super().append(drafts, trim)

    def _trim_all(self) -> None:
        assert self._retention is not None
        while self._retention.work_waits:
            self._retention.step()


def open_store(path: Path, now: Callable[[], float] = lambda: 0.0) -> Store:
    """A store, used by the test itself instead of a thread."""
    return Store(open_database(str(path), epochs(), renew=False), now)


def query(path: Path, statement: str, *values: object) -> list[Any]:
    """The rows of a statement, in a connection of its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()
