"""Who is in a room: presence is per username, counted over its connections.

1. `enter` says whether the name is new on this node, `leave` whether it is gone from this node.
2. If the node is alone, that changes the list. If the room is `shared` with other nodes, only a change that
   is announced to all of them does: the list is always what has been told.
3. Names stay sorted, and their JSON array is kept until the next change, so that a storm of joins costs no
   sort. The array is one object for all members that are given it meanwhile. It is not copied to leave a name
   out.

It doesn't know connections, only how many each name has, and how many other nodes have the name.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping

from chatroom.core.mentions import SIGNS, fold, mentions
from chatroom.core.messages import Change
from chatroom.protocol.events import quoted
from chatroom.websocket.framing import Pieces


class Roster:
    """The names in one room, sorted by code point."""

    __slots__ = ("_connections", "_elsewhere", "_folded", "_json", "_names", "_quoted", "_shared", "known")

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self.known = not shared
        """The list has been told: that of a shared room comes a moment after the room was opened."""
        self._connections: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}  # the number of other nodes that have it
        self._names: list[str] = []
        self._quoted: list[bytes] = []
        self._json: bytes | None = None
        self._folded: dict[str, set[str]] | None = (
            None  # names by their folded forms, once they are asked for
        )

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, username: str) -> bool:
        at = bisect_left(self._names, username)
        return at < len(self._names) and self._names[at] == username

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(self._names)

    @property
    def here(self) -> Collection[str]:
        """The names that have a connection on this node."""
        return self._connections.keys()

    def enter(self, username: str) -> bool:
        """Count a connection of `username` on this node. Return whether it is the first."""
        count = self._connections.get(username, 0)
        self._connections[username] = count + 1
        if count:
            return False
        if not self._shared:
            self._add(username)
        return True

    def leave(self, username: str) -> bool:
        """Uncount a connection of `username` on this node. Return whether it was the last."""
        count = self._connections[username] - 1
        if count:
            self._connections[username] = count
            return False
        del self._connections[username]
        if not self._shared:
            self._remove(username)
        return True

    def change(self, change: Change) -> bool:
        """A shared room has changed. Return whether the list has: then the members are to be told."""
        username = change.username
        if not change.ours:
            count = self._elsewhere.get(username, 0) + (1 if change.here else -1)
            if count > 0:
                self._elsewhere[username] = count
            else:
                self._elsewhere.pop(username, None)
        if not change.announced or (username in self) == change.here:
            return False
        (self._add if change.here else self._remove)(username)
        return True

    def replace(self, names: Mapping[str, int]) -> list[Change]:
        """Take over the whole list of a shared room, each name with how many other nodes have it.

        Return what has changed.
        """
        self.known = True
        self._elsewhere = {username: nodes for username, nodes in names.items() if nodes}
        gone = [username for username in self._names if username not in names]
        came = [username for username in names if username not in self]
        self._list(names)
        changes = [Change(username, here=False, announced=True, ours=False) for username in gone]
        return changes + [
            Change(username, here=True, announced=True, ours=False) for username in sorted(came)
        ]

    def called(self, text: str) -> frozenset[str]:
        """The names in the room that `text` calls by an @. Their folded forms are kept from then on."""
        if not any(sign in text for sign in SIGNS):
            return frozenset()
        if self._folded is None:
            self._folded = {}
            for username in self._names:
                self._folded.setdefault(fold(username), set()).add(username)
        return mentions(text, self._folded)

    def as_json(self) -> bytes:
        """The names as a JSON array without spaces."""
        if self._json is None:
            self._json = b"[%b]" % b",".join(self._quoted)
        return self._json

    def everyone(self, username: str) -> Pieces:
        """The names as JSON in pieces, with `username`, which is here even if that hasn't been told yet."""
        if username in self:
            return (self.as_json(),)
        at = bisect_left(self._names, username)
        quotes = [*self._quoted[:at], quoted(username).encode(), *self._quoted[at:]]
        return (b"[%b]" % b",".join(quotes),)

    def others(self, username: str) -> Pieces:
        """The names of all connections but one of `username`, as JSON in pieces. That one must be there."""
        whole = self.as_json()
        if self._connections[username] > 1 or username in self._elsewhere or username not in self:
            return (whole,)
        if len(self._names) == 1:
            return (b"[]",)
        at = bisect_left(self._names, username)
        start = sum(map(len, self._quoted[:at])) + at  # of the comma before it, or of the bracket
        stop = start + 1 + len(self._quoted[at])
        view = memoryview(whole)
        return (view[:start], view[stop:]) if at else (b"[", view[stop + 1 :])

    def _list(self, names: Iterable[str]) -> None:
        self._names = sorted(names)
        self._quoted = [quoted(username).encode() for username in self._names]
        self._json = None
        self._folded = None

    def _add(self, username: str) -> None:
        at = bisect_left(self._names, username)
        self._names.insert(at, username)
        self._quoted.insert(at, quoted(username).encode())
        self._json = None
        if self._folded is not None:
            self._folded.setdefault(fold(username), set()).add(username)

    def _remove(self, username: str) -> None:
        at = bisect_left(self._names, username)
        del self._names[at]
        del self._quoted[at]
        self._json = None
        if self._folded is not None:
            called = self._folded[folded := fold(username)]
            called.discard(username)
            if not called:
                del self._folded[folded]
