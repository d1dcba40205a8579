"""What of one room a client has shown: its cursor in the log of the room.

Owns the position in the log, duplicates, and gaps. Rules:

1. A record is shown once, in the order of ids. What comes a second time is dropped.
2. The ids of a room have no holes. So a record that doesn't follow the last one proves a gap, and the gap is
   told before the record is.
3. A cursor that fills gaps reads the messages of a gap from the history, page by page, before it goes on.
   What comes from the room meanwhile is held, up to HELD_RECORDS and HELD_BYTES. If more comes, all that is
   held is dropped, and read from the history as well: the gap is told again as the larger one that it is now.
4. Holes in a page of history prove nothing: edits, deletions and actions of moderators aren't in it.
5. If the history can't be read to the end of a gap, what is left of the gap is told again, as one that isn't
   filled.
6. With another epoch the room has another history, and nothing that was shown says anything about it.

It doesn't know which commands are sent, nor a clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from chatroom.client.events import Event, Gap, Recorded, Replaced
from chatroom.client.frames import Frame, Stand

HELD_RECORDS = 1000
HELD_BYTES = 4 * 1024 * 1024


class Begin(Enum):
    """Where a client begins in a room that it hasn't been in."""

    NOW = "now"
    """With what comes after it entered."""
    RECENT = "recent"
    """With the last records, as many as the server replays."""
    FIRST = "first"
    """With the first message that is kept; gaps are filled then, too."""


@dataclass(frozen=True, slots=True)
class Position:
    """The last record of a room that was shown: `id` in the history `epoch`; 0 before the first."""

    epoch: str
    id: int


@dataclass(slots=True)
class _Fill:
    """A gap of `room` that is read from the history: all before the id `target`. `held` is what comes behind
    it.
    """

    room: str
    target: int
    asked: int | None = None
    """The target at the time of the last question; None if no question is under way."""
    held: list[Recorded] = field(default_factory=list)
    held_bytes: int = 0


class Cursor:
    """A client's cursor in one room."""

    def __init__(self, begin: Begin, *, fill: bool, position: Position | None = None) -> None:
        """`fill`: read the messages of gaps from the history. `position` is where an earlier client was."""
        self._begin = begin
        self._fills = fill or begin is Begin.FIRST
        self._epoch = None if position is None else position.epoch
        self._id = 0 if position is None else position.id
        self._fill: _Fill | None = None
        self._old = 0

    @property
    def position(self) -> Position | None:
        """Where the cursor stands; None before the room was entered."""
        return None if self._epoch is None else Position(self._epoch, self._id)

    def enter(self, stand: Stand) -> Iterator[Event]:
        """The room was entered. What this tells comes after Entered."""
        known, self._epoch, self._old = self._epoch, stand.epoch, stand.last_id
        self._fill = None
        if known is None:
            self._id = {Begin.NOW: stand.last_id, Begin.RECENT: stand.first, Begin.FIRST: 0}[self._begin]
        elif known != stand.epoch or self._id > stand.last_id:
            self._id = 0 if self._begin is Begin.FIRST else stand.first
            yield Replaced(stand.room, stand.epoch)
        if self._id < stand.first:
            yield from self._gap(stand.room, stand.first + 1)

    def lost(self) -> None:
        """The connection, or the room, was left: what isn't shown will come again."""
        self._fill = None

    def record(self, frame: Frame, number: int, size: int) -> Iterator[Event]:
        """A record with the id `number` came, as a frame of `size` characters."""
        recorded = Recorded(frame, number, number <= self._old)
        if self._fill is None:
            yield from self._accept(recorded, size)
        elif number > self._id:
            yield from self._hold(self._fill, recorded, size)

    @property
    def wants_page(self) -> bool:
        """Whether a page of history is to be asked for."""
        return self._fill is not None and self._fill.asked is None

    def ask_page(self) -> int:
        """A page of history is asked for; it is to have what comes after this id."""
        assert self._fill is not None, "a page is wanted"
        self._fill.asked = self._fill.target
        return self._id

    def page(self, messages: Iterable[Frame], more: bool) -> Iterator[Event]:
        """The page that was asked for came."""
        fill = self._fill
        if fill is None or fill.asked is None:
            return
        asked, fill.asked = fill.asked, None
        before = self._id
        covered = not more
        for message in messages:
            number = message.id or 0
            if number >= fill.target:
                covered, asked = True, fill.target
                break
            if number > self._id:
                self._id = number
                yield Recorded(message, number, number <= self._old)
        # The last page was read when all before `asked` was there. What was dropped since may be missing in
        # it.
        if covered and asked == fill.target:
            yield from self._release(fill)
        elif more and self._id == before:  # it would go on like this for ever
            yield from self._give_up(fill)

    def no_page(self, *, later: bool) -> Iterator[Event]:
        """The question was answered by an error; `later`: it may be asked again, and will be."""
        if self._fill is not None:
            self._fill.asked = None
            if not later:
                yield from self._give_up(self._fill)

    def _accept(self, recorded: Recorded, size: int) -> Iterator[Event]:
        if recorded.id <= self._id:
            return
        if recorded.id > self._id + 1:
            yield from self._gap(recorded.frame.room or "", recorded.id)
            if self._fill is not None:
                yield from self._hold(self._fill, recorded, size)
                return
        self._id = recorded.id
        yield recorded

    def _gap(self, room: str, before: int) -> Iterator[Event]:
        """Everything between the cursor and the id `before` is missing."""
        yield Gap(room, self._id, before, self._fills)
        if self._fills:
            self._fill = _Fill(room, before)
        else:
            self._id = before - 1

    def _hold(self, fill: _Fill, recorded: Recorded, size: int) -> Iterator[Event]:
        """Keep it until the gap before it is filled. If that is too much, the gap grows."""
        if fill.held and recorded.id <= fill.held[-1].id:
            return
        if len(fill.held) >= HELD_RECORDS or fill.held_bytes >= HELD_BYTES:
            fill.held.clear()
            fill.held_bytes = 0
            fill.target = recorded.id
            yield Gap(fill.room, self._id, fill.target, True)
        fill.held.append(recorded)
        fill.held_bytes += size

    def _give_up(self, fill: _Fill) -> Iterator[Event]:
        """Go on without the rest of the gap."""
        if self._id < fill.target - 1:
            yield Gap(fill.room, self._id, fill.target, False)
        yield from self._release(fill)

    def _release(self, fill: _Fill) -> Iterator[Event]:
        """Show what was held: the gap before it is filled as far as it can be."""
        self._fill = None
        self._id = fill.target - 1
        for recorded in fill.held:
            if self._fill is None:
                yield from self._accept(recorded, 0)
            else:  # there is a hole in what was held
                yield from self._hold(self._fill, recorded, 0)
