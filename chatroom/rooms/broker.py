"""The broker: it owns rooms and membership, and nothing else changes them.

The broker is a synchronous core, which one task pumps. What enters, from connections or from the engine, only
waits and wakes that task. Everything takes effect in `pump`.

1. Commands come through a bounded memory channel. While it is full, a connection that sends waits, its socket
   is not read, and TCP slows the client. Nothing is dropped and nothing grows.
2. Each pump takes one batch of what waits, never until the channel is empty: every entry that is received
   lets a blocked sender in. Entries that come while a batch is committed are the next batch: batches grow
   with the load, without a timer. Entries that the channel is not for, departures above all, keep their place
   among the commands in the side queue and are never refused.
3. The broker never waits for the engine, and has one append under way at most. If the engine answers at once,
   the answer takes effect in the same pump.
4. Results of the engine have a queue of their own, which commands can't fill, and it is looked at first.
5. Events take effect in the order of their batch, after its commit.
6. What the engine tells unasked is a hint. If messages come faster than they can be shown, only their number
   is kept. A task of the broker's reads from the log what a room is missing, for one room one task at a time.
   It posts what it has found like any other result.

It doesn't know sockets, nor what a command does to a room.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import trio

from chatroom.core.errors import CloseCode, Disconnect, Replaced, Unavailable, replaced_room
from chatroom.core.logevents import log_event, whereabouts
from chatroom.core.messages import Change, Head, Outcome, Record
from chatroom.core.sanctions import Action, Sanction
from chatroom.engines.engine import Engine
from chatroom.rooms.entries import (
    MAX_DRAFTS,
    MAX_OTHERS,
    Barrier,
    Batch,
    Enter,
    Entry,
    Follow,
    FollowedRoom,
    Hold,
    Leave,
    MemberDraft,
    Opening,
    Release,
)
from chatroom.rooms.fanout import Fanout
from chatroom.rooms.readon import READ_LIMIT, ReadOn, read_on
from chatroom.rooms.room import Member, Room, Subscription
from chatroom.rooms.rooms import Rooms

INBOX = 1024
"""Commands that may wait. Four batches: a sender that finds the inbox full needs a task to wait in, which
costs more than the message."""
SLOW_COMMIT = 2.0
"""Seconds after which a commit that is still waiting makes the server not ready."""
MAX_HINT_WEIGHT = 2000
"""The weight of hints that may wait, in messages."""
AT_ONCE = -math.inf
"""When to pump again if there is more to do."""


class Committed(NamedTuple):
    """The outcomes of the append that was under way, or a fault."""

    outcomes: list[Outcome] | Exception


class RoomOpened(NamedTuple):
    """The head of a room's log that has been opened; or why it can't be."""

    room: str
    head: Head | Exception


class Hint(NamedTuple):
    """Something that the engine told unasked: what to do about it, and its weight, in messages."""

    act: Callable[[], None]
    weight: int


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
        self.rooms = rooms
        self.fanout = fanout
        self._engine = engine
        self._now_ms = now_ms
        self._observe_commit = observe_commit
        self._inbox, self._commands = trio.open_memory_channel[Entry](INBOX)
        self._sent = 0  # commands in the inbox, as far as their senders have been resumed
        self._received = 0  # commands that came out of the inbox
        # What enters beside the inbox, each with the number of commands that go before it.
        self._side_queue: deque[tuple[int, Opening | Leave | Release]] = deque()
        self._results: deque[Committed | RoomOpened | Hint | ReadOn] = deque()
        self._hint_weight = 0  # of the hints among the results
        self._tips: dict[tuple[str, str], int] = {}  # last ids that wait as hints, by room and epoch
        self._waiting_for_room: dict[str, list[Opening]] = {}
        self._refused: deque[tuple[Opening, Exception]] = deque()
        self._log_readers: trio.Nursery | None = None
        self._gathered = Batch()
        self._committing: Batch | None = None
        self._committing_since = 0.0
        self._pieces = self._work()
        self._wakeup = trio.Event()

    # What enters, for connections

    async def submit(self, entry: Entry) -> None:
        """Hand in a command. Waits while the inbox is full. If this is cancelled, nothing was handed in."""
        if not self.submit_nowait(entry):
            await self._inbox.send(entry)
            self._sent += 1  # it may have been received meanwhile
            self._wakeup.set()

    def submit_nowait(self, entry: Entry) -> bool:
        """Hand in a command, unless the inbox is full. Return whether it was handed in."""
        try:
            self._inbox.send_nowait(entry)
        except trio.WouldBlock:
            return False
        self._sent += 1
        self._wakeup.set()
        return True

    def depart(self, member: Member) -> None:
        """The member's connection has ended. Never waits, never fails. Takes effect after what came before.

        A member that has no room yet will get none, so nothing is queued for it: while a commit hangs,
        clients that come and go leave nothing behind.
        """
        member.gone = True
        if member.current is not None:
            self._side_queue.append((self._behind_all(), Leave(member)))
            self._wakeup.set()

    def release(self, subscription: Subscription) -> None:
        """A subscription isn't needed any more: it ended and was read, or is a visitor's. Never waits."""
        self._side_queue.append((self._behind_all(), Release(subscription)))
        self._wakeup.set()

    def hold_nowait(self, room: str) -> Room | None:
        """Keep a room in use for a visitor, until a subscription is released; None if it isn't in use."""
        known = self.rooms.get(room)
        if known is not None:
            known.refcount += 1
        return known

    def _behind_all(self) -> int:
        """The place behind all commands in the inbox, whether their senders have been resumed or not."""
        return self._received + self._commands.statistics().current_buffer_used

    def delivered(self, count: int) -> None:
        """A connection's own reading has given it `count` stored messages."""
        self.fanout.count(count)

    async def follow(self, member: Member, rooms: tuple[str, ...], cid: str | None) -> None:
        """Hand in that `member` follows these rooms. Waits as `submit` does.

        If this is cancelled, the member follows what it has followed before.
        """
        follow = Follow(member, rooms, cid, missing=len(rooms))
        for number, room in enumerate(rooms):
            try:
                await self.submit(FollowedRoom(follow, room))
            except trio.Cancelled:
                self._post_hint(partial(self.rooms.following.give_up, follow, len(rooms) - number))
                raise
        if not rooms:
            await self.submit(follow)

    async def wait_settled(self, member: Member | None = None) -> None:
        """Wait until all that has been handed in so far, by `member` or by all, has taken effect."""
        barrier = Barrier(trio.Event(), member)
        await self.submit(barrier)
        await barrier.reached.wait()

    # What enters, for the engine

    def committed(self, outcomes: list[Outcome] | Exception) -> None:
        """The append under way is decided. An exception is a fault, and the next pump raises it."""
        self._results.append(Committed(outcomes))
        self._wakeup.set()

    def room_opened(self, room: str, head: Head | Exception) -> None:
        """The log of `room` is open; or it can't be opened now, or by a fault."""
        self._results.append(RoomOpened(room, head))
        self._wakeup.set()

    def arrived(self, room: str, epoch: str, records: Sequence[Record]) -> None:
        """See Feed."""
        if self._hint_weight < MAX_HINT_WEIGHT:
            self._post_hint(partial(self.rooms.show, room, epoch, records), len(records))
        elif records:
            self.ahead(room, epoch, records[-1].id)

    def ahead(self, room: str, epoch: str, last_id: int) -> None:
        """See Feed."""
        waits = self._tips.get((room, epoch))
        self._tips[room, epoch] = last_id if waits is None else max(waits, last_id)
        if waits is None:
            self._post_hint(partial(self._expect, room, epoch))

    def present(self, room: str, changes: Sequence[Change], after: int) -> None:
        """See Feed."""
        self._post_hint(partial(self.rooms.change, room, changes, after), len(changes))

    def roster(self, room: str, names: Mapping[str, int], after: int) -> None:
        """See Feed."""
        self._post_hint(partial(self.rooms.relist, room, names, after), len(names))

    def typed(self, room: str, username: str, *, active: bool) -> None:
        """See Feed."""
        if self._hint_weight < MAX_HINT_WEIGHT:
            self._post_hint(partial(self.rooms.show_typing, room, username, active=active))

    def shown(self, room: str) -> Head | None:
        """See Feed."""
        known = self.rooms.get(room)
        return None if known is None else Head(known.epoch, known.head)

    def here(self, room: str) -> Collection[str]:
        """See Feed."""
        return self.rooms.here(room)

    def _post_hint(self, act: Callable[[], None], weight: int = 1) -> None:
        hint = Hint(act, max(1, weight))
        self._hint_weight += hint.weight
        self._results.append(hint)
        self._wakeup.set()

    def _expect(self, room: str, epoch: str) -> None:
        self.rooms.expect(room, epoch, self._tips.pop((room, epoch)))

    # How it stands

    async def ban(self, room: str, username: str) -> Sanction | None:
        """The ban of `username` from a room, in use or not, if one is in force. Raises Unavailable."""
        known = self.rooms.get(room)
        if known is not None:
            return known.sanctions.find(Action.BAN, username, self._now_ms())
        sanctions = await self._engine.sanctions(room)
        bans = [each for each in sanctions if each.action is Action.BAN and each.username == username]
        return bans[0] if bans else None

    @property
    def uncommitted(self) -> int:
        """The number of messages that were handed in and that no commit has decided on yet."""
        decided = [
            len(result.outcomes)
            for result in self._results
            if isinstance(result, Committed) and isinstance(result.outcomes, list)
        ]
        return self.rooms.outstanding - sum(decided)

    def troubles(self) -> tuple[str, ...]:
        """Why messages can't be stored just now, in words for the operator; empty if they can."""
        late = self._committing is not None and trio.current_time() - self._committing_since > SLOW_COMMIT
        return ("a commit is waiting",) if late else ()

    # What happens

    async def run(self) -> None:
        """Pump until cancelled. Give way while there is more to do, else wait until more enters or is due.

        Resource handling: the tasks that ask the log run in a nursery of this task.
        Error handling: raises what a pump raises, which is a fault of ours.
        """
        async with trio.open_nursery() as self._log_readers:
            await self._pump_until_cancelled(self._log_readers)

    async def _pump_until_cancelled(self, log_readers: trio.Nursery) -> None:
        while True:
            due = self.pump()
            if self.rooms.behind:
                for room in self.rooms.pop_behind():
                    log_readers.start_soon(self._read_on, room)
            if due == AT_ONCE:
                await trio.lowlevel.checkpoint()
                continue
            self._wakeup = trio.Event()  # all that came before this has been looked at
            if due == math.inf:
                await self._wakeup.wait()
            else:
                with trio.move_on_at(due):
                    await self._wakeup.wait()

    def pump(self) -> float:
        """Do a bounded piece of work. Return when to do the next one, if nothing enters before."""
        return next(self._pieces)

    def _work(self) -> Iterator[float]:
        """All the work, piece by piece, without end. Yields what `pump` returns.

        What has been committed is told before the next append begins, so a client that hears it may have its
        next message in that append. (If appends begin before, they have half as many messages, and cost as
        much.)
        """
        while True:
            changed = self._handle_results()
            if changed:
                yield from self._tell()
            self._refuse()
            self._gather()
            if self._committing is None:
                if changed and self._gathered.entries and not self._gathered.drafts:
                    yield AT_ONCE  # it takes effect at once, as a step of its own
                self._carry_out()
            yield from self._tell()
            yield AT_ONCE if self._has_more() else self.rooms.due

    def _tell(self) -> Iterator[float]:
        """Hand out the broadcasts of what has taken effect, and set barriers."""
        for room, broadcast in self.rooms.finish():
            for _ in self.fanout.tell(room, broadcast):
                yield AT_ONCE
            if room.removals is not None:
                self.rooms.remove_sanctioned(room)
        if self.rooms.following.active:
            self.rooms.following.tell()
        while self.rooms.acknowledgements.reached:
            self.rooms.acknowledgements.reached.pop().set()

    def _has_more(self) -> bool:
        """Whether something could be done at once."""
        if self._results or self._refused or (self._gathered.entries and self._committing is None):
            return True
        if self._gathered.full:
            return False
        return self._received < self._sent or (
            bool(self._side_queue) and self._side_queue[0][0] <= self._received
        )

    def _handle_results(self) -> bool:
        """Handle results of the engine, about a batch of them. Return whether anything has taken effect."""
        weight = 0
        while self._results and weight < MAX_DRAFTS:
            match self._results.popleft():
                case RoomOpened(room, head):
                    self._resume_waiting(room, head)
                case Committed(outcomes):
                    self._end_commit(outcomes)
                    return True
                case Hint(act, much):
                    self._hint_weight -= much
                    act()
                    weight += much
                case ReadOn(known, found, tip):
                    self._end_reading(known, found, tip)
                    weight += READ_LIMIT
        return weight > 0

    def _resume_waiting(self, name: str, head: Head | Exception) -> None:
        """Have the commands go on that wait for the room `name`."""
        waiting = self._waiting_for_room.pop(name)
        if isinstance(head, Head):
            room = self.rooms.add(name, head)
            room.refcount = len(waiting)
            for entry in waiting:
                entry.opened = room
                if not self._look_for(entry, room):  # its client may have seen more since the head was read
                    self._side_queue.append((self._received, entry))
            return
        if not isinstance(head, Unavailable):
            log_event(logging.ERROR, "open_failed", **whereabouts(head))
        self._refused += [(entry, head) for entry in waiting]

    def _refuse(self) -> None:
        for _ in range(min(len(self._refused), MAX_OTHERS)):
            self.rooms.refuse(*self._refused.popleft())

    def _gather(self) -> None:
        """Receive what waits, up to one batch."""
        batch, now_ms = self._gathered, 0
        while not batch.full:
            if self._side_queue and self._side_queue[0][0] <= self._received:
                batch.add(self._side_queue.popleft()[1])
                continue
            if self._received == self._sent:
                break
            self._received += 1
            entry = self._commands.receive_nowait()
            if isinstance(entry, MemberDraft):
                entry.ts = now_ms = now_ms or self._now_ms()
                batch.add(entry)
            elif isinstance(entry, Enter | FollowedRoom | Hold):
                self._gather_opening(entry)
            else:
                batch.add(entry)

    def _gather_opening(self, entry: Opening) -> None:
        """Put `entry` into the batch, or first have its room opened."""
        name = entry.room
        if (waiting := self._waiting_for_room.get(name)) is not None:
            waiting.append(entry)
        elif (known := self.rooms.get(name)) is not None:
            known.refcount += 1
            entry.opened = known
            self._gather_opened(entry, known)
        else:
            self._waiting_for_room[name] = [entry]
            try:
                self._engine.open(name, partial(self.room_opened, name))
            except Exception as fault:  # nothing has changed yet: only these commands fail
                self.room_opened(name, fault)

    def _gather_opened(self, entry: Opening, room: Room) -> None:
        """Put `entry` into the batch, unless the log has to be asked first."""
        if not self._look_for(entry, room):
            self._gathered.add(entry)

    def _look_for(self, entry: Opening, room: Room) -> bool:
        """Start to ask the log, if the client has seen more on another node than was shown here."""
        if not isinstance(entry, Enter):
            return False
        seen_more = entry.since is not None and entry.epoch == room.epoch and entry.since > room.head
        if not seen_more or not self._engine.shared or self._log_readers is None:
            return False
        self._log_readers.start_soon(self._look_ahead, entry, room)
        return True

    # What the log is asked, in tasks of their own

    async def _look_ahead(self, entry: Enter, room: Room) -> None:
        """Have `entry` wait until the room has shown what its client has seen, if the log has it."""
        assert entry.since is not None
        try:
            head = await self._engine.head(room.name)
        except Unavailable as error:
            self._post_hint(partial(self.rooms.refuse_opened, entry, error))
            return
        self.ahead(room.name, head.epoch, head.last_id)
        if head.epoch == room.epoch and entry.since <= head.last_id:
            self._post_hint(
                partial(self.rooms.when_shown, room, entry.since, partial(self._end_look_ahead, entry))
            )
        else:
            self._end_look_ahead(entry, shown=True)

    def _end_look_ahead(self, entry: Enter, shown: bool) -> None:
        """Go on with `entry`, or refuse it if the room can't show for now what its client has seen."""
        if shown:
            self._side_queue.append((self._received, entry))
        else:
            self.rooms.refuse_opened(entry, Unavailable("the log can't be read now"))
        self._wakeup.set()

    async def _read_on(self, room: Room) -> None:
        self._results.append(await read_on(self._engine, room))
        self._wakeup.set()

    def _end_reading(self, room: Room, found: Sequence[Record] | Exception, tip: int) -> None:
        if not isinstance(found, Exception):
            self.rooms.read_on(room, found, tip)
            return
        room.reading = False
        if not self.rooms.uses(room):
            return
        if isinstance(found, Unavailable):
            self.rooms.behind[room] = None
        elif isinstance(found, Replaced):
            self.rooms.renew(room, replaced_room())
        else:
            self.rooms.renew(room, Disconnect(CloseCode.TOO_FAR_BEHIND, "too far behind"))

    # What is carried out

    def _carry_out(self) -> None:
        """Have the engine store the drafts of the gathered batch, then have the batch take effect."""
        batch = self._gathered
        if not batch.entries:
            return
        self._gathered = Batch()
        if batch.drafts:
            self._committing, self._committing_since = batch, trio.current_time()
            if self._engine.shared:
                self.rooms.acknowledgements.begin_commit()
            self._engine.append(batch.drafts, self.committed)
            self._handle_results()  # the engine may have answered at once
        else:
            self._apply_batch(batch, [])

    def _end_commit(self, outcomes: list[Outcome] | Exception) -> None:
        batch, self._committing = self._committing, None
        assert batch is not None, "an append is answered once"
        if isinstance(outcomes, Exception):
            raise outcomes
        self._observe_commit(trio.current_time() - self._committing_since)
        self._apply_batch(batch, outcomes)
        if self._engine.shared:
            self.rooms.acknowledgements.end_commit()

    def _apply_batch(self, batch: Batch, outcomes: list[Outcome]) -> None:
        rooms = self.rooms
        results = iter(outcomes)  # one for each draft, in order
        for entry in batch.entries:
            if isinstance(entry, MemberDraft):
                rooms.settle(entry, next(results))
            else:
                rooms.apply(entry)
