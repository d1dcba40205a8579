"""The port to durability and, later, to other nodes: what every engine promises to those above it.

1. What is delivered to anybody is what came back from `append`, the sender's own messages included.
2. Ids are dense per room within an epoch: 1, 2, 3 …; an id once told is never given to another text.
3. The epoch belongs to a room's log. No last id is forgotten without forgetting its epoch.
4. Every call ends: an engine bounds its own waits, and raises Unavailable when it has waited enough. Only
   `append` waits for as long as its store does, since there is nothing to be said of its drafts before.
5. Below the port there are threads, clocks, files; above it there are none.

All engines pass one suite of tests, `tests/engine_contract.py`.
"""

from collections.abc import Sequence
from typing import Protocol

import trio

from chatroom.values.messages import Draft, Head, Message, Outcome, Page


class Engine(Protocol):
    """A log per room."""

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what the engine needs until cancelled; nothing else may be called before it has started.

        Resource handling: what was handed in before the cancellation is finished, and everything closed,
        before it returns; within a few seconds, whatever the disk does.
        Error handling: raises StartError before it has started. What it raises later is a fault of ours.
        """
        ...

    def troubles(self) -> tuple[str, ...]:
        """Why nothing can be stored just now, in words for the operator; empty if it can. Never waits."""
        ...

    async def open(self, room: str) -> Head:
        """Start using `room`: where its log stands now.

        Ordering: a later `append` continues at exactly this head. Raises Unavailable.
        """
        ...

    def release(self, room: str) -> None:
        """Nobody uses `room` any more; its log may be given up where it holds nothing. Never waits."""
        ...

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Store the drafts in their order, in one commit; one outcome each, in the same order.

        Durability: on return everything reported Stored or Duplicate is as durable as the engine is.
        What was reported Unknown is never shown by a later call of this run: either it is not there, or it
        is taken back before the next draft is stored, or the same `cid` finds it after the next start.
        Ordering: ids rise with the order of the drafts in their room. At most one call at a time.
        A store that fails makes outcomes Unknown (may be there, may not) or Failed (certainly not);
        it raises nothing.
        """
        ...

    async def read(self, room: str, after: int, upto: int, limit: int) -> list[Message]:
        """The messages with ids above `after`, ascending, up to `upto` and at most `limit` of them.

        At least one, and no hole: the first has the id `after + 1`. Raises Trimmed if that one is no longer
        kept, Unavailable.
        """
        ...

    async def history(
        self, room: str, *, before: int | None, after: int | None, upto: int, limit: int
    ) -> Page:
        """A page of what is kept, ascending: below `before`, or above `after`, or the newest.

        Nothing above `upto`, the last id that the room has been shown. Raises Unavailable.
        """
        ...

    def first_id(self, room: str) -> int:
        """The lowest id kept of an open room, as far as is known without asking the store.

        It may lag behind what was trimmed a moment ago; `last_id + 1` where nothing is kept.
        """
        ...
