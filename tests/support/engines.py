"""Engines for tests: their answers awaited, or held back."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count

import trio

from chatroom.core.messages import Change, Draft, Head, Outcome, Page, Record
from chatroom.engines.engine import READ_BYTES, Engine
from chatroom.engines.memory import MemoryEngine

Answered = Callable[[Head | Exception], None]
Committed = Callable[[list[Outcome] | Exception], None]


async def open_room(engine: Engine, room: str) -> Head:
    """Open a room, and wait for the answer. Raises what it says."""
    answers, answer = trio.open_memory_channel[Head | Exception](1)
    engine.open(room, answers.send_nowait)
    head = await answer.receive()
    if isinstance(head, Exception):
        raise head
    return head


async def append(engine: Engine, drafts: Sequence[Draft]) -> list[Outcome]:
    """Append, and wait for the outcomes. Raises what is said in their place."""
    answers, answer = trio.open_memory_channel[list[Outcome] | Exception](1)
    engine.append(drafts, answers.send_nowait)
    outcomes = await answer.receive()
    if isinstance(outcomes, Exception):
        raise outcomes
    return outcomes


def later(wait: Callable[[], Awaitable[object]], call: Callable[[], None]) -> None:
    """Call when `wait` is over: for engines that don't answer at once."""

    async def task() -> None:
        await wait()
        call()

    trio.lowlevel.spawn_system_task(task)


async def serve(engine: Engine, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Have an engine serve that has nothing to tell unasked."""

    await engine.serve(NoNews(), task_status=task_status)


class NoNews:
    """The feed of an engine that has nothing to tell unasked."""

    def arrived(self, room: str, epoch: str, records: Sequence[Record]) -> None:
        raise AssertionError(f"{len(records)} records have come in {room}")

    def ahead(self, room: str, epoch: str, last_id: int) -> None:
        raise AssertionError(f"{room} is said to stand at {last_id}")

    def present(self, room: str, changes: Sequence[Change], after: int) -> None:
        raise AssertionError(f"{len(changes)} names have come or gone in {room}")

    def roster(self, room: str, names: Mapping[str, int], after: int) -> None:
        raise AssertionError(f"{len(names)} names are told in {room}")

    def typed(self, room: str, username: str, *, active: bool) -> None:
        raise AssertionError(f"{username} is typing in {room}")

    def shown(self, room: str) -> Head | None:
        return None

    def here(self, room: str) -> Collection[str]:
        return ()


class HeldEngine(MemoryEngine):
    """Its commits wait until they are let go. `batches`: how many drafts each has had."""

    def __init__(self) -> None:
        numbers = count(1)
        super().__init__(lambda: f"epoch{next(numbers)}")
        self.go = trio.Event()
        self.batches: list[int] = []

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        self.batches.append(len(drafts))
        if self.go.is_set():
            super().append(drafts, committed)
        else:
            later(self.go.wait, partial(super().append, drafts, committed))


async def read(
    engine: Engine, room: str, after: int, upto: int, limit: int, max_bytes: int = READ_BYTES
) -> list[Record]:
    """Read a range of the log that the room has now."""
    epoch = (await engine.head(room)).epoch
    return await engine.read(room, epoch, after, upto, limit=limit, max_bytes=max_bytes)


async def history(
    engine: Engine,
    room: str,
    *,
    before: int | None,
    after: int | None,
    upto: int,
    limit: int,
    max_bytes: int = READ_BYTES,
) -> Page:
    """Read a page of the log that the room has now."""
    epoch = (await engine.head(room)).epoch
    return await engine.history(
        room, epoch, before=before, after=after, upto=upto, limit=limit, max_bytes=max_bytes
    )
