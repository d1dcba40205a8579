"""What each command does to the rooms, in the order of its batch and after its commit.

1. Everything here is synchronous: until `finish` nobody sees a half-applied batch.
2. A joiner's roster, last id and first batch come from the same point: when its writer comes to its
   subscription.
3. Presence is announced when a name's first connection enters and its last one leaves, except while the
   server stops. If other nodes share the store, the engine is told instead. It says when presence has changed
   on all nodes together, and then presence is announced at its place between the messages.
4. A posted message is settled when it is shown here; see `acknowledgements`.
5. A room whose log was replaced is given up with all its members. Members that come later get a new room.
6. A room that nobody uses or is about to use is given up at the end of the batch.

It doesn't know when a batch is committed, nor how a broadcast reaches its members.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import assert_never

import trio

from chatroom.core.errors import (
    CloseCode,
    CommandError,
    Disconnect,
    ErrorCode,
    Replaced,
    Unavailable,
    replaced_room,
)
from chatroom.core.limits import MAX_UNANSWERED, Limits
from chatroom.core.messages import STORED, Change, Denial, Duplicate, Head, Outcome, Record
from chatroom.core.sanctions import Action, Sanction
from chatroom.engines.engine import Engine
from chatroom.protocol import events
from chatroom.rooms.acknowledgements import DEFER_SECONDS, Acknowledgements, DeferredActions
from chatroom.rooms.broadcast import Broadcast
from chatroom.rooms.directory import Directory
from chatroom.rooms.entries import (
    Barrier,
    Enter,
    Entry,
    Follow,
    FollowedRoom,
    Hold,
    Leave,
    MemberDraft,
    MembersRequest,
    Opening,
    Release,
    TypingUpdate,
)
from chatroom.rooms.following import Following
from chatroom.rooms.joinreply import WelcomeOrSwitched
from chatroom.rooms.ring import RingBudget
from chatroom.rooms.room import REMOVED, Member, Room, Subscription

MANY_CHANGES = 50
"""If more names than that come and go at once, members are given one list instead of the changes."""


class Rooms:
    """The rooms that are in use on this node."""

    def __init__(
        self,
        engine: Engine,
        *,
        history: int,
        ring_bytes: int,
        limits: Limits,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`now_ms` is the time of day, by which sanctions end."""
        self._engine = engine
        self._now_ms = now_ms
        self._history = history
        self._limits = events.limits_json(limits, unanswered=MAX_UNANSWERED)
        self._budget = RingBudget(ring_bytes)
        self._rooms: dict[str, Room] = {}
        self.directory = Directory(engine, self._rooms.values)
        self._touched: dict[Room, None] = {}
        self._waiting: dict[Room, None] = {}
        self._deferred = DeferredActions()
        self.acknowledgements = Acknowledgements(self._deferred, self.apply, self.unavailable_error)
        self.following = Following(self._touch, self.ban_against, self.unavailable_error)
        self._moved: dict[Room, dict[str, bool]] = {}  # names that came to this node, or went
        self.behind: dict[Room, None] = {}  # rooms that are to be read on from the log
        self.visitors: set[Member] = set()  # who post without being members of a room
        self._final_presence: dict[str, Collection[str]] | None = None  # at a stop: the names of each room
        self.messages = 0  # stored and shown since the start
        self.unavailable = 0  # commands that were answered `unavailable`

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def lagging(self) -> int:
        """The number of members that lag at this moment."""
        return sum(not each.live for room in self._rooms.values() for each in room.subscriptions)

    @property
    def outstanding(self) -> int:
        """The number of posted messages that have no outcome yet."""
        members = [each.member for room in self._rooms.values() for each in room.subscriptions]
        return sum(member.outstanding - member.unshown for member in (*members, *self.visitors))

    @property
    def presences(self) -> int:
        """The number of distinct usernames per room, summed over the rooms."""
        return sum(len(room.roster) for room in self._rooms.values())

    def get(self, name: str) -> Room | None:
        """The room, if it is in use."""
        return self._rooms.get(name)

    def uses(self, room: Room) -> bool:
        """Whether `room` is still in use. If not, another one may have its name."""
        return self._rooms.get(room.name) is room

    def add(self, name: str, head: Head) -> Room:
        """Start using a room whose log stands at `head`."""
        room = self._rooms[name] = Room(name, head, self._budget, shared=self._engine.shared)
        return room

    @property
    def due(self) -> float:
        """When `finish` has something to hand out even if nothing enters; infinity for never."""
        due = min([room.due for room in self._waiting]) if self._waiting else math.inf
        if self.following.active:
            due = min(due, self.following.due)
        return min(due, self._deferred.due) if self._deferred.rooms else due

    def finish(self) -> list[tuple[Room, Broadcast]]:
        """The broadcasts to hand out now. Gives up rooms that nobody uses."""
        if self._deferred.rooms:
            self._deferred.expire(trio.current_time())
        if self._moved:
            self._tell_moved()
        touched, self._touched = self._touched, {}
        if self._waiting:
            touched |= self._waiting
            self._waiting = {}
        broadcasts = []
        for room in touched:
            if not (room.subscriptions or room.refcount):
                room.close()
                if not room.replaced:
                    self._forget(room)
            elif room.urgent or room.is_ready(trio.current_time()):
                broadcasts.append((room, room.pop_broadcast()))
            elif room.waiting:
                self._waiting[room] = None
        return broadcasts

    def _touch(self, room: Room) -> Room:
        self._touched[room] = None
        return room

    def _forget(self, room: Room) -> None:
        self.directory.give_up(room)
        self._deferred.give_up(room)
        self._touched.pop(room, None)
        del self._rooms[room.name]
        self._engine.release(room.name)

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, {}
        for room, names in moved.items():
            came = [username for username, here in names.items() if here]
            self._engine.attend(room.name, came, [username for username in names if not names[username]])

    def apply(self, entry: Entry) -> None:
        """A command that stores nothing takes effect."""
        if self.acknowledgements.unshown and self.acknowledgements.defer(entry):
            return
        match entry:
            case Enter():
                self._enter(entry)
            case FollowedRoom():
                self.following.open(entry)
            case Follow():
                self.following.follow(entry)
            case TypingUpdate(member, active, cid):
                if member.current is not None and not member.gone:
                    self._type(member, member.current.room, active, cid)
            case MembersRequest(member, cid):
                if member.current is not None:
                    member.current.room.answer_members(member.current, cid)
            case Leave(member):
                self._depart(member)
            case Hold():
                self._hold(entry)
            case Release(subscription):
                self.release(subscription)
            case Barrier(reached):
                self.acknowledgements.reached.append(reached)
            case MemberDraft():
                pass  # the broker's own: see `settle`
            case _:
                assert_never(entry)

    def settle(self, draft: MemberDraft, outcome: Outcome) -> None:
        """A posted message has got its outcome."""
        member = draft.member
        assert member.current is not None
        room = member.current.room
        if isinstance(outcome, STORED):
            self._receive(room, outcome)
            if room.head >= outcome.id and not room.replaced:
                member.current.last_posted = outcome.id
                member.outstanding -= 1
                member.sink.settled(outcome)
                return
        elif isinstance(outcome, Duplicate):
            self._expect(room, outcome.id)
        self.acknowledgements.settle(draft, room, outcome)

    def fall_silent(self) -> None:
        """The server stops: no presence from here on. For the other nodes, the names that are here stay."""
        self._final_presence = {name: [*room.roster.here] for name, room in self._rooms.items()}

    # What other nodes do

    def show(self, name: str, epoch: str, records: Sequence[Record]) -> None:
        """Others have stored these records. If nobody uses the room any more, nothing is shown."""
        room = self._rooms.get(name)
        if room is not None and self._is_of(room, epoch):
            for record in records:
                self._receive(room, record)
                self.acknowledgements.brought(room, record)

    def expect(self, name: str, epoch: str, last_id: int) -> None:
        """The log of a room has reached `last_id`."""
        room = self._rooms.get(name)
        if room is not None and self._is_of(room, epoch):
            self._expect(room, last_id)

    def _expect(self, room: Room, last_id: int) -> None:
        if room.head < last_id:
            room.sequence.expect(last_id)
            self.behind[room] = None

    def _is_of(self, room: Room, epoch: str) -> bool:
        """Whether the room has this epoch. If not, one of the two is old: the log has to be asked which."""
        if room.epoch == epoch:
            return True
        room.doubted = True
        self.behind[room] = None
        return False

    def change(self, name: str, changes: Sequence[Change], after: int) -> None:
        """Names came and went, behind the message `after`."""
        self._place(name, after, partial(self._change, changes))

    def relist(self, name: str, names: Mapping[str, int], after: int) -> None:
        """These are the names, behind the message `after`, each with how many other nodes have it."""
        self._place(name, after, partial(self._relist, names))

    def _place(self, name: str, after: int, do: Callable[[Room], None]) -> None:
        room = self._rooms.get(name)
        if room is None or self._final_presence is not None:
            return
        self._expect(room, after)
        self._deferred.put(room, after, trio.current_time() + DEFER_SECONDS, lambda _shown: do(room))

    def _change(self, changes: Sequence[Change], room: Room) -> None:
        self._announce(room, [change for change in changes if room.roster.change(change)])

    def _relist(self, names: Mapping[str, int], room: Room) -> None:
        self._announce(room, room.roster.replace(names))

    def _announce(self, room: Room, changes: Sequence[Change]) -> None:
        if len(changes) > MANY_CHANGES:
            room.relist()
            return
        for change in changes:
            self._touch(room)
            (room.tell_joined if change.here else room.tell_left)(change.username)

    def show_typing(self, name: str, username: str, *, active: bool) -> None:
        """`username` has begun or stopped typing, on another node."""
        room = self._rooms.get(name)
        if room is not None and self._final_presence is None:
            self._touch(room).tell_typing(username, active)

    def here(self, name: str) -> Collection[str]:
        """The names that have a connection in the room on this node, or had one when it fell silent."""
        if self._final_presence is not None:
            return self._final_presence.get(name, ())
        room = self._rooms.get(name)
        return () if room is None or room.replaced else room.roster.here

    def when_shown(self, room: Room, message_id: int, do: Callable[[bool], None]) -> None:
        """Call `do(True)` when the message has been shown, or `do(False)` if it can't be for now."""
        self._expect(room, message_id)
        self._deferred.put(room, message_id, trio.current_time() + DEFER_SECONDS, do)

    def renew(self, room: Room, why: Disconnect) -> None:
        """The room can't go on: its members end with `why`, and members that come later get a new room."""
        room.replaced = True
        self._waiting.pop(room, None)
        self._moved.pop(room, None)
        if self._final_presence is None:
            self._engine.attend(room.name, (), room.roster.here)
        self._forget(room)
        self._touch(room)
        for subscription in room.subscriptions:
            subscription.member.sink.end(why)
        for member in room.followers.present() if room.followers is not None else ():
            member.sink.end(why)

    def pop_behind(self) -> list[Room]:
        """Rooms that are to be read on from the log.

        Each is returned once, until `read_on` was called for it.
        """
        behind, self.behind = self.behind, {}
        found = [room for room in behind if room.behind and not room.reading and self.uses(room)]
        for room in found:
            room.reading = True
        return found

    def read_on(self, room: Room, records: Sequence[Record], tip: int) -> None:
        """The log has been read from the room's head on, because it was said to reach `tip`."""
        room.reading = False
        if self.uses(room):
            if not records:
                room.sequence.give_up(tip)
            for record in records:
                self._receive(room, record)
                self.acknowledgements.brought(room, record)
            if room.behind:
                self.behind[room] = None

    def _receive(self, room: Room, record: Record) -> None:
        if room.replaced:
            if (now := self._rooms.get(room.name)) is not None:  # it was stored in the new log
                self._expect(now, record.id)
            return
        for each in room.sequence.receive(record):
            room.show(each)
            self._touched[room] = None
            self.messages += 1
            if room.activity is not None:
                self.following.note(room)
            if self._deferred.rooms:
                self._deferred.shown(room)
        if room.head < record.id:
            self.behind[room] = None

    # The commands

    def refuse(self, entry: Opening, why: Exception) -> None:
        """The room of a command can't be opened. Nothing has changed."""
        if isinstance(entry, FollowedRoom):
            self.following.fail(entry.follow, why)
            return
        if isinstance(entry, Hold):
            entry.held(why)
            return
        sink = entry.member.sink
        if not entry.switch:
            unreadable = Disconnect(CloseCode.INTERNAL_ERROR, "the room can't be read now")
            sink.end(replaced_room() if isinstance(why, Replaced) else unreadable)
        elif isinstance(why, Unavailable | Replaced):
            sink.reply(self.unavailable_error("The room can't be read now", entry.cid))
        else:
            error = CommandError(ErrorCode.INTERNAL, "The room can't be opened", cid=entry.cid)
            sink.reply(events.error(error))

    def refuse_opened(self, entry: Enter, why: Exception) -> None:
        """As `refuse`, where the room's refcount counts the command."""
        assert entry.opened is not None
        entry.opened.refcount -= 1
        self._touch(entry.opened)
        self.refuse(entry, why)

    def unavailable_error(self, sentence: str, cid: str | None) -> bytes:
        """The answer to a command that the trouble of the store prevents. It is counted."""
        self.unavailable += 1
        return events.error(CommandError(ErrorCode.UNAVAILABLE, sentence, retry=True, cid=cid))

    def _enter(self, entry: Enter) -> None:
        member, room = entry.member, entry.opened
        assert room is not None, "the broker has opened it"
        room.refcount -= 1
        self._touch(room)
        if member.gone:
            return
        if room.replaced:
            self.refuse(entry, Replaced())
            return
        if (ban := self.ban_against(member, room)) is not None:
            self._refuse_banned(entry, ban)
            return
        if member.current is not None:
            # The writer may still have to read there: the room stays until `release`.
            member.current.room.refcount += 1
            old = self._touch(member.current.room)
            old.end_subscription(member.current)
            self._leave(old, member.current)
        subscription = Subscription(
            member, room, WelcomeOrSwitched(entry, self._engine, self._history, self._limits)
        )
        member.current = subscription
        member.moderator = member.rights.can(room.name, "m")
        member.subscriptions.append(subscription)
        if room.enter(subscription):
            self._move(room, member.username, here=True)
        member.sink.wake()

    def remove_sanctioned(self, room: Room) -> None:
        """End the connections and follows of names that were told to leave; those of moderators stay."""
        removals, room.removals = room.removals, None
        for record in removals or ():
            why = Disconnect(CloseCode.REMOVED, record.text or REMOVED[record.action])
            for subscription in room.subscriptions:
                member = subscription.member
                if member.username == record.target and not member.moderator:
                    member.sink.end(why)
            if record.action is Action.BAN and room.followers is not None:
                self.following.end(room, record.target)

    def sanctions(self, room: Room) -> tuple[Sanction, ...]:
        """The sanctions that are in force in a room."""
        return room.sanctions.in_force(self._now_ms())

    def ban_against(self, member: Member, room: Room) -> Sanction | None:
        """The ban by which a member may not come into a room now."""
        if not room.sanctions or member.rights.can(room.name, "m"):
            return None
        return room.sanctions.find(Action.BAN, member.username, self._now_ms())

    def seconds_until(self, until: int) -> float:
        """How long a sanction is still in force."""
        return (until - self._now_ms()) / 1000

    def _refuse_banned(self, entry: Enter, ban: Sanction) -> None:
        sink = entry.member.sink
        if entry.switch:
            error = CommandError(ErrorCode.FORBIDDEN, Denial.BANNED.value, until=ban.until, cid=entry.cid)
            sink.reply(events.error(error))
        else:
            sink.end(Disconnect(CloseCode.REMOVED, ban.reason or REMOVED[Action.BAN]))

    def _leave(self, room: Room, subscription: Subscription) -> None:
        if room.leave(subscription):
            self._move(room, subscription.member.username, here=False)

    def _move(self, room: Room, username: str, *, here: bool) -> None:
        """A name is new on this node, or gone from it (rule 3)."""
        if self._final_presence is not None or room.replaced:
            return
        if self._engine.shared:
            self._moved.setdefault(room, {})[username] = here
        elif here:
            room.tell_joined(username)
        else:
            room.tell_left(username)

    def _type(self, member: Member, room: Room, active: bool, cid: str | None) -> None:
        refusal = self.refusal_to_speak(member, cid)
        if refusal is None:
            self._touch(room).tell_typing(member.username, active)
            if self._engine.shared:
                self._engine.tell_typing(room.name, member.username, active=active)
        if cid is not None:
            member.sink.reply(refusal or events.ack(cid))

    def refusal_to_speak(self, member: Member, cid: str | None) -> bytes | None:
        """The answer to a member who may not speak in its room now, by a sanction; None if it may."""
        if member.moderator or member.current is None or not (sanctions := member.current.room.sanctions):
            return None
        found = sanctions.forbids(member.username, self._now_ms())
        if found is None:
            return None
        why = Denial.BANNED if found.action is Action.BAN else Denial.MUTED
        return events.error(CommandError(ErrorCode.FORBIDDEN, why.value, until=found.until, cid=cid))

    def _depart(self, member: Member) -> None:
        assert not member.outstanding, "a departure takes effect after what was posted"
        if member.current is not None:
            self._leave(self._touch(member.current.room), member.current)
            self.following.forget(member)
            for subscription in member.subscriptions:
                if subscription is not member.current:
                    self.release(subscription)
            member.current = None
            member.subscriptions = []

    def _hold(self, entry: Hold) -> None:
        room = entry.opened
        assert room is not None, "the broker has opened it"
        if room.replaced:
            self._touch(room).refcount -= 1
            entry.held(Replaced())
        else:
            entry.held(room)

    def release(self, subscription: Subscription) -> None:
        """A subscription that ended by a switch, or a visitor's, needs its room no longer."""
        self._touch(subscription.room).refcount -= 1
