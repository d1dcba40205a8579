"""The recent frames of each room, which can be sent again without asking the log.

1. A ring has consecutive ids up to the room's head. It may forget from the old end at any time, and a single
   frame that says something that isn't so any more: then it has a hole there.
2. All rings share one budget in bytes. Past it, the ring that was written longest ago forgets first.
3. A slice is one bytes object, and equal slices are the same object, so that many readers at the same
   place share one join. Recent slices of all rings share a bound of their own, an eighth of the budget.
4. Frames that were read from the log are kept as a slice, too. It serves every reader whose place is within
   it: for a slow reader, which takes it in small pieces, the log is read once.
5. The budget counts the bytes and the objects around them.

It doesn't know members, nor what a frame says.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate

MAX_FRAMES = 1024
SLICES = 8
"""Recent slices may take one part in so many of the budget, beside the frames."""
FRAME_COST = 48
"""Bytes that a frame in a ring takes beside its own: a bytes object and its place in a list."""
SLICE_COST = 400
END_COST = 40
"""Bytes that a slice takes beside its data, and for each end of a frame in it."""
_READ = 0
"""Marks the key of a slice that was read from the log, in place of the range that was asked for."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive frames joined: `ends` are their end offsets in `data`, `last_id` is the last one's id."""

    data: bytes
    ends: tuple[int, ...]
    last_id: int

    @property
    def cost(self) -> int:
        """About the bytes that the slice takes in memory."""
        return len(self.data) + END_COST * len(self.ends) + SLICE_COST

    def between(self, after: int, upto: int) -> "Slice":
        """The frames above id `after` up to `upto`. The first of them must be in this slice."""
        start = len(self.ends) - (self.last_id - after)
        stop = len(self.ends) - max(0, self.last_id - upto)
        if start == 0 and stop == len(self.ends):
            return self
        cut = self.ends[start - 1] if start else 0
        ends = tuple([end - cut for end in self.ends[start:stop]])
        return Slice(self.data[cut : cut + ends[-1]], ends, after + len(ends))


_Key = tuple["Ring", int, int, int]


