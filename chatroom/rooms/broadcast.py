"""What one batch brings to one room, as the frames of a broadcast.

1. The frames of a broadcast are one bytes object, and every member is offered the same one. A member that
   must not get some of the frames is the exception.
2. Frames are added until the broadcast is sealed; nothing changes afterwards.
3. The bytes without some frames are made for one offer and kept by nobody. So if all members type at once,
   that takes no more memory than if one does.

It doesn't know subscriptions, nor where a broadcast goes.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, overload

from chatroom.websocket.framing import Pieces


class RoomEvent(NamedTuple):
    """One frame beside the stored messages.

    `position` is the id before it. `skip` is the username that must not get it. `presence` marks joined and
    left. `reply` is the answer to a member's command, which is in no broadcast and never dropped.
    """

    frame: bytes
    position: int
    presence: bool = False
    reply: Pieces = ()
    skip: str | None = None


class Broadcast:
    """The frames of one room and batch as one bytes object, and who gets which of them.

    `after` is the last id before the frames. `ephemera` are the frames that aren't of stored messages,
    `places` their indices among all frames. The first `presence` of the ephemera reach up to the last joined
    or left, of which there are `presences`. `skips` has for each username the indices of the frames that it
    must not get.
    """

    __slots__ = (
        "after",
        "data",
        "ends",
        "ephemera",
        "frames",
        "places",
        "presence",
        "presences",
        "skips",
        "stored",
    )

    def __init__(self, after: int) -> None:
        self.after = after
        self.frames: list[bytes] = []
        self.ephemera: list[RoomEvent] = []
        self.places: list[int] = []
        self.presence = 0
        self.presences = 0
        self.skips: dict[str, list[int]] = {}
        self.data = b""
        self.ends: Sequence[int] = ()
        self.stored = 0

    def add(self, event: RoomEvent) -> None:
        """Add a frame that isn't of a stored message."""
        place = len(self.frames)
        self.frames.append(event.frame)
        self.ephemera.append(event)
        self.places.append(place)
        if event.presence:
            self.presence = len(self.ephemera)
            self.presences += 1
        if event.skip is not None:
            self.skips.setdefault(event.skip, []).append(place)

    def seal(self) -> None:
        """Make the bytes; no frame may be added any more. The bytes of a lone frame are the frame itself."""
        frames = self.frames
        if len(frames) == 1:
            self.data = frames[0]
            self.ends = (len(self.data),)
        else:
            self.data = b"".join(frames)
            self.ends = tuple(accumulate(map(len, frames)))
        self.stored = len(frames) - len(self.ephemera)

    def reach(self, taken: int) -> int:
        """The cursor of a subscription that was given the first `taken` frames."""
        return self.after + taken - bisect_left(self.places, taken)

    def without(self, username: str) -> tuple[bytes, Sequence[int]]:
        """The bytes and ends of the frames that are for `username`, made for each call.

        They are not kept: if very many members type at once, that would be very many bytes.
        """
        pieces, start = [], 0
        view = memoryview(self.data)
        for place in self.skips[username]:
            pieces.append(view[start : self.ends[place - 1] if place else 0])
            start = self.ends[place]
        pieces.append(view[start:])
        return b"".join(pieces), EndsWithout(self.ends, self.skips[username])

    def place(self, username: str, taken: int) -> int:
        """The number of frames, skipped ones included, that `username` is past after `taken` of its own."""
        for place in self.skips.get(username, ()):
            taken += place <= taken
        return taken


class EndsWithout(Sequence[int]):
    """The ends of frames of which a few are left out. An end is computed when it is looked at."""

    __slots__ = ("_ends", "_gaps")

    def __init__(self, ends: Sequence[int], gaps: Sequence[int]) -> None:
        self._ends = ends
        self._gaps = gaps

    def __len__(self) -> int:
        return len(self._ends) - len(self._gaps)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        left_out = 0
        for gap in self._gaps:
            if gap > index:
                break
            index += 1
            left_out += self._ends[gap] - (self._ends[gap - 1] if gap else 0)
        return self._ends[index] - left_out
