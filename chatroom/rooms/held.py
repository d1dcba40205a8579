"""What may happen only behind a message that this node has yet to show.

1. In each room that is done first which belongs behind the lower id; at the same id, what came first.
2. Nothing waits past its deadline: it is done then without its message, and is told so.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from chatroom.rooms.room import Room


class _Act(NamedTuple):
    after: int
    order: int
    deadline: float
    do: Callable[[bool], None]


class Held:
    """What waits, by room. `rooms`: those in which anything does."""

    def __init__(self) -> None:
        self.rooms: dict[Room, list[_Act]] = {}
        self._orders = count()

    @property
    def due(self) -> float:
        """When `expire` has something to do; infinity for never."""
        return min((act.deadline for acts in self.rooms.values() for act in acts), default=math.inf)

    def put(self, room: "Room", after: int, deadline: float, do: Callable[[bool], None]) -> None:
        """Call `do(True)` once the message `after` has been shown, or `do(False)` at the deadline.

        That may be before this returns.
        """
        if after <= room.head and room not in self.rooms:
            do(True)
        else:
            heappush(self.rooms.setdefault(room, []), _Act(after, next(self._orders), deadline, do))
            self.shown(room)

    def shown(self, room: "Room") -> None:
        """The room's head has moved."""
        acts = self.rooms.get(room)
        while acts and acts[0].after <= room.head:
            heappop(acts).do(True)
        if not acts:
            self.rooms.pop(room, None)

    def expire(self, now: float) -> None:
        """Do what has waited too long."""
        for room in [room for room, acts in self.rooms.items() if any(act.deadline <= now for act in acts)]:
            acts = self.rooms.pop(room)
            late = [act for act in acts if act.deadline <= now]
            if len(late) < len(acts):
                self.rooms[room] = sorted(act for act in acts if act.deadline > now)
            for act in sorted(late):
                act.do(False)

    def give_up(self, room: "Room") -> None:
        """The room will show nothing any more: do all that waits there without."""
        for act in sorted(self.rooms.pop(room, ())):
            act.do(False)
