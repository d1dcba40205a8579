"""The broker: the one task that owns rooms and membership.

1. Commands come through a bounded memory channel; a connection that sends while it is full waits, its
   socket is not read, and TCP slows the sender. Nothing is dropped and nothing grows.
2. It takes what waits as a batch, never until empty: every item taken lets a blocked sender in.
3. It never awaits the engine. Outcomes, opened rooms and departures come on a path that commands can't
   fill, and are looked at first.
4. Events take effect in the order of their batch, after its commit.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio

from chatroom.adapters.engine import Engine
from chatroom.pure import events
from chatroom.tasks.committer import Barrier, Batch, Drained, Enter, Entry, Leave, Say, commit_batches
from chatroom.tasks.fanout import Fanout
from chatroom.tasks.rooms import Rooms
from chatroom.tasks.stay import Member, Stay
from chatroom.values.codes import CloseCode, ErrorCode
from chatroom.values.errors import CommandError, Disconnect, Unavailable
from chatroom.values.journal import note
from chatroom.values.messages import Draft, Head, Outcome
from chatroom.values.traces import whereabouts

INBOX = 256
MAX_TURNS = 32
QUIET_TURNS = 4
SLOW_COMMIT = 2.0
"""Seconds after which a commit that is still waiting makes the server not ready."""


class Broker:
    """The order of everything that happens in the rooms."""

    def __init__(
        self,
        engine: Engine,
        rooms: Rooms,
        *,
        fanout: Fanout,
        now_ms: Callable[[], int],
        observe_commit: Callable[[float], None],
    ) -> None:
        self._engine = engine
        self._rooms = rooms
        self._now_ms = now_ms
        self._observe_commit = observe_commit
        self._inbox, self._commands = trio.open_memory_channel[Entry | None](INBOX)
        self._to_commit, self._batches = trio.open_memory_channel[Batch](1)
        self._opening: dict[str, list[Enter]] = {}
        self._endings: deque[Leave | Drained] = deque()
        self._opened: deque[tuple[str, Head | CommandError]] = deque()
        self._committed: tuple[Batch, list[Outcome]] | None = None
        self._gathering = Batch()
        self._committing_since: float | None = None
        self._attention = trio.Event()
        self._nudged = False
        self.fanout = fanout

    async def submit(self, entry: Entry) -> None:
        """Hand in a command; waits while the broker is behind. Safe to cancel: then nothing was handed in."""
        if not self.submit_nowait(entry):
            await self._inbox.send(entry)

    def submit_nowait(self, entry: Entry) -> bool:
        """Hand in a command unless the broker is behind; whether it was handed in."""
        try:
            self._inbox.send_nowait(entry)
        except trio.WouldBlock:
            return False
        return True

    def depart(self, member: Member) -> None:
        """The member's connection has ended. Never waits, never fails; takes effect after what it posted."""
        member.gone = True
        self._endings.append(Leave(member))
        self._nudge()

    def let_go(self, stay: Stay) -> None:
        """A stay that ended by a switch has been read to its end. Never waits, never fails."""
        self._endings.append(Drained(stay))
        self._nudge()

    async def wait_settled(self) -> None:
        """Wait until all that has been handed in so far has taken effect."""
        barrier = Barrier(trio.Event())
        await self._inbox.send(barrier)
        await barrier.reached.wait()

    def troubles(self) -> tuple[str, ...]:
        """Why messages can't be stored just now; empty if they can."""
        since = self._committing_since
        late = since is not None and trio.current_time() - since > SLOW_COMMIT
        return ("a commit is waiting",) if late else ()

    async def run(self) -> None:
        """Serve for ever, with the committer and the openers of rooms as child tasks."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                commit_batches, self._batches, self._engine, self._on_committed, self._observe_commit
            )
            while True:
                await self._turn(nursery)

    async def _turn(self, nursery: trio.Nursery) -> None:
        """Look at results first, then hand on what was gathered, then gather more."""
        if self._committed is not None:
            committed, self._committed, self._committing_since = self._committed, None, None
            await self._take_effect(*committed)
            return
        while self._endings and not self._gathering.full:
            self._gathering.entries.append(self._endings.popleft())
        while self._opened:
            self._on_opened(*self._opened.popleft())
        if self._gathering.entries and self._committing_since is None:
            batch, self._gathering = self._gathering, Batch()
            if batch.drafts:
                self._committing_since = trio.current_time()
                self._to_commit.send_nowait(batch)
            else:
                await self._take_effect(batch, [])
                return
        await self._gather(nursery)

    async def _gather(self, nursery: trio.Nursery) -> None:
        """Wait for something to do, and take what is there, up to one batch."""
        if self._gathering.full:
            self._attention = trio.Event()
            if self._committed is None:
                await self._attention.wait()
            return
        if (due := self._rooms.due) < math.inf:
            with trio.move_on_at(due) as waiting:
                self._take(await self._commands.receive(), nursery)
            if waiting.cancelled_caught:
                await self._hand_out()
                return
        else:
            self._take(await self._commands.receive(), nursery)
        self._drain(nursery)
        if self._committing_since is None:
            await self._wait_for_company(nursery)

    def _drain(self, nursery: trio.Nursery) -> None:
        with suppress(trio.WouldBlock):
            while not self._gathering.full:
                self._take(self._commands.receive_nowait(), nursery)

    async def _wait_for_company(self, nursery: trio.Nursery) -> None:
        """Give way a few times while more keeps coming: readers that are ready get into the same batch.

        Each turn of the scheduler brings a message a connection at most: without this, a busy room would be
        told of a few messages at a time. It is no timer: where nobody is ready, it costs a few empty turns.
        """
        quiet = 0
        for _ in range(MAX_TURNS):
            gathered = len(self._gathering.entries)
            await trio.lowlevel.checkpoint()
            self._drain(nursery)
            quiet = 0 if len(self._gathering.entries) > gathered else quiet + 1
            if quiet == QUIET_TURNS or self._gathering.full:
                return

    def _take(self, entry: Entry | None, nursery: trio.Nursery) -> None:
        """Put a command into the batch, or first have the room opened that it needs."""
        if isinstance(entry, Say):
            member, gathering = entry.member, self._gathering
            assert member.current is not None
            room = member.current.room.name
            gathering.entries.append(entry)
            gathering.drafts.append(Draft(room, member.username, entry.text, entry.cid, self._now_ms()))
            gathering.size += len(entry.text)
            return
        match entry:
            case None:
                self._nudged = False
            case Enter(room=name):
                if (waiting := self._opening.get(name)) is not None:
                    waiting.append(entry)
                elif (known := self._rooms.get(name)) is not None:
                    known.holds += 1
                    self._gathering.entries.append(entry)
                else:
                    self._opening[name] = [entry]
                    nursery.start_soon(self._open, name)
            case _:
                self._gathering.entries.append(entry)

    async def _open(self, name: str) -> None:
        """The task of one room's opening."""
        opened: Head | CommandError
        try:
            opened = await self._engine.open(name)
        except Unavailable:
            opened = CommandError(ErrorCode.UNAVAILABLE, "The room can't be read now", retry=True)
        except Exception as error:  # nothing has changed yet: it is a failure of these commands alone
            note(logging.ERROR, "open_failed", **whereabouts(error))
            opened = CommandError(ErrorCode.INTERNAL, "The room can't be opened")
        self._opened.append((name, opened))
        self._nudge()

    def _on_opened(self, name: str, opened: Head | CommandError) -> None:
        waiting = self._opening.pop(name)
        if isinstance(opened, Head):
            self._rooms.add(name, opened).holds = len(waiting)
            self._gathering.entries.extend(waiting)
            return
        for entry in waiting:
            if entry.switch:
                error = CommandError(opened.code, opened.message, retry=opened.retry, cid=entry.cid)
                entry.member.outlet.reply(events.error(error))
            else:
                entry.member.outlet.end(Disconnect(CloseCode.INTERNAL_ERROR, "the room can't be read now"))

    def _on_committed(self, batch: Batch, outcomes: list[Outcome]) -> None:
        self._committed = (batch, outcomes)
        self._nudge()

    def _nudge(self) -> None:
        """Wake the loop wherever it waits; a full inbox means that it is awake."""
        self._attention.set()
        if not self._nudged:
            with suppress(trio.WouldBlock):
                self._inbox.send_nowait(None)
                self._nudged = True

    async def _take_effect(self, batch: Batch, outcomes: list[Outcome]) -> None:
        rooms = self._rooms
        results = iter(outcomes)  # one for each Say, in their order
        reached: list[trio.Event] = []
        for entry in batch.entries:
            if isinstance(entry, Say):
                rooms.settle(entry, next(results))
            elif isinstance(entry, Barrier):
                reached.append(entry.reached)
            else:
                rooms.apply(entry)
        await self._hand_out()
        for event in reached:
            event.set()

    async def _hand_out(self) -> None:
        for room, broadcast in self._rooms.finish(trio.current_time()):
            await self.fanout(room, broadcast)