class RingBudget:
    """The bytes that all rings of a process may take together."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.used = 0  # bytes that the frames of all rings take
        self._rings: OrderedDict[Ring, None] = OrderedDict()
        self._slices: OrderedDict[_Key, Slice] = OrderedDict()
        self.sliced = 0  # bytes that the slices take, beside the frames

    def charge(self, ring: "Ring", size: int) -> None:
        """`ring` has grown by `size` bytes and is now the one written last. Others may have to forget."""
        self.used += size
        self._rings[ring] = None
        self._rings.move_to_end(ring)
        while self.used > self._total:
            stalest = next(iter(self._rings))
            if not stalest.forget_oldest():
                del self._rings[stalest]

    def recall(self, key: _Key) -> Slice | None:
        """The slice that was remembered for `key`, if it still is."""
        return self._slices.get(key)

    def remember(self, key: _Key, piece: Slice) -> bool:
        """Keep a new slice for later readers of the same place; false if it is too big.

        The oldest slices go.
        """
        if piece.cost * SLICES > self._total:
            return False
        self._slices[key] = piece
        self.sliced += piece.cost
        while self.sliced * SLICES > self._total:
            self._forgotten(*self._slices.popitem(last=False))
        return True

    def keys_with(self, ring: "Ring", frame_id: int) -> list[_Key]:
        """The keys of the slices of `ring` that have the frame of this id."""
        return [
            key
            for key, piece in self._slices.items()
            if key[0] is ring and key[1] < frame_id <= piece.last_id
        ]

    def forget_slice(self, key: _Key) -> None:
        """Give up a slice before its time."""
        self._forgotten(key, self._slices.pop(key))

    def _forgotten(self, key: _Key, piece: Slice) -> None:
        ring, after, upto, _ = key
        self.sliced -= piece.cost
        if upto == _READ:
            ring.forget_read(after)

    def release(self, size: int) -> None:
        """A ring has forgotten `size` bytes."""
        self.used -= size

    def close(self, ring: "Ring") -> None:
        """`ring` is not used any more."""
        ring.clear()
        self._rings.pop(ring, None)


class Ring:
    """The newest frames of one room, oldest first; the last one has the id `last_id`."""

    __slots__ = ("_budget", "_frames", "_holes", "_read", "_skip", "last_id")

    def __init__(self, budget: RingBudget, last_id: int) -> None:
        self._budget = budget
        self._frames: list[bytes] = []
        self._skip = 0  # leading entries already forgotten; cut off in bulk
        self._read: list[int] | None = (
            None  # after which ids slices begin that were read from the log, sorted
        )
        self._holes: list[int] | None = None  # ids in the ring whose frames were forgotten, sorted
        self.last_id = last_id

    def __len__(self) -> int:
        return len(self._frames) - self._skip

    @property
    def first_id(self) -> int:
        """The lowest id in the ring; `last_id + 1` if it is empty."""
        return self.last_id - len(self) + 1

    def append(self, frame: bytes) -> None:
        """Add the frame of the message with the id `last_id + 1`."""
        self._frames.append(frame)
        self.last_id += 1
        if len(self) > MAX_FRAMES:
            self.forget_oldest()
        self._budget.charge(self, len(frame) + FRAME_COST)

    def forget_oldest(self) -> bool:
        """Drop the oldest frame; false if there was none."""
        if not len(self):
            return False
        self._budget.release(len(self._frames[self._skip]) + FRAME_COST)
        self._frames[self._skip] = b""
        self._skip += 1
        if self._holes is not None and self._holes[0] < self.first_id:
            del self._holes[0]
            self._holes = self._holes or None
        if not len(self) or (self._skip >= 256 and self._skip * 2 >= len(self._frames)):
            del self._frames[: self._skip]
            self._skip = 0
        return True

    def clear(self) -> None:
        """Drop all frames."""
        while self.forget_oldest():
            pass

    def slice(self, after: int, upto: int, max_bytes: int) -> Slice | None:
        """The frames above id `after`, at most up to `upto` and about `max_bytes` (one at least).

        None if the first of them is not here any more; the caller then reads the log.
        """
        key = (self, after, upto, max_bytes)
        piece = self._budget.recall(key)
        if piece is None and after + 1 >= self.first_id:
            end = upto if self._holes is None else self._before_hole(after, upto)
            if end > after or after == upto:
                start = self._skip + after + 1 - self.first_id
                piece = join(self._frames[start : start + end - after], after, max_bytes)
                self._budget.remember(key, piece)
        return self._recall_read(after, upto) if piece is None else piece

    def _before_hole(self, after: int, upto: int) -> int:
        """The last id up to `upto` to which the ring goes on without a hole."""
        assert self._holes is not None
        at = bisect_right(self._holes, after)
        return min(upto, self._holes[at] - 1) if at < len(self._holes) else upto

    def forget(self, frame_id: int) -> None:
        """What the frame of this id says isn't so any more. Whoever needs it reads the log."""
        for key in self._budget.keys_with(self, frame_id):
            self._budget.forget_slice(key)
        if not self.first_id <= frame_id <= self.last_id:
            return
        at = self._skip + frame_id - self.first_id
        self._budget.release(len(self._frames[at]))
        self._frames[at] = b""
        if self._holes is None:
            self._holes = []
        if (place := bisect_left(self._holes, frame_id)) == len(self._holes) or self._holes[
            place
        ] != frame_id:
            self._holes.insert(place, frame_id)

    def _recall_read(self, after: int, upto: int) -> Slice | None:
        """The rest behind id `after` of the slice from the log that begins last at or before it."""
        if self._read is None or not (at := bisect_right(self._read, after)):
            return None
        piece = self._budget.recall((self, self._read[at - 1], _READ, _READ))
        assert piece is not None, "a slice that goes is forgotten here, too"
        return piece.between(after, upto) if piece.last_id > after else None

    def remember_read(self, frames: list[bytes], after: int) -> Slice:
        """Make one slice of `frames`, read from the log from id `after` on, and keep it.

        To be called when `slice` has found nothing.
        """
        piece = join(frames, after)
        if self._budget.remember((self, after, _READ, _READ), piece):
            if self._read is None:
                self._read = []
            insort(self._read, after)
        return piece

    def forget_read(self, after: int) -> None:
        """The slice that was read from the log from id `after` on is not kept any more."""
        assert self._read is not None
        del self._read[bisect_left(self._read, after)]
        if not self._read:
            self._read = None


def join(frames: list[bytes], after: int, max_bytes: float = math.inf) -> Slice:
    """The first of `frames` (ids from `after + 1`) as one slice of about `max_bytes`, one at least."""
    ends = tuple(accumulate(map(len, frames)))
    count = max(1, bisect_right(ends, max_bytes))
    return Slice(b"".join(frames[:count]), ends[:count], after + min(count, len(frames)))
