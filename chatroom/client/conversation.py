"""What `join` does: a person at a screen, and a client of a server.

    screen.next_line ─► typed ─► client.say, ask, switch …
    client's events ─► lines, roomview, unread ─► screen.show, set_status

Owns what is asked and answered, what waits to be stored, and when the conversation is over. Rules:

1. What somebody says is shown when the room has it, one's own as well. Until then the status counts it. What
   is refused is shown with the reason, and put back into the line, unless that would be said elsewhere now.
2. A line that means what was there before it, such as one's own last message, is done when all that was typed
   before is settled, and not at all if something of that is refused. Those behind it wait as well.
3. Who leaves while something waits to be stored is kept for LEAVING seconds, or until they want to leave
   again. What they have typed and what would have to wait its turn isn't done any more, and its number is
   told. Lines of a pipe are all settled before its end counts.
4. Of what others have written, only what is printable is shown.

It doesn't know how a screen looks, nor how the client is connected.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

import trio

from chatroom.client import lines, typed
from chatroom.client.connection import Client
from chatroom.client.core import State
from chatroom.client.cursor import Position
from chatroom.client.events import (
    Answered,
    Ended,
    Ending,
    Entered,
    Event,
    Expiring,
    Gap,
    Lost,
    News,
    Recorded,
    Replaced,
    Settled,
    SwitchRefused,
)
from chatroom.client.frames import Frame, names, page, text_of, whole_number
from chatroom.client.printable import printable, printable_lines
from chatroom.client.roomview import RoomView
from chatroom.client.screen import Completions, Screen
from chatroom.client.seen import Seen
from chatroom.client.typed import read_typed
from chatroom.client.typingmarks import OwnTyping
from chatroom.client.unread import Unread
from chatroom.core.mentions import fold, mentions

LEAVING = 5.0
"""Seconds for which who wants to leave is kept, while something waits to be stored."""
NEW = "── new ──"
UNSETTLED = 100
"""Lines under way, from which on no further one is taken, or without a connection none is done."""
SAVE_SECONDS = 30.0
"""How often it is noted how far the room was seen."""
_MOST_OWN = 200
_ROOMS_ASKED = 200
_LAST = "last"
"""By this name it is known that a page of history is the newest one."""
_PROMPT_ROOM = 20
_MOST_GREETED, _MOST_LISTED = 20, 1000
"""Members that are named when a room is entered, and when one asks for them."""
_MOST_LINES = 20
"""Lines of a text that wasn't stored, to be shown again."""


class Leaving(Enum):
    """How a conversation ended."""

    QUIT = "quit"
    UNSENT = "unsent"
    """Something that was typed isn't stored, as far as is known."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that was typed, and isn't settled."""

    text: str
    room: str
    """The one that it is for."""
    is_message: bool = False


