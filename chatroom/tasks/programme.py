"""The programme of a connection: what its writer still has to give it, stay after stay, in order.

1. A stay begins with its opening frame, then come stored messages from the cursor on, with what was
   withheld at its place between them, up to the end of the stay or the room's head.
2. Stored messages come from the room's ring, else from the log; never from a queue.
3. A stay goes live by a check and a switch without an await between them: everything shown in the room
   has been given, the current batch included.
4. If presence was dropped for the stay, the list of members is given before it goes live.
5. A switch ends the range of the old stay, it doesn't discard it.
"""

from collections.abc import Callable
from enum import Enum, auto
from itertools import accumulate

from chatroom.adapters.engine import Engine
from chatroom.adapters.wire import Wire
from chatroom.pure import events
from chatroom.pure.frames import text_frame
from chatroom.tasks.stay import Member, Stay
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect, Trimmed

CHUNK = 64 * 1024
READ_LIMIT = 200


class Step(Enum):
    """What a step has come to."""

    MORE = auto()  # something was given: flush it, then take the next step
    READ = auto()  # the ring doesn't reach: `read_on` has to ask the log
    IDLE = auto()  # nothing to give now


class Programme:
    """Reads on for one member; used by its connection's writer alone."""

    __slots__ = ("_delivered", "_engine", "_let_go", "_member", "_wire")

    def __init__(
        self,
        member: Member,
        wire: Wire,
        engine: Engine,
        *,
        let_go: Callable[[Stay], None],
        delivered: Callable[[int], None],
    ) -> None:
        self._member = member
        self._wire = wire
        self._engine = engine
        self._let_go = let_go
        self._delivered = delivered

    @property
    def complete(self) -> bool:
        """Everything shown so far has been given, and everything posted has its outcome."""
        stays = self._member.stays
        if len(stays) != 1 or self._member.outstanding:
            return False
        return stays[0].live and stays[0].seen >= stays[0].room.number

    def step(self) -> Step:
        """Give the next piece, as far as it is at hand."""
        stays = self._member.stays
        if not stays or stays[0].live:
            return Step.IDLE
        if self._wire.broken or self._wire.shut:
            return self._skip()
        stay = stays[0]
        if stay.opening is not None:
            self._open(stay, stay.opening)
            return Step.MORE
        withheld = stay.next_withheld
        if withheld is not None and withheld.position <= stay.cursor:
            self._give_withheld(stay)
            return Step.MORE
        upto = self._upto(stay)
        if stay.cursor < upto:
            return self._give_stored(stay, upto)
        return self._finish(stay)

    def _open(self, stay: Stay, opening: bytes) -> None:
        self._wire.put(opening)
        stay.opening = None
        self._member.outlet.opened()

    def _skip(self) -> Step:
        """Nothing can be given any more; but the reader, who may wait for an answer, has still to go on."""
        for stay in self._member.stays:
            if stay.opening is not None:
                self._open(stay, stay.opening)
            while stay.next_withheld is not None:
                if stay.take_withheld().reply:
                    self._member.outlet.opened()
        return Step.IDLE

    def _give_withheld(self, stay: Stay) -> None:
        """Give all that was withheld at this place, as one write."""
        frames: list[bytes] = []
        replied = False
        while (item := stay.next_withheld) is not None and item.position <= stay.cursor:
            frames.append(stay.take_withheld().frame)
            replied = replied or item.reply
        self._wire.put(b"".join(frames), tuple(accumulate(map(len, frames))))
        if replied:
            self._member.outlet.opened()

    @staticmethod
    def _upto(stay: Stay) -> int:
        withheld = stay.next_withheld
        return stay.limit if withheld is None else min(stay.limit, withheld.position)

    def _give_stored(self, stay: Stay, upto: int) -> Step:
        found = stay.room.ring.slice(stay.cursor, upto, CHUNK)
        if found is None:
            return Step.READ
        self._feed(stay, found.data, found.ends)
        return Step.MORE

    def _feed(self, stay: Stay, data: bytes, ends: tuple[int, ...]) -> None:
        given = self._wire.feed(data, ends)
        stay.cursor += given
        self._delivered(given)

    def _finish(self, stay: Stay) -> Step:
        """Everything up to the limit is given: end the stay, or go live."""
        if stay.end is not None:
            self._member.stays.remove(stay)
            self._let_go(stay)
            return Step.MORE
        if stay.seen < stay.room.number:
            return Step.IDLE  # a fan-out is under way and has not come to this stay yet; it will wake us
        if stay.missed:
            if stay.room.waiting:
                return Step.IDLE  # the list would tell what a broadcast is about to; that will wake us
            stay.missed = False
            self._wire.put(text_frame(events.members(stay.room.name, stay.room.roster.as_json())))
            return Step.MORE
        if self._wire.pending:
            return Step.MORE
        stay.live = True
        return Step.IDLE

    async def read_on(self) -> None:
        """Give the next piece from the log.

        Raises Disconnect if the next message is no longer kept, Unavailable.
        """
        stay = self._member.stays[0]
        after, upto = stay.cursor, self._upto(stay)
        try:
            messages = await self._engine.read(stay.room.name, after, upto, READ_LIMIT)
        except Trimmed:
            raise Disconnect(CloseCode.TOO_FAR_BEHIND, "too far behind") from None
        # Only this task moves a cursor that isn't live; a switch meanwhile has left the stay its place.
        frames = [text_frame(events.message(stay.room.name, message)) for message in messages]
        if not messages or messages[0].id != after + 1:
            raise Disconnect(CloseCode.INTERNAL_ERROR, "the log has a hole")
        piece = stay.room.ring.remember(frames, after, upto, CHUNK)
        self._feed(stay, piece.data, piece.ends)
