"""What each command does to the rooms, in the order of its batch and after its commit.

1. Everything here is synchronous: until `finish` nobody sees a half-applied batch.
2. A joiner's roster, last id and first batch come from the same point.
3. Presence is announced when a name's first connection enters and its last one leaves, except while
   the server stops.
4. A room that nobody uses or is about to use is given up at the end of the batch.
"""

import math

from chatroom.adapters.engine import Engine
from chatroom.pure import events
from chatroom.pure.frames import text_frame
from chatroom.pure.replay import Resume, start_of_replay
from chatroom.pure.ring import RingBudget
from chatroom.tasks.committer import AskMembers, Drained, Enter, Entry, Leave, Say, Type
from chatroom.tasks.room import Broadcast, Room
from chatroom.tasks.stay import Member, Stay
from chatroom.values.codes import ErrorCode
from chatroom.values.errors import CommandError
from chatroom.values.messages import Conflict, Duplicate, Failed, Head, Outcome, Stored


class Rooms:
    """The rooms that are in use on this node."""

    def __init__(self, engine: Engine, *, history: int, ring_bytes: int) -> None:
        self._engine = engine
        self._history = history
        self._budget = RingBudget(ring_bytes)
        self._rooms: dict[str, Room] = {}
        self._touched: dict[Room, None] = {}
        self._waiting: dict[Room, None] = {}
        self.quiet = False  # the server stops: no presence from here on
        self.messages = 0  # stored and shown since the start

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def lagging(self) -> int:
        """How many members are not up to date at this moment."""
        return sum(not stay.live for room in self._rooms.values() for stay in room.stays)

    @property
    def presences(self) -> int:
        """Distinct usernames per room, summed over the rooms."""
        return sum(len(room.roster) for room in self._rooms.values())

    def get(self, name: str) -> Room | None:
        """The room, if it is in use."""
        return self._rooms.get(name)

    def add(self, name: str, head: Head) -> Room:
        """Start using a room whose log stands at `head`."""
        room = self._rooms[name] = Room(name, head, self._budget)
        return room

    @property
    def due(self) -> float:
        """When `finish` has something to hand out though no batch has come; infinity for never."""
        return min((room.due for room in self._waiting), default=math.inf)

    def finish(self, now: float) -> list[tuple[Room, Broadcast]]:
        """What is to be handed out after a batch, or at `due`; rooms left without use are gone after it."""
        touched = self._touched | self._waiting
        self._touched, self._waiting = {}, {}
        broadcasts = []
        for room in touched:
            if room.unused:
                del self._rooms[room.name]
                room.close()
                self._engine.release(room.name)
            elif room.is_ready(now):
                broadcasts.append((room, room.take_broadcast(now)))
            else:
                room.answer_asks()
                if room.waiting:
                    self._waiting[room] = None
        return broadcasts

    def _touch(self, room: Room) -> Room:
        self._touched[room] = None
        return room

    def apply(self, entry: Entry) -> None:
        """A command that stores nothing takes effect."""
        match entry:
            case Enter():
                self._enter(entry)
            case Type(member, active, cid):
                if member.current is not None and not member.gone:
                    self._touch(member.current.room).tell_typing(member.username, active)
                    if cid is not None:
                        member.outlet.reply(events.ack(cid))
            case AskMembers(member, cid):
                if member.current is not None:
                    self._touch(member.current.room).ask_members(member.current, cid)
            case Leave(member):
                self._depart(member)
            case Drained(stay):
                self._let_go(stay)
            case _:
                pass

    def settle(self, say: Say, outcome: Outcome) -> None:
        """A posted message has got its outcome."""
        member = say.member
        member.outstanding -= 1
        match outcome:
            case Stored(message):
                assert member.current is not None
                self._touch(member.current.room).store(message)
                self.messages += 1
            case Duplicate(message_id):
                member.outlet.answer(events.duplicate(message_id, say.cid))
            case Conflict():
                error = CommandError(ErrorCode.CID_CONFLICT, "This cid stands for another text", cid=say.cid)
                member.outlet.answer(events.error(error))
            case Failed():
                error = CommandError(ErrorCode.INTERNAL, "Not stored", cid=say.cid)
                member.outlet.answer(events.error(error))
            case _:
                error = CommandError(ErrorCode.UNAVAILABLE, "Not known to be stored", retry=True, cid=say.cid)
                member.outlet.answer(events.error(error))
        member.outlet.settled()
        if member.leaving and not member.outstanding:
            self._depart(member)

    def _enter(self, entry: Enter) -> None:
        member, room = entry.member, self._rooms[entry.room]
        room.holds -= 1
        self._touch(room)
        if member.gone:
            return
        resume = None if entry.since is None else Resume(entry.since, entry.epoch or "")
        start = start_of_replay(
            resume,
            epoch=room.epoch,
            first_id=self._engine.first_id(room.name),
            last_id=room.head,
            history=self._history,
        )
        if member.current is not None:
            # The writer may still have to read there: the room stays until it says that it has.
            member.current.room.holds += 1
            old = self._touch(member.current.room)
            old.end_stay(member.current)
            old.leave(member.current, quiet=self.quiet)
        opening = _opening(entry, room, room.head - start.after, start.recovered)
        stay = Stay(member, room, start.after, text_frame(opening))
        member.current = stay
        member.stays.append(stay)
        room.enter(stay, quiet=self.quiet)
        member.outlet.wake()

    def _depart(self, member: Member) -> None:
        if member.outstanding:
            member.leaving = True
        elif member.current is not None:
            self._touch(member.current.room).leave(member.current, quiet=self.quiet)
            for stay in member.stays:
                if stay is not member.current:
                    self._let_go(stay)
            member.current = None
            member.stays = []

    def _let_go(self, stay: Stay) -> None:
        """A stay that ended by a switch needs its room no more."""
        self._touch(stay.room).holds -= 1


def _opening(entry: Enter, room: Room, replay: int, recovered: bool | None) -> bytes:
    """`welcome` or `switched`, as the room stands before the member is in it."""
    members = room.roster.as_json()
    if entry.switch:
        return events.switched(
            room.name,
            members,
            entry.cid,
            epoch=room.epoch,
            last_id=room.head,
            replay=replay,
            recovered=recovered,
        )
    return events.welcome(
        room.name,
        entry.member.username,
        members,
        epoch=room.epoch,
        last_id=room.head,
        replay=replay,
        recovered=recovered,
    )
