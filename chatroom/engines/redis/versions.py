"""The order of a room's presence: pushes with versions in, those that may be applied out.

1. Versions go up by one within an epoch. The next is applied; an older one, or one that is known, is dropped.
2. A later one is held until those before it have come. Until then there is a gap, and after a while whoever
   is interested reads the whole.
"""

from chatroom.engines.redis.pushes import Presence

MOST_HELD = 1024


class Versions:
    """Where the presence of one room stands on this node."""

    __slots__ = ("_held", "_highest", "epoch", "known")

    def __init__(self, epoch: str, known: int) -> None:
        self.epoch = epoch
        self.known = known
        self._highest = known
        self._held: dict[int, Presence] = {}

    def take(self, push: Presence) -> list[Presence]:
        """What is to be applied now that this has come, in order."""
        if push.epoch != self.epoch or push.version <= self.known:
            return []
        self.expect(push.version)
        if push.version == self.known + 1 or len(self._held) < MOST_HELD:
            self._held[push.version] = push
        ready = []
        while (following := self._held.pop(self.known + 1, None)) is not None:
            self.known += 1
            ready.append(following)
        return ready

    def expect(self, version: int) -> None:
        """The store is known to have reached `version`."""
        self._highest = max(self._highest, version)

    @property
    def gap(self) -> bool:
        """Something is missing."""
        return self._highest > self.known

    def read(self, epoch: str, version: int) -> list[Presence]:
        """The whole has been read as it was at `version`; what was held and lies behind it is given."""
        held = (
            []
            if epoch != self.epoch
            else [each for number, each in sorted(self._held.items()) if number > version]
        )
        self.epoch, self.known, self._held = epoch, version, {}
        self._highest = version
        return [ready for each in held for ready in self.take(each)]
