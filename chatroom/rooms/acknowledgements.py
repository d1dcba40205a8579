"""The answers to posted messages, and what may happen only behind a message that has yet to be shown.

DeferredActions, what may happen only behind a message that this node has yet to show:

1. In each room the action goes first that belongs behind the lower id; at the same id, the one that came
   first.
2. No action waits past its deadline. It then takes place without its message, and is told so.

Acknowledgements, the answers to posted messages once their outcome is known:

3. A stored message is settled when it is shown here, since messages of other nodes may have to be shown
   first. It waits for DEFER_SECONDS at most. Then its answer is `unavailable`, and it may still be shown.
4. What its member asked for behind the message waits as long, and takes effect in its order.
5. There is one answer. A message that the feed has brought while its append was under way is answered by
   being shown, whatever the outcome.

They don't know how a message reaches its room, nor what an action does.
"""

import math
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple, assert_never

import trio

from chatroom.core.errors import CommandError, ErrorCode
from chatroom.core.messages import (
    STORED,
    Conflict,
    Denied,
    Done,
    Duplicate,
    Failed,
    NotFound,
    Outcome,
    Record,
    Refused,
    Unknown,
)
from chatroom.protocol import events
from chatroom.rooms.entries import Barrier, Entry, Follow, FollowedRoom, Hold, MemberDraft, Release
from chatroom.rooms.room import Member, Room

# Deferred actions


class _Action(NamedTuple):
    after: int
    order: int
    deadline: float
    do: Callable[[bool], None]


class DeferredActions:
    """The actions that wait, by room. `rooms` has only rooms in which one waits."""

    def __init__(self) -> None:
        self.rooms: dict[Room, list[_Action]] = {}
        self._orders = count()

    @property
    def due(self) -> float:
        """When `expire` has something to do; infinity for never."""
        return min(
            (action.deadline for actions in self.rooms.values() for action in actions), default=math.inf
        )

    def put(self, room: Room, after: int, deadline: float, do: Callable[[bool], None]) -> None:
        """Call `do(True)` once the message `after` has been shown, or `do(False)` at the deadline.

        The call may come before this returns.
        """
        if after <= room.head and room not in self.rooms:
            do(True)
        else:
            heappush(self.rooms.setdefault(room, []), _Action(after, next(self._orders), deadline, do))
            self.shown(room)

    def shown(self, room: Room) -> None:
        """The head of `room` has moved."""
        actions = self.rooms.get(room)
        while actions and actions[0].after <= room.head:
            heappop(actions).do(True)
        if not actions:
            self.rooms.pop(room, None)

    def expire(self, now: float) -> None:
        """Do the actions whose deadline has passed."""
        for room in [
            room for room, actions in self.rooms.items() if any(action.deadline <= now for action in actions)
        ]:
            actions = self.rooms.pop(room)
            late = [action for action in actions if action.deadline <= now]
            if len(late) < len(actions):
                self.rooms[room] = sorted(action for action in actions if action.deadline > now)
            for action in sorted(late):
                action.do(False)

    def give_up(self, room: Room) -> None:
        """The room will show nothing any more: do all its actions without their messages."""
        for action in sorted(self.rooms.pop(room, ())):
            action.do(False)


# Acknowledgements

DEFER_SECONDS = 1.0
"""Seconds that a stored message may wait for those before it.

With the engine's own 2 s: an answer within 3.
"""


