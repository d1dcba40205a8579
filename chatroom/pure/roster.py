"""Who is in a room: presence is per username, counted over its connections.

1. `enter` says whether the name is new in the room, `leave` whether it is gone; nothing else tells
   others about presence.
2. Names stay sorted and their JSON array is kept until the next change, so that a storm of joins
   costs one join of strings each and no sort.

It does not know connections, only how many each name has.
"""

from bisect import bisect_left

from chatroom.pure.events import quoted


class Roster:
    """The names in one room, sorted by code point."""

    __slots__ = ("_connections", "_json", "_names", "_quoted")

    def __init__(self) -> None:
        self._connections: dict[str, int] = {}
        self._names: list[str] = []
        self._quoted: list[str] = []
        self._json: str | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, username: str) -> bool:
        return username in self._connections

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(self._names)

    def enter(self, username: str) -> bool:
        """One more connection of `username`; true if it is the first."""
        count = self._connections.get(username, 0)
        self._connections[username] = count + 1
        if count:
            return False
        at = bisect_left(self._names, username)
        self._names.insert(at, username)
        self._quoted.insert(at, quoted(username))
        self._json = None
        return True

    def leave(self, username: str) -> bool:
        """One connection of `username` less; true if it was the last."""
        count = self._connections[username] - 1
        if count:
            self._connections[username] = count
            return False
        del self._connections[username]
        at = bisect_left(self._names, username)
        del self._names[at]
        del self._quoted[at]
        self._json = None
        return True

    def as_json(self) -> str:
        """The names as a JSON array without spaces."""
        if self._json is None:
            self._json = f"[{','.join(self._quoted)}]"
        return self._json
