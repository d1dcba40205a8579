"""The recent frames of each room, ready to be sent again without asking the log.

1. A ring holds consecutive ids up to the room's head; it may forget from the old end at any time.
2. All rings share one budget in bytes; past it, the ring that was written longest ago forgets first.
3. A slice is one bytes object, and equal slices are the same object, so that many readers at the same
   place share one join. Recent slices of all rings share a bound of their own, an eighth of the budget.

It does not know members, nor what a frame says.
"""

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate

MAX_FRAMES = 1024
SLICES = 8
"""The share of the budget that recent slices may take beside the frames: one in so many."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive frames joined: `ends` are their end offsets in `data`, `last_id` is the last one's id."""

    data: bytes
    ends: tuple[int, ...]
    last_id: int


class RingBudget:
    """The bytes that all rings of a process may hold together."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._rings: OrderedDict[Ring, None] = OrderedDict()
        self._slices: OrderedDict[tuple[Ring, int, int, int], Slice] = OrderedDict()
        self._sliced = 0

    @property
    def used(self) -> int:
        """Bytes of frames held now."""
        return self._used

    @property
    def sliced(self) -> int:
        """Bytes of slices held beside them."""
        return self._sliced

    def charge(self, ring: "Ring", size: int) -> None:
        """`ring` has grown by `size` and is now the one written last; others may have to forget."""
        self._used += size
        self._rings[ring] = None
        self._rings.move_to_end(ring)
        while self._used > self._total:
            stalest = next(iter(self._rings))
            if not stalest.forget_oldest():
                del self._rings[stalest]

    def recall(self, ring: "Ring", after: int, upto: int, max_bytes: int) -> "Slice | None":
        """The slice that was remembered for this, if it still is. What an id stands for never changes."""
        return self._slices.get((ring, after, upto, max_bytes))

    def remember(self, ring: "Ring", after: int, upto: int, max_bytes: int, piece: "Slice") -> None:
        """Keep a slice for those who will ask for the same; the oldest ones go."""
        if len(piece.data) * SLICES > self._total:
            return
        self._slices[ring, after, upto, max_bytes] = piece
        self._sliced += len(piece.data)
        while self._sliced * SLICES > self._total:
            _, oldest = self._slices.popitem(last=False)
            self._sliced -= len(oldest.data)

    def release(self, size: int) -> None:
        """A ring has forgotten `size` bytes."""
        self._used -= size

    def close(self, ring: "Ring") -> None:
        """`ring` is not used any more."""
        ring.clear()
        self._rings.pop(ring, None)


class Ring:
    """The newest frames of one room, oldest first; the last one has the id `last_id`."""

    __slots__ = ("_budget", "_frames", "_skip", "last_id")

    def __init__(self, budget: RingBudget, last_id: int) -> None:
        self._budget = budget
        self._frames: list[bytes] = []
        self._skip = 0  # leading entries already forgotten; cut off in bulk
        self.last_id = last_id

    def __len__(self) -> int:
        return len(self._frames) - self._skip

    @property
    def first_id(self) -> int:
        """The lowest id held; `last_id + 1` if none is."""
        return self.last_id - len(self) + 1

    def append(self, frame: bytes) -> None:
        """Add the frame of the message with the id `last_id + 1`."""
        self._frames.append(frame)
        self.last_id += 1
        if len(self) > MAX_FRAMES:
            self.forget_oldest()
        self._budget.charge(self, len(frame))

    def forget_oldest(self) -> bool:
        """Drop the oldest frame; false if there was none."""
        if not len(self):
            return False
        self._budget.release(len(self._frames[self._skip]))
        self._frames[self._skip] = b""
        self._skip += 1
        if self._skip >= 256 and self._skip * 2 >= len(self._frames):
            del self._frames[: self._skip]
            self._skip = 0
        return True

    def clear(self) -> None:
        """Drop all frames."""
        while self.forget_oldest():
            pass

    def slice(self, after: int, upto: int, max_bytes: int) -> Slice | None:
        """The frames above id `after`, at most up to `upto` and about `max_bytes` (one at least).

        None where the first of them is not held any more; the caller reads the log then.
        """
        piece = self._budget.recall(self, after, upto, max_bytes)
        if piece is None and after + 1 >= self.first_id:
            start = self._skip + after + 1 - self.first_id
            piece = join(self._frames[start : start + upto - after], after, max_bytes)
            self._budget.remember(self, after, upto, max_bytes, piece)
        return piece

    def remember(self, frames: list[bytes], after: int, upto: int, max_bytes: int) -> Slice:
        """Make the slice that `slice` had to leave to the log, of `frames` from there, and keep it."""
        piece = self._budget.recall(self, after, upto, max_bytes)  # another reader may have been quicker
        if piece is None:
            piece = join(frames, after, max_bytes)
            self._budget.remember(self, after, upto, max_bytes, piece)
        return piece


def join(frames: list[bytes], after: int, max_bytes: int) -> Slice:
    """The first of `frames` (ids from `after + 1`) as one slice of about `max_bytes`, one at least."""
    ends = tuple(accumulate(map(len, frames)))
    count = max(1, bisect_right(ends, max_bytes))
    return Slice(b"".join(frames[:count]), ends[:count], after + min(count, len(frames)))