class Acknowledgements:
    """Settles posted messages. `reached`: the events of barriers, to be set when all else has been told."""

    def __init__(
        self,
        actions: DeferredActions,
        apply: Callable[[Entry], None],
        unavailable: Callable[[str, str | None], bytes],
    ) -> None:
        """`apply` has a deferred entry take effect.

        `unavailable` makes an answer of that code, and counts it.
        """
        self._actions = actions
        self._apply = apply
        self._unavailable = unavailable
        self._deferred_entries: dict[Member, list[Entry]] = {}
        self._barriers: list[Barrier] = []
        self._brought: dict[tuple[Room, str, str | None], Record] | None = None  # by room, name and cid
        self.unshown = 0
        self.reached: list[trio.Event] = []

    def settle(self, draft: MemberDraft, room: Room, outcome: Outcome) -> None:
        """The outcome of `draft` is known, and its message hasn't been shown."""
        if isinstance(outcome, STORED):
            if not room.replaced:
                self._wait_until_shown(draft, room, outcome.id, outcome)
                return
            outcome = Unknown()
        match outcome:
            case Duplicate(message_id) if room.head < message_id and not room.replaced:
                self._wait_until_shown(draft, room, message_id, outcome)
            case Unknown() if (record := self._brought_record(draft, room)) is not None:
                self._wait_until_shown(draft, room, record.id, record)
            case _:
                self._settle(draft, outcome)

    def begin_commit(self) -> None:
        """An append is under way."""
        self._brought = {}

    def end_commit(self) -> None:
        """All outcomes of the append have been passed to `settle`."""
        self._brought = None

    def _brought_record(self, draft: MemberDraft, room: Room) -> Record | None:
        """What the feed has brought for `draft`, if it has been shown or will be."""
        record = (self._brought or {}).get((room, draft.username, draft.cid))
        return None if record is None or (room.replaced and record.id > room.head) else record

    def brought(self, room: Room, record: Record) -> None:
        """The feed has brought `record`. Records before it may still be missing."""
        if self._brought is None or record.cid is None:
            return
        if room.refcount or record.username in room.roster.here:  # who posts as a visitor isn't there
            self._brought[room, record.username, record.cid] = record

    def _settle(self, draft: MemberDraft, outcome: Outcome) -> None:
        member = draft.member
        member.outstanding -= 1
        if not isinstance(outcome, STORED):
            member.sink.answer(self._answer(draft, outcome))
        member.sink.settled(outcome)

    def _wait_until_shown(
        self, draft: MemberDraft, room: Room, message_id: int, outcome: Record | Duplicate
    ) -> None:
        """Rule 3: the message is stored, and waits for those before it."""
        draft.member.unshown += 1
        self.unshown += 1
        deadline = trio.current_time() + DEFER_SECONDS
        self._actions.put(room, message_id, deadline, partial(self._end_wait, draft, outcome))

    def _end_wait(self, draft: MemberDraft, outcome: Record | Duplicate, shown: bool) -> None:
        member = draft.member
        member.unshown -= 1
        self.unshown -= 1
        if shown and isinstance(outcome, STORED) and member.current is not None:
            member.current.last_posted = outcome.id
        self._settle(draft, outcome if shown else Unknown())
        if not member.unshown:
            for entry in self._deferred_entries.pop(member, ()):
                self._apply(entry)
        if not self.unshown:
            self.reached += [barrier.reached for barrier in self._barriers]
            self._barriers = []

    def defer(self, entry: Entry) -> bool:
        """Have `entry` wait for earlier messages of its member that are yet to be shown, if there are any."""
        if isinstance(entry, Barrier) and entry.member is None:
            self._barriers.append(entry)
            return True
        if isinstance(entry, FollowedRoom | Follow | Hold):
            return False  # they are about other rooms, or of nobody in the room
        member = entry.subscription.member if isinstance(entry, Release) else entry.member
        if member is None or not member.unshown:
            return False
        self._deferred_entries.setdefault(member, []).append(entry)
        return True

    def _answer(self, draft: MemberDraft, outcome: Refused) -> bytes:
        match outcome:
            case Duplicate(message_id):
                return events.duplicate(message_id, draft.cid)
            case Done():
                return events.ack(draft.cid)
            case NotFound():
                error = CommandError(ErrorCode.NOT_FOUND, "There is no such message", cid=draft.cid)
            case Denied(why, until):
                error = CommandError(ErrorCode.FORBIDDEN, why.value, until=until, cid=draft.cid)
            case Conflict():
                error = CommandError(
                    ErrorCode.CID_CONFLICT, "This cid stands for something else", cid=draft.cid
                )
            case Failed():
                error = CommandError(ErrorCode.INTERNAL, "Not stored", cid=draft.cid)
            case Unknown():
                return self._unavailable("Not known to be stored", draft.cid)
            case _:
                assert_never(outcome)
        return events.error(error)
