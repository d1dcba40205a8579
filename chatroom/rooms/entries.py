"""Entries: what the broker carries out in the rooms, and batches of it.

A batch is bounded in messages, in characters of text, and in other commands: what takes effect in one step
is bounded, however many come or go at once.
"""

from dataclasses import dataclass

import trio

from chatroom.core.messages import Draft
from chatroom.rooms.room import Member, Room, Subscription

MAX_DRAFTS = 250
MAX_CHARACTERS = 1024 * 1024
MAX_OTHERS = 100
"""Other commands: each of those who come in has something to do as soon as the batch has taken effect."""


class MemberDraft(Draft):
    """Post a message in the member's room. It is the draft that the engine stores; the broker dates it."""

    __slots__ = ("member",)

    def __init__(self, member: Member, text: str, cid: str | None) -> None:
        assert member.current is not None, "who posts is in a room"
        self.member = member
        self.room = member.current.room.name
        self.username = member.username
        self.text = text
        self.cid = cid
        self.ts = 0


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
class TypingUpdate:
    """Tell the others about typing."""

    member: Member
    active: bool
    cid: str | None


@dataclass(slots=True)
class MembersRequest:
    """Who is in the room?"""

    member: Member
    cid: str | None


@dataclass(slots=True)
class Leave:
    """A departed connection's place is to be given up."""

    member: Member


@dataclass(slots=True)
class Release:
    """A subscription that ended by a switch has been read to its end: it needs its room no longer."""

    subscription: Subscription


@dataclass(slots=True)
class Barrier:
    """All that came before is done when this is reached; of `member` alone, if one is named."""

    reached: trio.Event
    member: Member | None = None


Entry = MemberDraft | Enter | TypingUpdate | MembersRequest | Leave | Release | Barrier


class Batch:
    """Entries in their order, and the messages among them in the same order. `full`: take no more."""

    __slots__ = ("_characters", "drafts", "entries", "full")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.drafts: list[Draft] = []
        self.full = False
        self._characters = 0

    def add(self, entry: Entry) -> None:
        """One entry more."""
        self.entries.append(entry)
        if isinstance(entry, MemberDraft):
            self.drafts.append(entry)
            self._characters += len(entry.text)
            self.full = len(self.drafts) >= MAX_DRAFTS or self._characters >= MAX_CHARACTERS
        else:
            self.full = len(self.entries) - len(self.drafts) >= MAX_OTHERS
