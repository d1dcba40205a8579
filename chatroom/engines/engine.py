"""The port to durability and to other nodes: what every engine promises to the parts that use it.

1. What is delivered to any member is what came back from `append`, also to the sender itself, or what the
   engine hands to its feed.
2. Ids are dense per room within an epoch: 1, 2, 3 … An id that was once told is never given to another text.
3. The epoch belongs to a room's log. No last id is forgotten without its epoch.
4. Every call ends: an engine bounds its own waits, and says Unavailable when it has waited long enough. Only
   `append` waits for as long as its store does, if no other node uses that store: before the store has
   answered, nothing can be said of the drafts.
5. `open` and `append` never wait. They are answered by a call in the Trio run: before they return, if the
   engine knows at once, else later. They are answered once, unless `serve` has ended.
6. Threads, clocks, files and networks are below the port; above it there are none.
7. An engine with a store that others write to as well is `shared`. It hands to its feed what the others do.
   That may be lost, come twice, or in any order. The log decides: what is missing is read from it.
8. From its commit on a change to a message shows wherever the message is read: its text as it is now. The
   text that it replaced is nowhere in the store.
9. The sanctions in force are kept apart from the log. They outlast what is trimmed, and the epoch.

All engines pass one suite of tests, `tests/support/engine_contract.py`. The port doesn't know connections,
nor who is told.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import trio

from chatroom.core.messages import Change, Draft, Head, Moderated, Outcome, Page, Record, RoomSummary
from chatroom.core.sanctions import Sanction
from chatroom.core.stores import StoreStatistics

READ_BYTES = 64 * 1024
"""About the bytes of text that are read at a time."""


class Feed(Protocol):
    """Takes a shared engine's hints, and tells it of the rooms on this node.

    All calls are made in the Trio run. None waits or raises. They may come in any order and repeatedly, and
    for rooms that are no longer in use.
    """

    def arrived(self, room: str, epoch: str, records: Sequence[Record]) -> None:
        """These records are stored in `room`. They are no more than a batch has."""
        ...

    def ahead(self, room: str, epoch: str, last_id: int) -> None:
        """The log of `room` has reached `last_id`.

        If the epoch is another one than before, it was replaced.
        """
        ...

    def present(self, room: str, changes: Sequence[Change], after: int) -> None:
        """Names came and went, in this order, all of them behind the message `after`."""
        ...

    def roster(self, room: str, names: Mapping[str, int], after: int) -> None:
        """The names in `room`, each with how many other nodes have it, behind the message `after`."""
        ...

    def typed(self, room: str, username: str, *, active: bool) -> None:
        """`username` has begun or stopped typing, on another node."""
        ...

    def shown(self, room: str) -> Head | None:
        """The epoch of `room` and the last id that this node has shown; None if it isn't in use."""
        ...

    def here(self, room: str) -> Collection[str]:
        """The names that have a connection in `room` on this node."""
        ...


