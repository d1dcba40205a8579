"""What one connection's client may do now: a text frame in, a decision out.

1. A decision is a reply for the client itself, a command that others carry out, or nothing.
2. A failed command raises CommandError and changes nothing. Too many malformed commands raise Disconnect.
3. Rights are looked up for each command, so renewed rights take effect with the next one.
4. The weight of a command in the pace is known when its work is known: see `Weight`.
5. `room` is the room that the client believes it is in. It changes when a switch is done, not when the client
   asks for one.

It doesn't know sockets, rooms or the log.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from chatroom.auth.rights import Access, Rights
from chatroom.core.errors import FAULTS, CloseCode, CommandError, Disconnect, Forbidden
from chatroom.core.limits import Limits
from chatroom.core.messages import Act, Delete, Edit, Moderate
from chatroom.core.pace import Window
from chatroom.protocol import codec, events
from chatroom.protocol.codec import (
    Authenticate,
    DeleteMessage,
    EditMessage,
    FollowRooms,
    ListMembers,
    ListRooms,
    ListSanctions,
    ModerateUser,
    Ping,
    Post,
    ReadHistory,
    SwitchRoom,
    Typing,
)

TYPING_GAP = 2.5
"""Seconds between two `true`s that are passed on. Clients keep 3 s, but their clocks and networks are never
quite even."""
TYPING_SECONDS = 3.0
TYPING_FRAMES = 4
"""Of the typing frames in TYPING_SECONDS at most TYPING_FRAMES are passed on."""


class Weight:
    """What a command weighs beyond the 1 that every command has: 1 for each so much of its work.

    Commands of the same weight take about the same time, so the rate bounds a client's share of it.
    """

    FRAME_CHARACTERS = 1024
    """Characters of the command itself, which has to be read."""
    PAGE_MESSAGES = 100
    PAGE_BYTES = 32 * 1024
    """Messages of a page of history, and bytes of their JSON."""
    NAMES = 500
    """Names in an answer to `members`."""
    SWITCH = 2.0
    """A switch itself: a room may have to be opened, and another given up."""
    TOLD = 25
    """Connections in the rooms that are left and entered, which are told of a switch."""
    TOLD_AT_MOST = 100.0
    """The most that these weigh together, since telling them is paced in its own way."""
    ROOMS = 500
    """Rooms that are looked through for a list of rooms."""
    FOLLOWED = 5
    """Rooms that are followed: each may have to be opened."""
    REPLAYED = 16
    """Messages that follow a switch."""
    TOKEN = 10.0
    """A token: it has to be verified, and makes a line in the log."""

    @classmethod
    def of_frame(cls, characters: int) -> int:
        """The weight of a command in `characters`."""
        return characters // cls.FRAME_CHARACTERS

    @classmethod
    def of_page(cls, messages: int, size: int) -> float:
        """The weight of a page of history of `messages` in `size` bytes."""
        return messages / cls.PAGE_MESSAGES + size / cls.PAGE_BYTES

    @classmethod
    def of_members(cls, names: int) -> float:
        """The weight of a list of `names`."""
        return names / cls.NAMES

    @classmethod
    def of_rooms(cls, rooms: int) -> float:
        """The weight of a list for which so many rooms were looked through."""
        return rooms / cls.ROOMS

    @classmethod
    def of_follow(cls, rooms: int) -> float:
        """The weight of following so many rooms."""
        return rooms / cls.FOLLOWED

    @classmethod
    def of_switch(cls, told: int, replayed: int) -> float:
        """The weight of a switch that `told` connections are told of, and `replayed` messages follow."""
        return cls.SWITCH + min(cls.TOLD_AT_MOST, told / cls.TOLD) + replayed / cls.REPLAYED


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer is known at once."""

    payload: bytes


class Change(NamedTuple):
    """Have a record stored that is no message: its `act`, and the new text or the reason."""

    command: str
    act: Act
    text: str
    cid: str | None


Write = Post | Change
"""What is stored, and paced as messages are."""

_Other = (
    EditMessage
    | DeleteMessage
    | ModerateUser
    | ListSanctions
    | ListRooms
    | FollowRooms
    | Ping
    | Typing
    | SwitchRoom
    | ReadHistory
    | ListMembers
    | Authenticate
)
Decision = (
    Reply
    | Write
    | ListSanctions
    | ListRooms
    | FollowRooms
    | SwitchRoom
    | Typing
    | ReadHistory
    | ListMembers
    | Authenticate
)


