"""Batches, and the one task that commits them.

1. At most one batch is in flight; while it commits, the next gathers. Group commit and coalescing of
   writes are this one loop: no timer, and batches grow with the load.
2. A batch is bounded in drafts and in characters of text.
3. The outcome goes back on a path that commands can't fill.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from chatroom.adapters.engine import Engine
from chatroom.tasks.stay import Member, Stay
from chatroom.values.messages import Draft, Outcome

MAX_DRAFTS = 250
MAX_CHARACTERS = 1024 * 1024
MAX_ENTRIES = 1000


@dataclass(slots=True)
class Say:
    """Post a message; `cid` as in the draft."""

    member: Member
    text: str
    cid: str | None


@dataclass(slots=True)
class Enter:
    """Enter the first room, or switch to another one (`switch`): `since`/`epoch` ask for a resume."""

    member: Member
    room: str
    since: int | None
    epoch: str | None
    cid: str | None = None
    switch: bool = False


@dataclass(slots=True)
class Type:
    """Tell the others about typing."""

    member: Member
    active: bool
    cid: str | None


@dataclass(slots=True)
class AskMembers:
    """Who is in the room?"""

    member: Member
    cid: str | None


@dataclass(slots=True)
class Leave:
    """A departed connection's place is to be given up."""

    member: Member


@dataclass(slots=True)
class Drained:
    """A stay that ended by a switch has been read to its end."""

    stay: Stay


@dataclass(slots=True)
class Barrier:
    """All that came before is done when this is reached."""

    reached: trio.Event


Entry = Say | Enter | Type | AskMembers | Leave | Drained | Barrier


@dataclass(slots=True)
class Batch:
    """Commands in their order, and the drafts among them in the same order."""

    entries: list[Entry] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        """Whether rule 2 lets nothing more in."""
        return (
            len(self.drafts) >= MAX_DRAFTS or self.size >= MAX_CHARACTERS or len(self.entries) >= MAX_ENTRIES
        )


async def commit_batches(
    batches: "trio.MemoryReceiveChannel[Batch]",
    engine: Engine,
    committed: Callable[[Batch, list[Outcome]], None],
    observe_seconds: Callable[[float], None],
) -> None:
    """Commit one batch after the other, for ever; each outcome is reported by `committed`."""
    async for batch in batches:
        started = trio.current_time()
        outcomes = await engine.append(batch.drafts)
        observe_seconds(trio.current_time() - started)
        committed(batch, outcomes)
