"""One client of one server, without a socket and without a clock: states, resume, outbox, back-off.

    state     what happens                     next
    WAITING   the time has come                DIALING: connect as `dialling` says
    DIALING   connected                        JOINING
    DIALING   refused, closed                  WAITING, or ENDED where coming back makes no sense
    JOINING   `welcome`                        OPEN
    JOINING   what is no frame                 ENDED
    JOINING   closed, silent for too long      WAITING, or ENDED
    OPEN      closed, silent for too long      WAITING, or ENDED
    any       stop                             ENDED

Owns the state, the room that the client is in, and what it has asked for. Rules:

1. Whatever happens is told by a method, with the time where that matters. What comes of it stands in
   `take_events` and `take_frames`; when `tick` is to be called next, in `wake_at`.
2. A close code from 4500 to 4599 means: don't come back. After each other one the client comes back, after a
   pause (see `backoff`), and goes on where it was (see `cursor`).
3. A refusal below 200, by 408, by 429 or from 500 on is no answer yet. Each other one ends the client.
4. Drafts are sent until they are settled (see `outbox`). Questions are asked once: if the connection is lost,
   they are answered by None.
5. Nothing is sent between a `switch_room` and its answer, and nothing of the old room is unsettled before it.
6. If no frame has come for SILENCE seconds, the client sends a `ping`; after as long again it gives the
   connection up.

It doesn't know tokens, addresses, or what is done with the events. See docs/protocol.md, "Recipes".
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from chatroom.client.backoff import Backoff
from chatroom.client.cursor import Begin, Cursor, Position
from chatroom.client.events import (
    Answered,
    Ended,
    Ending,
    Entered,
    Event,
    Expiring,
    Lost,
    News,
    Replaced,
    Settled,
    SwitchRefused,
)
from chatroom.client.frames import Frame, Limits, command, limits, page, read, seconds, stand, text_of
from chatroom.client.outbox import RETRY_SECONDS, UNAVAILABLE, Draft, Outbox

SILENCE = 20.0
"""Seconds without a frame until the client pings, and then until it gives the connection up."""
PAGE = 200
NEVER_BACK = range(4500, 4600)
TOO_BIG = 1009
ABNORMAL = 1006
_NEWS = frozenset({"joined", "left", "typing", "members", "activity", "error"})
_ANSWERS = frozenset({"ack", "error", "history", "members", "pong", "rooms", "sanctions"})
_NO_CHATROOM = "what answers there is no chatroom"


class State(Enum):
    """Where a client is; see the table above."""

    WAITING = "waiting"
    DIALING = "dialing"
    JOINING = "joining"
    OPEN = "open"
    ENDED = "ended"


class Dialling(NamedTuple):
    """How to connect: the room, and the position to go on from."""

    room: str
    position: Position | None


class Core:
    """The state of one client. See the module for its rules."""

    def __init__(
        self,
        room: str,
        *,
        begin: Begin,
        fill: bool = False,
        position: Position | None = None,
        chance: Callable[[], float],
        prefix: str,
        now: float,
    ) -> None:
        """`begin`, `fill` and `position` say where to begin in `room`; see Cursor. `prefix` is for the `cid`s
        of questions, and different in each client. It may be dialled at once.
        """
        self.state = State.WAITING
        self.room = room
        self.username: str | None = None
        self._fill = fill
        self._cursors = {room: Cursor(begin, fill=fill, position=position)}
        self._outbox = Outbox()
        self._backoff = Backoff(chance)
        self._prefix = prefix
        self._asked = 0
        self._questions: set[str] = set()
        self._asking: list[str] = []
        self._limits = Limits(None)
        self._route: list[str] = []
        self._switching: str | None = None
        self._page: str | None = None
        self._not_before = 0.0
        self._dial_at = now
        self._heard = now
        self._pinged = False
        self._opened = now
        self._useful = False
        self._frames: list[str] = []
        self._events: list[Event] = []

    # What comes out

    def take_events(self) -> list[Event]:
        """What has come of it since the last call, in order."""
        events, self._events = self._events, []
        return events

    def take_frames(self, now: float) -> list[str]:
        """The texts of the frames to send now. They are lost if the connection is."""
        self._pump(now)
        frames, self._frames = self._frames, []
        return frames

    def wake_at(self) -> float | None:
        """When to call `tick` and `take_frames` again, at the latest; None: when something has happened."""
        if self.state is State.WAITING:
            return self._dial_at
        if self.state not in (State.JOINING, State.OPEN):
            return None
        due = [self._silent_at]
        if self.state is State.OPEN and self._switching is None:
            drafts = self._outbox.due(self.room)
            due += [] if drafts is None else [drafts]
            due += [self._not_before] if self._deferred else []
        return min(due)

    @property
    def unsettled(self) -> int:
        """How many drafts aren't settled."""
        return len(self._outbox)

    @property
    def position(self) -> Position | None:
        """Where the client stands in its room; None before it was there."""
        return self._cursors[self.room].position

    @property
    def is_moving(self) -> bool:
        """Whether the client is on its way to another room."""
        return bool(self._route)

    @property
    def destination(self) -> str:
        """The room where the client is, or is going to, as it was written; drafts are for it."""
        return self._route[-1] if self._route else self.room

    # What the program wants

    def draft(self, event: str, data: Mapping[str, Any], cid: str) -> None:
        """Have a `message`, `edit`, `delete` or `moderate` stored, in the room that is the `destination`.

        Settled tells what came of it. `cid` must be unique: a UUID.
        """
        self._outbox.add(Draft(cid, self.destination, event, data))

    def ask(self, event: str, data: Mapping[str, Any] | None = None) -> str:
        """Ask something, or show a new token by `auth`. Returns the `cid` of the Answered that will come.

        It waits for a connection that is on its way, and for no later one.
        """
        cid = self._new_cid()
        between = self.state is State.WAITING and self.username is not None
        if not between and self.state is not State.ENDED:
            self._questions.add(cid)
            self._asking.append(command(event, data, cid))
        else:
            self._events.append(Answered(cid, None))
        return cid

    def typing(self, active: bool) -> None:
        """Tell the room that one is typing, or no longer; nobody if there is no connection."""
        if self.state is State.OPEN and self._switching is None:
            self._frames.append(command("typing", {"active": active}))

    def switch(self, room: str) -> None:
        """Go to another room, behind what was said so far. Entered or SwitchRefused comes of it."""
        self._route.append(room)

    def stop(self) -> None:
        """Don't come back. What isn't settled stays so."""
        self._end(Ending.STOPPED, "")

    # What happens to the connection

    def dial(self) -> Dialling:
        """A connection is being opened, in this way."""
        assert self.state is State.WAITING, "there is one connection at a time"
        self.state = State.DIALING
        return Dialling(self.room, self.position)

    def connected(self, now: float) -> None:
        """The connection is open."""
        if self.state is State.DIALING:
            self.state = State.JOINING
            self._heard, self._pinged = now, True

    def refused(self, status: int, reason: str, retry_after: float, now: float) -> None:
        """The server has answered the handshake by an HTTP status other than 101."""
        if self.state is not State.DIALING:
            return
        if status < 200 or status in (408, 429) or status >= 500:
            self._wait(reason, now, retry_after)
        else:
            self._end(Ending.REFUSED if status >= 400 else Ending.ALIEN, reason)

    def alien(self, reason: str = _NO_CHATROOM) -> None:
        """What answers is no chatroom, or isn't trusted."""
        self._end(Ending.ALIEN, reason)

    def closed(self, code: int, reason: str, now: float) -> None:
        """There is no connection, by a close code; ABNORMAL: it has broken, or didn't come about."""
        if self.state not in (State.DIALING, State.JOINING, State.OPEN):
            return
        if self.state is State.OPEN:
            self._backoff.ended(now - self._opened, useful=self._useful)
        if code == TOO_BIG and (settled := self._outbox.too_large()):
            self._events.append(settled)
        self._forget()
        if code in NEVER_BACK:
            self._end(Ending.REFUSED, f"sent away: {reason}" if reason else f"sent away ({code})")
        else:
            self._wait(reason or f"the connection was lost ({code})", now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.state in (State.JOINING, State.OPEN) and now >= self._silent_at:
            if self._pinged:
                self.closed(ABNORMAL, "the server is silent", now)
            else:
                self._pinged = True
                self._frames.append(command("ping"))

    def listen(self, now: float) -> None:
        """Frames are read again, after a time in which nobody looked: silence counts from now on."""
        self._heard, self._pinged = max(self._heard, now), False

    def receive(self, text: str, now: float) -> None:
        """A frame came."""
        frame = read(text)
        self._heard, self._pinged = now, False
        if frame is None:
            if self.state is State.JOINING:
                self.alien()
        elif self.state is State.JOINING:
            if frame.event == "welcome":
                self._welcome(frame, now)
        elif self.state is State.OPEN:
            self._take(frame, len(text), now)

    # Frames

    def _welcome(self, frame: Frame, now: float) -> None:
        entered, name = stand(frame), text_of(frame.whole.get("username"))
        if entered is None or name is None:
            self.alien()
            return
        self.state, self._opened, self._useful = State.OPEN, now, False
        self.username, self._limits = name, limits(frame)
        self._enter(self.room, frame)

    def _take(self, frame: Frame, size: int, now: float) -> None:
        if (number := frame.id) is not None:
            if frame.room == self.room:
                told = list(self._cursors[self.room].record(frame, number, size))
                self._useful = self._useful or bool(told)
                self._events += told
                self._add(self._outbox.recorded(frame, number, self.username or ""))
        elif frame.event == "switched":
            if self._switching is not None and frame.cid == self._switching:
                self._enter(self._route[0], frame)
        elif frame.event == "expiring":
            self._events.append(Expiring(seconds(frame.data.get("in"))))
        elif frame.cid is not None and frame.event in _ANSWERS:
            self._answer(frame, frame.cid, now)
        elif frame.event in _NEWS:
            self._events.append(News(frame))

    def _answer(self, frame: Frame, cid: str, now: float) -> None:
        if self._outbox.owns(cid):
            settled = self._outbox.answered(frame, now)
            self._useful = self._useful or settled is not None
            self._add(settled)
        elif cid == self._switching:
            self._switch_answered(frame, now)
        elif cid == self._page:
            self._page_came(frame, now)
        elif cid in self._questions:
            self._questions.discard(cid)
            self._events.append(Answered(cid, frame))

    def _enter(self, written: str, frame: Frame) -> None:
        """The client is in a room: the one that was `written`, as the server calls it."""
        entered = stand(frame)
        if entered is None:
            self.alien()
            return
        if self._switching is not None:
            self._cursors[self.room].lost()
            self._switching = None
            del self._route[0]
        self._page = None
        if written != entered.room:
            self._outbox.rename(written, entered.room)
            if (cursor := self._cursors.pop(written, None)) is not None:
                self._cursors.setdefault(entered.room, cursor)
        self.room = entered.room
        cursor = self._cursors.setdefault(self.room, Cursor(Begin.RECENT, fill=self._fill))
        known = cursor.position is not None
        told = list(cursor.enter(entered))
        self._events.append(
            Entered(
                self.room,
                self.username or "",
                entered.epoch,
                entered.last_id,
                entered.members,
                resumed=known and not told,
            )
        )
        self._events += told
        if any(isinstance(each, Replaced) for each in told):
            self._events += self._outbox.replaced(self.room)

    def _switch_answered(self, frame: Frame, now: float) -> None:
        """A `switch_room` was answered by `ack` or `error`."""
        self._switching = None
        if frame.event == "error" and text_of(frame.whole.get("code")) == UNAVAILABLE:
            self._not_before = now + RETRY_SECONDS
            return
        room = self._route.pop(0)
        if frame.event == "error":
            self._events.append(SwitchRefused(room, frame.complaint))
            self._events += self._outbox.refuse(room, frame.complaint)
        else:
            self._events.append(SwitchRefused(room, "you are there already"))
            self._outbox.rename(room, self.room)

    def _page_came(self, frame: Frame, now: float) -> None:
        """A page of history that the cursor wants was answered."""
        self._page = None
        cursor = self._cursors[self.room]
        if frame.event == "history":
            self._useful = True
            self._events += cursor.page(*page(frame))
        elif text_of(frame.whole.get("code")) == UNAVAILABLE:
            self._not_before = now + RETRY_SECONDS
            self._events += cursor.no_page(later=True)
        else:
            self._events += cursor.no_page(later=False)

    # What is due

    @property
    def _silent_at(self) -> float:
        """When the server has been silent for too long, unless a frame comes."""
        return self._heard + (2 if self._pinged else 1) * SILENCE

    @property
    def _deferred(self) -> bool:
        """Whether something waits for `_not_before`."""
        return self._goes or self._cursors[self.room].wants_page

    @property
    def _goes(self) -> bool:
        """Whether the client is to leave its room now."""
        return bool(self._route) and not self._outbox.waits_for(self.room)

    def _pump(self, now: float) -> None:
        """Write what may be sent now."""
        if self.state is not State.OPEN or self._switching is not None:
            return
        for each in self._outbox.next(self.room, now, self._limits.frame):
            if isinstance(each, str):
                self._frames.append(each)
            else:
                self._events.append(each)
        self._frames += self._asking  # behind the draft: what is asked for has it then
        self._asking.clear()
        if now < self._not_before:
            return
        cursor = self._cursors[self.room]
        if cursor.wants_page:
            self._page = self._new_cid()
            data = {"after": cursor.ask_page(), "limit": PAGE}
            self._frames.append(command("history", data, self._page))
        if self._goes:
            self._switching = self._new_cid()
            self._frames.append(command("switch_room", self._destination(), self._switching))

    def _destination(self) -> Mapping[str, Any]:
        room = self._route[0]
        cursor = self._cursors.get(room)
        if cursor is None or cursor.position is None:
            return {"room": room}
        return {"room": room, "since": cursor.position.id, "epoch": cursor.position.epoch}

    # Ends

    def _wait(self, reason: str, now: float, asked: float = 0.0) -> None:
        pause = self._backoff.pause(asked)
        self.state, self._dial_at = State.WAITING, now + pause
        self._events.append(Lost(reason, pause))

    def _end(self, ending: Ending, reason: str) -> None:
        if self.state is not State.ENDED:
            self._forget()
            self.state = State.ENDED
            self._events.append(Ended(ending, reason))

    def _forget(self) -> None:
        """The connection is gone, with all that was under way on it."""
        self._frames.clear()
        self._asking.clear()
        self._outbox.lost()
        self._cursors[self.room].lost()
        self._switching = self._page = None
        self._events += [Answered(cid, None) for cid in sorted(self._questions)]
        self._questions.clear()

    def _add(self, settled: Settled | None) -> None:
        if settled is not None:
            self._events.append(settled)

    def _new_cid(self) -> str:
        self._asked += 1
        return f"{self._prefix}-{self._asked}"
