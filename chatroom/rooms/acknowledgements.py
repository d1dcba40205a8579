"""Acknowledgements: the answers to posted messages, and what may happen only behind a message.

Acknowledgements: the answers to posted messages, once their outcome is known.

1. What is stored is settled when it is shown here, since other nodes' messages may have to be shown first.
   It waits for DEFER_SECONDS at most: then its answer is `unavailable`, and it may still be shown.
2. What its member asked for behind it waits as long, and takes effect in its order.
3. There is one answer. A message that the feed has brought while its append was under way has it by being
   shown, whatever the outcome.

What may happen only behind a message that this node has yet to show.

1. In each room that is done first which belongs behind the lower id; at the same id, what came first.
2. Nothing waits past its deadline: it is done then without its message, and is told so.
"""

import math
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple, assert_never

import trio

from chatroom.core.errors import CommandError, ErrorCode
from chatroom.core.messages import Conflict, Duplicate, Failed, Message, Outcome, Unknown
from chatroom.protocol import events
from chatroom.rooms.entries import Barrier, Entry, MemberDraft, Release
from chatroom.rooms.room import Member, Room


class _Action(NamedTuple):
    after: int
    order: int
    deadline: float
    do: Callable[[bool], None]


class DeferredActions:
    """What waits, by room. `rooms`: those in which anything does."""

    def __init__(self) -> None:
        self.rooms: dict[Room, list[_Action]] = {}
        self._orders = count()

    @property
    def due(self) -> float:
        """When `expire` has something to do; infinity for never."""
        return min((act.deadline for acts in self.rooms.values() for act in acts), default=math.inf)

    def put(self, room: Room, after: int, deadline: float, do: Callable[[bool], None]) -> None:
        """Call `do(True)` once the message `after` has been shown, or `do(False)` at the deadline.

        That may be before this returns.
        """
        if after <= room.head and room not in self.rooms:
            do(True)
        else:
            heappush(self.rooms.setdefault(room, []), _Action(after, next(self._orders), deadline, do))
            self.shown(room)

    def shown(self, room: Room) -> None:
        """The room's head has moved."""
        acts = self.rooms.get(room)
        while acts and acts[0].after <= room.head:
            heappop(acts).do(True)
        if not acts:
            self.rooms.pop(room, None)

    def expire(self, now: float) -> None:
        """Do what has waited too long."""
        for room in [room for room, acts in self.rooms.items() if any(act.deadline <= now for act in acts)]:
            acts = self.rooms.pop(room)
            late = [act for act in acts if act.deadline <= now]
            if len(late) < len(acts):
                self.rooms[room] = sorted(act for act in acts if act.deadline > now)
            for act in sorted(late):
                act.do(False)

    def give_up(self, room: Room) -> None:
        """The room will show nothing any more: do all that waits there without."""
        for act in sorted(self.rooms.pop(room, ())):
            act.do(False)


DEFER_SECONDS = 1.0
"""How long what is stored may wait for those before it. With the engine's own 2 s: an answer within 3."""


class Acknowledgements:
    """The posted messages whose outcome is known. `reached`: barriers to be told of when all else is."""

    def __init__(
        self,
        actions: DeferredActions,
        apply: Callable[[Entry], None],
        unavailable: Callable[[str, str | None], bytes],
    ) -> None:
        """`apply` has a deferred entry take effect; `unavailable` makes that answer, and counts it."""
        self._actions = actions
        self._apply = apply
        self._unavailable = unavailable
        self._deferred_entries: dict[Member, list[Entry]] = {}
        self._barriers: list[Barrier] = []
        self._brought: dict[tuple[Room, str, str | None], int] | None = None  # ids, by room, name and cid
        self.unshown = 0
        self.reached: list[trio.Event] = []

    def settle(self, draft: MemberDraft, room: Room, outcome: Outcome) -> None:
        """The outcome of `draft`, which hasn't been shown, is known."""
        if isinstance(outcome, Message) and room.replaced:
            outcome = Unknown()
        match outcome:
            case Message():
                self._wait_until_shown(draft, room, outcome.id, None)
            case Duplicate(message_id) if room.head < message_id and not room.replaced:
                self._wait_until_shown(draft, room, message_id, self._answer(draft, outcome))
            case Unknown() if (brought := self._id_of(draft, room)) is not None:
                self._wait_until_shown(draft, room, brought, None)
            case _:
                self._settle(draft.member, self._answer(draft, outcome))

    def begin_commit(self) -> None:
        """An append is under way."""
        self._brought = {}

    def end_commit(self) -> None:
        """All its outcomes are known and settled."""
        self._brought = None

    def _id_of(self, draft: MemberDraft, room: Room) -> int | None:
        """The id of what the feed has brought, if it has been shown or will be."""
        message_id = (self._brought or {}).get((room, draft.username, draft.cid))
        return None if message_id is None or (room.replaced and message_id > room.head) else message_id

    def brought(self, room: Room, message: Message) -> None:
        """The feed has brought a message; those before it may be missing yet."""
        if self._brought is not None and message.cid is not None and message.username in room.roster.here:
            self._brought[room, message.username, message.cid] = message.id

    @staticmethod
    def _settle(member: Member, answer: bytes | None) -> None:
        member.outstanding -= 1
        if answer is not None:
            member.sink.answer(answer)
        member.sink.settled()

    def _wait_until_shown(
        self, draft: MemberDraft, room: Room, message_id: int, answer: bytes | None
    ) -> None:
        """Rule 1: it is stored, and waits for those before it."""
        draft.member.unshown += 1
        self.unshown += 1
        deadline = trio.current_time() + DEFER_SECONDS
        self._actions.put(room, message_id, deadline, partial(self._end_wait, draft, message_id, answer))

    def _end_wait(self, draft: MemberDraft, message_id: int, answer: bytes | None, shown: bool) -> None:
        member = draft.member
        member.unshown -= 1
        self.unshown -= 1
        if not shown:
            answer = self._answer(draft, Unknown())
        elif answer is None and member.current is not None:
            member.current.last_posted = message_id
        self._settle(member, answer)
        if not member.unshown:
            for entry in self._deferred_entries.pop(member, ()):
                self._apply(entry)
        if not self.unshown:
            self.reached += [barrier.reached for barrier in self._barriers]
            self._barriers = []

    def defer(self, entry: Entry) -> bool:
        """Have it wait for what its member has posted before, if that is yet to be shown."""
        if isinstance(entry, Barrier) and entry.member is None:
            self._barriers.append(entry)
            return True
        member = entry.subscription.member if isinstance(entry, Release) else entry.member
        if member is None or not member.unshown:
            return False
        self._deferred_entries.setdefault(member, []).append(entry)
        return True

    def _answer(self, draft: MemberDraft, outcome: Duplicate | Conflict | Failed | Unknown) -> bytes:
        match outcome:
            case Duplicate(message_id):
                return events.duplicate(message_id, draft.cid)
            case Conflict():
                error = CommandError(
                    ErrorCode.CID_CONFLICT, "This cid stands for another text", cid=draft.cid
                )
            case Failed():
                error = CommandError(ErrorCode.INTERNAL, "Not stored", cid=draft.cid)
            case Unknown():
                return self._unavailable("Not known to be stored", draft.cid)
            case _:
                assert_never(outcome)
        return events.error(error)