class Engine(Protocol):
    """A log per room.

    `durable`: stored messages outlive the process, so a message that was taken and isn't stored at the end is
    lost. `shared`: others write to the store as well.
    """

    durable: bool
    shared: bool

    async def serve(
        self, feed: Feed, /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run what the engine needs until cancelled. Nothing else may be called before this has started.

        Resource handling: before it returns, it finishes what was handed in before the cancellation, and
        closes everything; within a few seconds, whatever the store does.
        Error handling: raises StartError before it has started. Any later exception is a fault of ours.
        """
        ...

    def troubles(self) -> tuple[str, ...]:
        """Why nothing can be stored just now, in words for the operator; empty if messages can be.

        Never waits.
        """
        ...

    def sizes(self) -> tuple[int, int]:
        """Bytes on the disk: of the database and of its write-ahead log; zeros without one. Never waits."""
        ...

    @property
    def statistics(self) -> StoreStatistics | None:
        """How a shared engine stands with its store; None if the engine isn't shared. Never waits."""
        ...

    def open(self, room: str, opened: Callable[[Head | Exception], None]) -> None:
        """Start using `room`: `opened` gets the head of its log, Unavailable, or a fault of ours.

        Ordering: a later `append` continues at exactly this head, but for messages that others store. A
        shared engine then hands the roster to its feed at once, and from there on whatever happens in the
        room.
        """
        ...

    def release(self, room: str) -> None:
        """Stop using `room`. Its log may be given up if it is empty. Never waits."""
        ...

    def append(self, drafts: Sequence[Draft], committed: Callable[[list[Outcome] | Exception], None]) -> None:
        """Store the drafts in their order, in one commit; `committed` gets the outcome of each, in order.

        Durability: a draft that was reported stored or Duplicate is as durable as the engine is.
        Ordering: ids rise with the order of the drafts in their room, and each draft is judged as the log and
        the sanctions stand behind those before it: see `changes`. At most one append is under way.
        A store that fails makes outcomes Unknown (may be there, may not) or Failed (certainly not). An
        exception in place of the outcomes is a fault of ours.

        A draft that was reported Unknown is never shown by a later call of this run. Either it is not there,
        or it is removed before the next draft is stored, or the same `cid` finds it after the next start.

        A shared engine ends within 2 s. It may show an Unknown draft later, as any message, and the same
        `cid` finds it. Messages that others have stored between the last id shown and the first of these
        drafts go to the feed before the outcomes.
        """
        ...

    async def head(self, room: str) -> Head:
        """The head of an open room's log, by the store's own word. Raises Unavailable within 3 s."""
        ...

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Record]:
        """The records with ids above `after`, ascending, up to `upto` and at most `limit` of them.

        The list ends with the record by which the texts make `max_bytes` (of UTF-8); none is read beyond it.
        There is at least one record, and no hole: the first one has the id `after + 1`. The list is empty
        only if that id is above all that this node has shown, and the log ends at `after`, whatever the feed
        was told. Raises Trimmed if the first one is no longer kept; Replaced if the log has another epoch
        than `epoch`, or less than was shown of it; Unavailable.
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
        """A page of the messages that are kept, ascending: below `before`, or above `after`, or the newest.

        It begins where it continues what the reader has, and is bounded by `limit` and `max_bytes` as in
        `read`. Other records are left out, and don't count. It has nothing above `upto`, the last id that the
        room has been shown. Raises Replaced as `read` does, Unavailable.
        """
        ...

    async def moderations(self, room: str, epoch: str, *, upto: int, limit: int) -> list[Moderated]:
        """The last `limit` actions of moderators that the room's log still has, ascending, up to `upto`.

        An engine may look at the newest 10,000 records only. Raises Replaced, Unavailable.
        """
        ...

    async def sanctions(self, room: str) -> tuple[Sanction, ...]:
        """The sanctions in force in any room, in use or not, by name. Raises Unavailable within 3 s."""
        ...

    async def summaries(self) -> Sequence[RoomSummary]:
        """All rooms in which something is stored, in any order. Raises Unavailable.

        This costs as much as there are rooms, in small pieces of work.
        """
        ...

    def first_id(self, room: str) -> int:
        """The lowest id kept of an open room, as far as is known without asking the store.

        It may lag behind a trimming of a moment ago, but not behind a Trimmed that `read` has raised. It is
        `last_id + 1` if nothing is kept.
        """
        ...

    def attend(self, room: str, came: Collection[str], went: Collection[str]) -> None:
        """The names `came` have their first connection in `room` on this node, `went` had their last.

        Never waits. A shared engine tries until the store knows, whatever happens to the store meanwhile. Any
        change for the members comes back by the feed, to this node as to all. Other engines do nothing.
        """
        ...

    def tell_typing(self, room: str, username: str, *, active: bool) -> None:
        """Tell the other nodes of a shared engine that `username` types. That may be lost. Never waits."""
        ...
