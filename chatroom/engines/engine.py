"""The port to durability and to other nodes: what every engine promises to those above it.

1. What is delivered to anybody is what came back from `append`, the sender's own messages included, or what
   the engine hands to its feed.
2. Ids are dense per room within an epoch: 1, 2, 3 …; an id once told is never given to another text.
3. The epoch belongs to a room's log. No last id is forgotten without forgetting its epoch.
4. Every call ends: an engine bounds its own waits, and says Unavailable when it has waited enough. Only
   `append` waits for as long as its store does, where that store is nobody else's, since there is nothing to
   be said of its drafts before.
5. `open` and `append` never wait. They are answered by a call in the Trio run: before they return, where the
   engine knows at once, else later. They are answered once, unless `serve` has ended.
6. Below the port there are threads, clocks, files, networks; above it there are none.
7. An engine with a store that others write to as well is `shared`. It hands to its feed what they do; that
   may be lost, come twice, or in any order. The log decides: what is missing is read from it.

All engines pass one suite of tests, `tests/support/engine_contract.py`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import trio

from chatroom.core.messages import Change, Draft, Head, Message, Outcome, Page
from chatroom.core.stores import StoreStatistics

READ_BYTES = 64 * 1024
"""About how much text is read at a time."""


class Feed(Protocol):
    """Where a shared engine hands what it wasn't asked for, and what it may ask of the rooms on this node.

    All calls are made in the Trio run. None waits or raises. They may come in any order and repeatedly, and
    for rooms that are no longer in use.
    """

    def arrived(self, room: str, epoch: str, messages: Sequence[Message]) -> None:
        """These messages are stored in `room`: a batch's worth at most."""
        ...

    def ahead(self, room: str, epoch: str, last_id: int) -> None:
        """The log of `room` has reached `last_id`. Another epoch than before: it has been replaced."""
        ...

    def present(self, room: str, changes: Sequence[Change], after: int) -> None:
        """Names came and went, in this order; all that is behind the message `after`."""
        ...

    def roster(self, room: str, names: Mapping[str, int], after: int) -> None:
        """The names in `room`, each with how many other nodes have it, behind the message `after`."""
        ...

    def typed(self, room: str, username: str, *, active: bool) -> None:
        """Somebody on another node has begun or stopped typing."""
        ...

    def shown(self, room: str) -> Head | None:
        """The epoch of `room` and the last id that this node has shown; None if it isn't in use."""
        ...

    def here(self, room: str) -> Collection[str]:
        """The names that have a connection in `room` on this node."""
        ...


class Engine(Protocol):
    """A log per room.

    `durable`: what is stored outlives the process, so that a message that was taken and isn't stored at the
    end is lost. `shared`: others write to the store as well.
    """

    durable: bool
    shared: bool

    async def serve(
        self, feed: Feed, /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run what the engine needs until cancelled; nothing else may be called before it has started.

        Resource handling: what was handed in before the cancellation is finished, and everything closed,
        before it returns; within a few seconds, whatever the store does.
        Error handling: raises StartError before it has started. What it raises later is a fault of ours.
        """
        ...

    def troubles(self) -> tuple[str, ...]:
        """Why nothing can be stored just now, in words for the operator; empty if it can. Never waits."""
        ...

    def sizes(self) -> tuple[int, int]:
        """Bytes on the disk: of the database and of its write-ahead log; zeros without one. Never waits."""
        ...

    @property
    def statistics(self) -> StoreStatistics | None:
        """How a shared engine stands with its store; None where nobody else uses it. Never waits."""
        ...

    def open(self, room: str, opened: Callable[[Head | Exception], None]) -> None:
        """Start using `room`: `opened` gets where its log stands now, Unavailable, or a fault of ours.

        Ordering: a later `append` continues at exactly this head, but for what others store. A shared engine
        then hands the roster to its feed at once, and from there on whatever happens in the room.
        """
        ...

    def release(self, room: str) -> None:
        """Nobody uses `room` any more; its log may be given up where it holds nothing. Never waits."""
        ...

    def append(self, drafts: Sequence[Draft], committed: Callable[[list[Outcome] | Exception], None]) -> None:
        """Store the drafts in their order, in one commit; `committed` gets the outcome of each, in order.

        Durability: everything reported stored or Duplicate is as durable as the engine is.
        Ordering: ids rise with the order of the drafts in their room. At most one append is under way.
        A store that fails makes outcomes Unknown (may be there, may not) or Failed (certainly not);
        an exception in their place is a fault of ours.

        What was reported Unknown is never shown by a later call of this run: either it is not there, or it
        is taken back before the next draft is stored, or the same `cid` finds it after the next start.

        A shared engine ends within 2 s. What was Unknown it may show later, as any message, and the same
        `cid` finds it. What others have stored between the last id shown and the first of these it hands to
        its feed before the outcomes.
        """
        ...

    async def head(self, room: str) -> Head:
        """Where the log of an open room stands, by the store's own word. Raises Unavailable within 3 s."""
        ...

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Message]:
        """The messages with ids above `after`, ascending, up to `upto` and at most `limit` of them.

        It ends with the message by which the texts make `max_bytes` (of UTF-8), and none is read beyond it.
        At least one, and no hole: the first has the id `after + 1`. None only where that is above all that
        this node has shown, and the log ends at `after`, whatever the feed was told. Raises Trimmed if it is
        no longer kept, Replaced if the log has another epoch than `epoch`, or less than was shown of it,
        Unavailable.
        """
        ...

    async def history(
        self,
        room: str,
        epoch: str,
        *,
        before: int | None,
        after: int | None,
        upto: int,
        limit: int,
        max_bytes: int = READ_BYTES,
    ) -> Page:
        """A page of what is kept, ascending: below `before`, or above `after`, or the newest.

        It is read from where it is to continue what the reader has, and bounded by `limit` and `max_bytes`
        as in `read`. Nothing above `upto`, the last id that the room has been shown. Raises Replaced as
        `read` does, Unavailable.
        """
        ...

    def first_id(self, room: str) -> int:
        """The lowest id kept of an open room, as far as is known without asking the store.

        It may lag behind what was trimmed a moment ago, but not behind a Trimmed that `read` has raised;
        `last_id + 1` where nothing is kept.
        """
        ...

    def attend(self, room: str, came: Collection[str], went: Collection[str]) -> None:
        """These names have their first connection in `room` on this node, or had their last. Never waits.

        A shared engine keeps at it until the store knows, whatever happens to it meanwhile; that others are
        to be told comes back by the feed, to this node as to all. Other engines do nothing.
        """
        ...

    def tell_typing(self, room: str, username: str, *, active: bool) -> None:
        """Tell the other nodes of a shared engine; it may be lost. Never waits."""
        ...
