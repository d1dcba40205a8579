"""Entries: what the broker carries out in the rooms, and batches of entries.

1. A batch is bounded in messages, in characters of text, and in other commands. So what takes effect in one
   step is bounded, however many members come or go at once.

It doesn't know what an entry does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from chatroom.core.messages import Act, Draft
from chatroom.rooms.room import Member, Room, Subscription

MAX_DRAFTS = 250
MAX_CHARACTERS = 1024 * 1024
MAX_OTHERS = 100
"""Other commands: each member that comes in has something to do as soon as the batch has taken effect."""


class MemberDraft(Draft):
    """Post a message in the member's room, or do there what `act` says.

    The engine stores this same draft; the broker sets its time.
    """

    __slots__ = ("member",)

    def __init__(self, member: Member, text: str, cid: str | None, act: Act | None = None) -> None:
        assert member.current is not None, "a member that posts is in a room"
        self.member = member
        self.room = member.current.room.name
        self.username = member.username
        self.text = text
        self.cid = cid
        self.ts = 0
        self.moderator = member.moderator
        self.act = act


@dataclass(slots=True)
class Enter:
    """Enter the first room, or switch to another one (`switch`): `since`/`epoch` ask for a resume.

    `opened` is the room, once the broker has opened it. The room's `refcount` keeps it in use until the entry
    takes effect.
    """

    member: Member
    room: str
    since: int | None
    epoch: str | None
    cid: str | None = None
    switch: bool = False
    opened: Room | None = None


@dataclass(slots=True)
class Follow:
    """Follow the rooms of these names, in place of those that `member` has followed until now.

    It takes effect when each of them is open: `missing` are not yet. `opened` are in use for it. `failure` is
    why one of them can't be opened.
    """

    member: Member
    rooms: tuple[str, ...]
    cid: str | None
    missing: int = 0
    opened: list[Room] = field(default_factory=list)
    failure: Exception | None = None


@dataclass(slots=True)
class FollowedRoom:
    """One of the rooms of a `follow`, which has to be opened; see Enter."""

    follow: Follow
    room: str
    opened: Room | None = None


@dataclass(slots=True)
class Hold:
    """Keep `room` in use for somebody who doesn't become a member of it.

    `held` gets the room, or why it can't be opened. The room's `refcount` counts for its caller from then on.
    """

    room: str
    held: Callable[[Room | Exception], None]
    opened: Room | None = None


Opening = Enter | FollowedRoom | Hold
"""Entries for which the broker opens a room first."""


@dataclass(slots=True)
class TypingUpdate:
    """Tell the other members that `member` types, or has stopped."""

    member: Member
    active: bool
    cid: str | None


@dataclass(slots=True)
class MembersRequest:
    """List the members of the room."""

    member: Member
    cid: str | None


@dataclass(slots=True)
class Leave:
    """Give up the place of a departed connection."""

    member: Member


@dataclass(slots=True)
class Release:
    """A subscription needs its room no longer: it ended and was read to its end, or is a visitor's."""

    subscription: Subscription


@dataclass(slots=True)
class Barrier:
    """`reached` is set when all earlier entries (of `member`, if one is named) have taken effect."""

    reached: trio.Event
    member: Member | None = None


Entry = (
    MemberDraft
    | Enter
    | FollowedRoom
    | Follow
    | Hold
    | TypingUpdate
    | MembersRequest
    | Leave
    | Release
    | Barrier
)


class Batch:
    """Entries in their order, and the drafts among them in the same order. `full`: it takes no more."""

    __slots__ = ("_characters", "drafts", "entries", "full")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.drafts: list[Draft] = []
        self.full = False
        self._characters = 0

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        self.entries.append(entry)
        if isinstance(entry, MemberDraft):
            self.drafts.append(entry)
            self._characters += len(entry.text)
            self.full = len(self.drafts) >= MAX_DRAFTS or self._characters >= MAX_CHARACTERS
        else:
            self.full = len(self.entries) - len(self.drafts) >= MAX_OTHERS