class Session:
    """The state of one client's conversation, without any I/O."""

    __slots__ = ("_faults", "_limits", "_typing", "rights", "room", "username")

    def __init__(self, username: str, room: str, rights: Rights, limits: Limits) -> None:
        self.username = username
        self.room = room
        self.rights = rights
        self._limits = limits
        self._faults: Window | None = None
        self._typing: TypingGate | None = None

    def enter_room(self, room: str) -> None:
        """The client is in `room` now, whose members have not been told that it types."""
        self.room = room
        if self._typing is not None:
            self._typing.forget()

    def decide(self, text: str, now: float) -> Decision | None:
        """What to do about `text`, received at `now`; None if nothing.

        Raises CommandError (answer it and go on), Disconnect (end the connection).
        """
        try:
            command = codec.decode(text, max_text=self._limits.text_chars)
        except CommandError as error:
            if error.code in FAULTS:
                self._count_fault(now)
            raise
        if isinstance(command, Post):  # nearly always
            if not self.rights.can(self.room, "w"):
                raise Forbidden("message", self.room, cid=command.cid)
            return command
        return None if command is None else self._judge(command, now)

    def _count_fault(self, now: float) -> None:
        if self._faults is None:
            self._faults = Window(self._limits.faults, self._limits.fault_seconds)
        if self._faults.add(now):
            raise Disconnect(CloseCode.POLICY, "too many malformed frames")

    def _judge(self, command: _Other, now: float) -> Decision | None:
        match command:
            case EditMessage(number, text, cid):
                return self._change(Change("edit", Edit(number, self._edit_ms), text, cid))
            case DeleteMessage(number, cid):
                return self._change(Change("delete", Delete(number, self._edit_ms), "", cid))
            case ModerateUser(action, username, seconds, reason, cid):
                return self._change(Change("moderate", Moderate(action, username, seconds), reason, cid))
            case ListSanctions():
                self._need("m", self.room, "sanctions", command.cid)
                return command
            case Ping(cid):
                return Reply(events.pong(cid))
            case Typing():
                self._need("w", self.room, "typing", command.cid)
                return self._judge_typing(command, now)
            case SwitchRoom(room, cid=cid):
                if room == self.room:
                    return None if cid is None else Reply(events.ack(cid))
                self._need("r", room, "switch_room", cid)
                return command
            case ReadHistory():
                self._need("r", self.room, "history", command.cid)
                return command
            case ListMembers():
                self._need("r", self.room, "members", command.cid)
                return command
            case FollowRooms(rooms, cid):
                for room in rooms:
                    self._need("r", room, "follow", cid)
                return command
            case Authenticate() | ListRooms():
                return command
            case _:
                assert_never(command)

    @property
    def _edit_ms(self) -> int:
        return int(self._limits.edit_seconds * 1000)

    def _change(self, change: Change) -> Change:
        self.check_right(change)
        return change

    def check_right(self, entry: Write) -> None:
        """Raises Forbidden if this may not be stored, by the rights of this moment."""
        if isinstance(entry, Post):
            if not self.rights.can(self.room, "w"):
                raise Forbidden("message", self.room, cid=entry.cid)
            return
        wanted: tuple[Access, ...] = ("w",)
        if isinstance(entry.act, Delete):
            wanted = ("w", "m")
        elif isinstance(entry.act, Moderate):
            wanted = ("m",)
        if not any(self.rights.can(self.room, each) for each in wanted):
            raise Forbidden(entry.command, self.room, cid=entry.cid)

    def _need(self, right: Access, room: str, command: str, cid: str | None) -> None:
        if not self.rights.can(room, right):
            raise Forbidden(command, room, cid=cid)

    def _judge_typing(self, command: Typing, now: float) -> Decision | None:
        if self._typing is None:
            self._typing = TypingGate()
        if self._typing.passes(command.active, now):
            return command
        return None if command.cid is None else Reply(events.ack(command.cid))


class TypingGate:
    """Which typing frames are passed on.

    A `true` within TYPING_GAP of the last one passed on is dropped, unless a `false` came between. At most
    TYPING_FRAMES pass in TYPING_SECONDS.
    """

    __slots__ = ("_active_since", "_passed")

    def __init__(self) -> None:
        self._active_since: float | None = None
        self._passed: deque[float] = deque()

    def forget(self) -> None:
        """The members that are told next have not been told of the last `true`."""
        self._active_since = None

    def passes(self, active: bool, now: float) -> bool:
        """Whether this frame, received at `now`, is passed on."""
        since = self._active_since
        if active and since is not None and now - since < TYPING_GAP:
            return False
        if not active:
            self._active_since = None
        while self._passed and now - self._passed[0] >= TYPING_SECONDS:
            self._passed.popleft()
        if len(self._passed) >= TYPING_FRAMES:
            return False
        if active:
            self._active_since = now
        self._passed.append(now)
        return True
