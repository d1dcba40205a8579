"""What one connection's client may do now: a text frame in, a decision out.

1. A decision is a reply for the client itself, a command that others carry out, or nothing.
2. A failed command raises CommandError and changes nothing; too many malformed ones raise Disconnect.
3. Rights are asked for on each command, so that taking them anew takes effect with the next one.
4. `room` is where the client believes it is: it changes when a switch is done, not when it is asked for.

It does not know sockets, rooms or the log.
"""

from collections import deque
from dataclasses import dataclass

from chatroom.pure import codec, events
from chatroom.pure.bucket import Window
from chatroom.pure.rights import Access, Rights
from chatroom.values.codes import FAULTS, CloseCode, ErrorCode
from chatroom.values.commands import (
    Authenticate,
    Command,
    ListMembers,
    Ping,
    Post,
    ReadHistory,
    SwitchRoom,
    Typing,
)
from chatroom.values.errors import CommandError, Disconnect
from chatroom.values.limits import Limits

TYPING_SECONDS = 3.0
TYPING_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer is known at once."""

    payload: bytes


Decision = Reply | Post | SwitchRoom | Typing | ReadHistory | ListMembers | Authenticate


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
        """The client is in another room now, where nobody has been told that it types."""
        self.room = room
        if self._typing is not None:
            self._typing.forget()

    def decide(self, text: str, now: float) -> Decision | None:
        """What to do about `text`, received at `now`; None if nothing.

        Raises CommandError (answer it, go on) and Disconnect (the connection is to end).
        """
        try:
            command = codec.decode(text, max_text=self._limits.text_chars)
        except CommandError as error:
            if error.code in FAULTS:
                self._count_fault(now)
            raise
        return None if command is None else self._judge(command, now)

    def _count_fault(self, now: float) -> None:
        if self._faults is None:
            self._faults = Window(self._limits.faults, self._limits.fault_seconds)
        if self._faults.add(now):
            raise Disconnect(CloseCode.POLICY, "too many malformed frames")

    def _judge(self, command: Command, now: float) -> Decision | None:
        match command:
            case Ping(cid):
                return Reply(events.pong(cid))
            case Typing():
                self._need("w", self.room, command.cid)
                return self._judge_typing(command, now)
            case Post():
                self.check_right(command)
                return command
            case SwitchRoom(room, cid=cid):
                if room == self.room:
                    return None if cid is None else Reply(events.ack(cid))
                self._need("r", room, cid)
                return command
            case ReadHistory() | ListMembers():
                self._need("r", self.room, command.cid)
                return command
            case _:
                return command

    def check_right(self, post: Post) -> None:
        """Raises CommandError if this message may not be posted, by the rights of this moment."""
        self._need("w", self.room, post.cid)

    def _need(self, right: Access, room: str, cid: str | None) -> None:
        if not self.rights.can(room, right):
            raise CommandError(ErrorCode.FORBIDDEN, "Not allowed in this room", cid=cid)

    def _judge_typing(self, command: Typing, now: float) -> Decision | None:
        if self._typing is None:
            self._typing = TypingGate()
        if self._typing.passes(command.active, now):
            return command
        return None if command.cid is None else Reply(events.ack(command.cid))


class TypingGate:
    """Which typing frames are passed on.

    A `true` within 3 s of the last one passed on is dropped unless a `false` came between, and at
    most 4 frames pass in 3 s.
    """

    __slots__ = ("_active_since", "_passed")

    def __init__(self) -> None:
        self._active_since: float | None = None
        self._passed: deque[float] = deque()

    def forget(self) -> None:
        """Those who are to be told next have not been told of the last `true`."""
        self._active_since = None

    def passes(self, active: bool, now: float) -> bool:
        """Whether this frame, received at `now`, is passed on."""
        since = self._active_since
        if active and since is not None and now - since < TYPING_SECONDS:
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