class Conversation:
    """One person's conversation, as long as `run` runs."""

    def __init__(self, screen: Screen, client: Client, seen: Seen, *, colour: bool) -> None:
        self.reason = ""
        """Why the server doesn't let the person in, or has sent them away."""
        self._screen = screen
        self._client = client
        self._seen = seen
        self._colour = colour
        self._view = RoomView()
        self._typing = OwnTyping()
        self._may_type = True
        """False from when the server has refused it, until there is a sign that it may be otherwise."""
        self._unread = Unread(trio.current_time())
        self._shown: dict[str, Position] = {}
        self._oldest: int | None = None
        self._own: defaultdict[str, set[int]] = defaultdict(set)
        """The ids of the person's own messages in each room, as far as they are known."""
        self._waiting: dict[str, _Line] = {}
        self._held: _Line | None = None
        """The line that is to be done when all before it is settled."""
        self._put_back: set[str] = set()
        """What may come into the line without a key."""
        self._undone = 0
        """Lines that were typed, and aren't done since the person leaves."""
        self._refusals = 0
        """How often something that was typed was refused."""
        self._last_id = 0
        """Records up to this one were there when the room was entered."""
        self._asked: dict[str, str] = {}
        self._leaving = False
        self._lost: Lost | None = None
        self._day = time.localtime()[:3]
        self._saved: dict[str, Position] = {}
        self._save_at = inf
        self._changed = trio.Event()
        self._quiet = trio.Event()
        self._ended: Ended | None = None

    async def run(self) -> Leaving:
        """Talk until the person leaves, or the server doesn't want them any more."""
        self._screen.attend(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._listen, nursery.cancel_scope)
                await self._take_lines()
                await self._settle()
                self._client.stop()
                await trio.sleep_forever()
        finally:
            self._tell_unsettled()
        self._save()
        return self._outcome()

    def _tell_unsettled(self) -> None:
        """However it ends, whoever typed something is told what hasn't come of it."""
        for line in self._waiting.values():
            self._say("not known to be stored:", line.text)
        if self._held is not None:
            self._say("not done:", self._held.text)
        if self._undone:
            self._say(f"not done, since you leave: {self._undone} line{'' if self._undone == 1 else 's'}")

    def _outcome(self) -> Leaving:
        if self._ended is not None and self._ended.ending is not Ending.STOPPED:
            self.reason = self._ended.reason
            return Leaving.REFUSED
        refused = self._refusals and not self._screen.is_there
        unsent = self._waiting or self._held or self._undone or refused
        return Leaving.UNSENT if unsent else Leaving.QUIT

    async def _listen(self, scope: trio.CancelScope) -> None:
        self._ended = await self._client.run(self._handle)
        scope.cancel()

    async def _settle(self) -> None:
        """Wait until nothing is under way any more, or the person doesn't want to wait."""
        with trio.move_on_after(LEAVING if self._screen.is_there else inf):
            async with trio.open_nursery() as nursery:

                async def leave_at_once() -> None:
                    await self._drop_lines()
                    nursery.cancel_scope.cancel()

                if self._screen.is_there:
                    nursery.start_soon(leave_at_once)
                while self._waiting or self._asked or (not self._screen.is_there and not self._view.room):
                    self._quiet = trio.Event()
                    await self._quiet.wait()
                nursery.cancel_scope.cancel()

    # At the keyboard; see Typist

    def typing(self, text: str) -> None:
        if text in self._put_back:
            return
        self._put_back.clear()
        now = trio.current_time()
        self._unread.pressed(now)
        self._tell_typing(self._typing.changed(text, now))
        self._changed.set()

    def looking(self, there: bool) -> None:
        self._unread.looking(there, trio.current_time())

    def leave(self) -> None:
        self._leaving = True
        self._quiet.set()

    def complete(self, before: str) -> Completions:
        return self._view.complete(before)

    def _tell_typing(self, active: bool | None) -> None:
        if active is not None and self._may_type:
            self._client.typing(active)

    # Typed lines

    async def _take_lines(self) -> None:
        """Do what is typed, until the person wants to leave."""
        while (line := await self._screen.next_line()) is not None:
            self._unread.pressed(trio.current_time())
            asked = read_typed(line)
            if isinstance(asked, typed.Quit):
                return
            if asked is not None:
                if not _follows(asked) or await self._has_its_turn(asked, line):
                    self._do(asked, line)
                self._changed.set()
            if self._held or not await self._is_so(
                lambda: len(self._waiting) < UNSETTLED or self._is_cut_off
            ):
                await self._drop_lines()
                return

    async def _is_so(self, wanted: Callable[[], bool]) -> bool:
        """Wait until something is so. False: the person leaves before."""
        while not wanted() and not self._leaving:
            self._quiet = trio.Event()
            await self._quiet.wait()
        return wanted()

    async def _drop_lines(self) -> None:
        """Take what was typed, down to where the person wants to leave, and do nothing of it."""
        while (line := await self._screen.next_line()) is not None:
            asked = read_typed(line)
            if isinstance(asked, typed.Quit):
                return
            self._undone += asked is not None

    async def _has_its_turn(self, asked: typed.Typed, line: str) -> bool:
        """Wait until all that was typed before a line is settled, and tell whether the line can be done then.

        Where it can't, that is told to the person, or it is still `_held`, since they leave.
        """
        held = _Line(line, self._client.core.destination)
        refusals = self._refusals
        self._held = held
        self._changed.set()
        if not await self._is_so(lambda: self._is_settled or self._is_cut_off or self._refusals > refusals):
            return False
        self._held = None
        if self._refusals > refusals:
            self._not_done("what was typed before it is refused", held)
        elif self._is_cut_off:
            changes = isinstance(asked, typed.Edit | typed.Delete)
            hint = ", write the id of a message, like #17" if changes else ""
            self._not_done(f"there is no connection{hint}", held)
        else:
            return True
        return False

    @property
    def _is_settled(self) -> bool:
        """Whether nothing that was typed is under way, and all is shown that was in the room."""
        core = self._client.core
        if self._waiting or self._asked or core.is_moving or self._lost is not None or not self._view.room:
            return False
        return core.position is not None and core.position.id >= self._last_id

    def _do(self, asked: typed.Typed, line: str) -> None:
        match asked:
            case typed.Say(text):
                self._typing.forget()
                self._draft("message", {"text": text}, line)
            case typed.Switch(room):
                for text in tuple(self._put_back):  # another Enter would say it there
                    self._screen.take_back(text)
                self._client.switch(room)
            case typed.ShowRooms():
                self._ask("rooms", {"limit": _ROOMS_ASKED})
            case typed.ShowMembers():
                self._ask("members")
            case typed.ShowLast(count):
                self._ask("history", {"limit": count}, name=_LAST)
            case typed.ShowHistory(count):
                self._ask_history(count)
            case typed.Edit(number, text):
                self._change("edit", number, {"text": text}, line)
            case typed.Delete(number):
                self._change("delete", number, {}, line)
            case typed.Moderate(action, username, seconds, reason):
                data: dict[str, Any] = {"action": str(action), "username": username}
                data |= {} if seconds is None else {"seconds": seconds}
                self._draft("moderate", data | ({"reason": reason} if reason else {}), line)
            case typed.ShowHelp():
                self._screen.show(["* what you can type, beside what you say:", *typed.help_lines()])
            case typed.Wrong(sentence):
                self._refusals += 1
                self._say(sentence)
                self._edit_again(line)

    @property
    def _is_cut_off(self) -> bool:
        """Whether a person is there who may do something else, since nothing can be stored now."""
        return self._screen.is_there and self._lost is not None

    def _draft(self, event: str, data: Mapping[str, Any], text: str) -> None:
        line = _Line(text, self._client.core.destination, is_message=event == "message")
        if len(self._waiting) < UNSETTLED:
            self._waiting[self._client.draft(event, data)] = line
        else:
            self._not_done(f"{UNSETTLED} wait to be sent already", line)

    def _not_done(self, error: str, line: _Line) -> None:
        self._refusals += 1
        if line.room == self._client.core.destination:
            self._say(f"not done: {error}:", line.text)
            self._edit_again(line.text)
        else:  # another Enter would say it to others
            self._say(f"not done in {line.room}: {error}:", line.text)

    def _edit_again(self, line: str) -> None:
        if self._screen.is_there:
            self._put_back.add(line)
            self._screen.put_back(line)

    def _change(self, event: str, number: int | None, data: Mapping[str, Any], line: str) -> None:
        """Change one's own last message, or the one with an id."""
        number = max(self._own[self._view.room], default=None) if number is None else number
        if number is None:
            self._refusals += 1
            self._say("you have said nothing here that is known: write the id of a message, like #17")
            self._edit_again(line)
        else:
            self._draft(event, {"id": number, **data}, line)

    def _ask(self, event: str, data: Mapping[str, Any] | None = None, *, name: str | None = None) -> None:
        """Ask. The answer is known by the `name`, the event if left out; by an empty one it isn't told."""
        self._asked[self._client.ask(event, data)] = event if name is None else name

    def _ask_history(self, count: int) -> None:
        if self._oldest is not None and self._oldest <= 1:
            self._say("there is nothing before that")
            return
        self._ask("history", {"limit": count} | ({} if self._oldest is None else {"before": self._oldest}))

    # Events

    async def _handle(self, event: Event) -> None:
        match event:
            case Entered():
                self._enter(event)
            case Recorded(frame, number, old):
                self._record(frame, number, old)
            case Gap(room, after, before, filled):
                self._oldest = None
                self._own[room].clear()  # what was said last may be among them
                self._show(lines.gap(room, after, before, filled=filled))
            case Replaced(room, epoch):
                self._own[room].clear()
                self._oldest = None
                self._show(lines.replaced(room, epoch))
            case Settled():
                self._settled(event)
            case Answered(cid, frame):
                self._answer(self._asked.pop(cid, ""), frame)
            case News(frame):
                self._news(frame)
            case SwitchRefused(room, error):
                self._refusals += 1
                self._say(f"not in {room}: {error}")
            case Expiring(seconds):
                self._say(f"the time of your token ends in {seconds:.0f} s")
            case Lost(reason):
                if self._lost is None:
                    self._say(
                        f"no connection: {reason}" if not self._view.room else f"disconnected: {reason}"
                    )
                self._lost = event
                self._view.marks.clear()
                self._typing.forget()
            case Ended():
                pass
        self._changed.set()
        self._quiet.set()

    def _enter(self, event: Entered) -> None:
        view, moved = self._view, event.room != self._view.room
        self._may_type = True
        self._last_id = event.last_id
        view.entered(event.room, event.username, event.members)
        self._typing.forget()
        if moved:
            self._save()
            self._oldest = None
            self._ask("rooms", {"limit": _ROOMS_ASKED}, name="")
        seen = self._shown.get(event.room) or self._seen.get(event.username, event.room)
        self._unread.entered(seen, event.epoch, event.last_id)
        if (position := self._client.core.position) is not None:
            self._shown.setdefault(event.room, position)
        if moved or self._lost is not None:
            where = f"you are in {event.room} as {event.username}; "
            self._say(f"{where}{view.here(_MOST_GREETED)}" if moved else "connected again")
        self._lost = None
        self._screen.set_prompt(f"#{_short(printable(event.room))}> ")

    def _record(self, frame: Frame, number: int, old: bool) -> None:
        view = self._view
        author = frame.author or ""
        own = author == view.username
        if self._unread.is_first(number, own=own, old=old, now=trio.current_time()):
            self._screen.show([NEW])
        self._show(frame.whole)
        if (position := self._client.core.position) is not None:
            self._shown[view.room] = Position(position.epoch, number)
            self._save_at = min(self._save_at, trio.current_time() + SAVE_SECONDS)
        self._oldest = number if self._oldest is None else min(self._oldest, number)
        if frame.event == "message":
            view.said(author)
            self._remember(frame, number, own=own)
            if not own and not old and self._calls(frame):
                self._screen.ring()
        elif frame.event == "deleted":
            self._own[view.room].discard(whole_number(frame.data.get("id")) or 0)

    def _remember(self, frame: Frame, number: int, *, own: bool) -> None:
        if own and "deleted" not in frame.whole:
            known = self._own[self._view.room]
            known.add(number)
            if len(known) > _MOST_OWN:
                known.remove(min(known))

    def _calls(self, frame: Frame) -> bool:
        """Whether a message calls the person."""
        name = self._view.username
        return bool(mentions(text_of(frame.data.get("text")) or "", {fold(name): (name,)}))

    def _settled(self, event: Settled) -> None:
        line = self._waiting.pop(event.cid, None)
        if event.id is not None:
            self._may_type = True
            if line is not None and line.is_message:
                self._own[line.room].add(event.id)  # its record may be among those that aren't shown
        if event.error is not None and line is not None:
            self._not_done(event.error, line)

    def _answer(self, asked: str, frame: Frame | None) -> None:
        if frame is not None and frame.event == "rooms":
            self._rooms(frame, told=bool(asked))
        elif not asked:
            return
        elif frame is None:
            self._say("no answer: there is no connection now")
        elif frame.event == "error":
            self._say(frame.complaint)
        elif frame.event == "members":
            self._view.listed(names(frame.data.get("members")))
            self._say(self._view.here(_MOST_LISTED))
        elif frame.event == "history" and asked == _LAST:
            self._last(frame)
        elif frame.event == "history":
            self._history(frame)

    def _rooms(self, frame: Frame, *, told: bool) -> None:
        items = frame.data.get("rooms")
        found = [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []
        rooms = [(room, each) for each in found if (room := text_of(each.get("room"))) is not None]
        self._view.known(room for room, _ in rooms)
        if told:
            shown = [
                f"  {printable(room)}  {lines.number_text(each.get('members'))} here" for room, each in rooms
            ]
            more = ["  and more"] if frame.data.get("more") is True else []
            self._screen.show([f"* {len(rooms)} room{'' if len(rooms) == 1 else 's'}:", *shown, *more])

    def _last(self, frame: Frame) -> None:
        """The newest messages, once more and with their ids."""
        found, _ = page(frame)
        if found:
            self._page(found, "── up to now ──")
        else:
            self._say("there are no messages")

    def _history(self, frame: Frame) -> None:
        found, more = page(frame)
        if not found:
            self._say("there is nothing before that")
            return
        self._oldest = found[0].id
        self._page(found, "── so far, and there is more: /history ──" if more else "── from the first one ──")

    def _page(self, found: Sequence[Frame], end: str) -> None:
        self._screen.show([f"── from #{found[0].id} to #{found[-1].id} ──"])
        today = self._day
        for message in found:
            self._show(message.whole, numbered=True)
        self._screen.show([end])
        self._day = today

    def _news(self, frame: Frame) -> None:
        view = self._view
        name = text_of(frame.data.get("username"))
        match frame.event:
            case "joined" if name is not None:
                self._say_if(view.joined(name))
            case "left" if name is not None:
                self._say_if(view.left(name))
            case "typing" if name is not None:
                view.marks.told(name, active=frame.data.get("active") is True, now=trio.current_time())
            case "members":
                view.listed(names(frame.data.get("members")))
            case "error" if frame.whole.get("code") == "forbidden":
                self._may_type = False  # of what has no `cid` only typing is refused so
            case "error":
                self._say(frame.complaint)

    # What is shown

    def _show(self, record: Mapping[str, Any], *, numbered: bool = False) -> None:
        """Show a record, below a line with its day if that is another one than the last record's."""
        shown = lines.screen_lines(record, colour=self._colour, clock=_clock, end_clock=_end_clock)
        ts = record.get("ts")
        if isinstance(ts, int) and (day := _day(ts)) is not None and day != self._day:
            self._day = day
            self._screen.show([f"── {day[0]:04}-{day[1]:02}-{day[2]:02} ──"])
        if numbered:
            shown[0] = f"#{lines.number_text(record.get('id'))} {shown[0]}"
        self._screen.show(shown)

    def _say(self, sentence: str, text: str | None = None) -> None:
        """Show what the client itself has to say, and maybe a text below it."""
        below = [] if text is None else [f"    {line}" for line in printable_lines(text)]
        if len(below) > _MOST_LINES:
            below[_MOST_LINES:] = [f"    … and {len(below) - _MOST_LINES} more lines"]
        self._screen.show([f"* {printable(sentence)}", *below])

    def _say_if(self, sentence: str | None) -> None:
        if sentence is not None:
            self._say(sentence)

    def _status(self, now: float) -> str:
        waiting = len(self._waiting) + (self._held is not None)
        if self._lost is not None or not self._view.room:
            parts = [f"{waiting} to be sent"] if waiting else []
            parts.append(self._way(now))
        else:
            parts = [f"{printable(self._view.username)}, {len(self._view.members)} here"]
            parts += [f"sending {waiting}"] if waiting else []
            parts += [typists] if (typists := self._view.typists(now)) else []
        return " · ".join(parts)

    def _way(self, now: float) -> str:
        """How the client tries to get to the server."""
        core = self._client.core
        if self._lost is None or core.state is not State.WAITING:
            return "connecting …"
        seconds = max(0.0, (core.wake_at() or now) - now)
        return f"no connection ({printable(self._lost.reason)}), trying again in {seconds:.0f} s"

    # Time

    async def _keep_time(self) -> None:
        """Show the status, and whatever time changes, as long as the conversation goes on."""
        while True:
            now = trio.current_time()
            self._tell_typing(self._typing.rested(now))
            if now >= self._save_at:
                self._save()
            self._screen.set_status(self._status(now))
            self._changed = trio.Event()
            with trio.CancelScope(deadline=self._due(now)):
                await self._changed.wait()

    def _due(self, now: float) -> float:
        """When something changes by time alone."""
        due = [self._save_at, *filter(None, (self._typing.due, self._view.marks.due))]
        if self._lost is not None:
            due.append(now + 1)
        return min(due)

    def _save(self) -> None:
        self._save_at = inf
        for room, position in self._shown.items():
            if self._saved.get(room) != position:
                self._saved[room] = position
                self._seen.put(self._view.username, room, position)


def _follows(asked: typed.Typed) -> bool:
    """Whether what a line means depends on what came of those before it."""
    match asked:
        case typed.Edit(None) | typed.Delete(None):
            return True
        case typed.ShowMembers() | typed.ShowLast() | typed.ShowHistory():
            return True
    return False


def _short(text: str) -> str:
    return text if len(text) <= _PROMPT_ROOM else text[: _PROMPT_ROOM - 1] + "…"


def _local(milliseconds: int) -> time.struct_time | None:
    try:
        return time.localtime(milliseconds / 1000)
    except (ValueError, OverflowError, OSError):
        return None


def _day(milliseconds: int) -> tuple[int, int, int] | None:
    local = _local(milliseconds)
    return None if local is None else local[:3]


def _clock(milliseconds: int) -> str:
    local = _local(milliseconds)
    return lines.UNKNOWN if local is None else time.strftime("%H:%M:%S", local)


def _end_clock(milliseconds: int) -> str:
    """The time at which something ends, which may be on another day."""
    local = _local(milliseconds)
    if local is None:
        return lines.UNKNOWN
    return time.strftime("%H:%M:%S" if local[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", local)
