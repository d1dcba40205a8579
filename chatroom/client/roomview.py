"""The room as the person sees it: who is here, who is typing, and what the Tab key offers.

Owns names: of the members, the last speakers, and the rooms that are known. Rules:

1. Names are kept as the server writes them. What is shown of them is made printable here; one that isn't
   printable is never offered, so it can't come into the typed line.
2. Those who have spoken last are offered first.
3. What is offered behind a command means that name and no other one, as `typed` reads it.

It doesn't know how a screen looks, nor a clock beyond the times that it is given.
"""

import re
from collections.abc import Iterable

from chatroom.client.printable import printable
from chatroom.client.screen import Completions
from chatroom.client.typed import COMMANDS
from chatroom.client.typingmarks import Marks
from chatroom.core.sanctions import Action

CROWD = 30
"""Members from which on it isn't told any more who comes and goes."""
_MOST_NAMED = 3
_MOST_KNOWN = 1000
_WORD = re.compile(r"\S*\Z")
_NAMING = frozenset(Action)


class RoomView:
    """One room at a time."""

    def __init__(self) -> None:
        self.room = self.username = ""
        self.members: set[str] = set()
        self.marks = Marks()
        self._speakers: dict[str, None] = {}
        self._rooms: dict[str, None] = {}

    # What happens

    def entered(self, room: str, username: str, others: Iterable[str]) -> None:
        """The person is in a room, at first or again."""
        if room != self.room:
            self._speakers.clear()
        self.room, self.username = room, username
        self.members = {username, *others}
        self.marks.clear()
        self.known([room])

    def joined(self, name: str) -> str | None:
        """Somebody has come. Returns what to say of it."""
        new = name not in self.members
        self.members.add(name)
        return f"{printable(name)} has joined" if new and len(self.members) <= CROWD else None

    def left(self, name: str) -> str | None:
        """Somebody has gone. Returns what to say of it."""
        self.marks.drop(name)
        there = name in self.members
        self.members.discard(name)
        return f"{printable(name)} has left" if there and len(self.members) < CROWD else None

    def listed(self, names: Iterable[str]) -> None:
        """The whole list of members came."""
        self.members = set(names)

    def said(self, name: str) -> None:
        """Somebody has said something."""
        self.marks.drop(name)
        self._speakers.pop(name, None)
        self._speakers[name] = None
        if len(self._speakers) > _MOST_KNOWN:
            del self._speakers[next(iter(self._speakers))]

    def known(self, rooms: Iterable[str]) -> None:
        """There are these rooms."""
        for room in rooms:
            if len(self._rooms) < _MOST_KNOWN:
                self._rooms[room] = None

    # What is shown

    def typists(self, now: float) -> str:
        """Who is typing, as a sentence; empty if nobody is."""
        names = [printable(name) for name in self.marks.names(now)]
        match names:
            case []:
                return ""
            case [name]:
                return f"{name} is typing …"
            case _ if len(names) <= _MOST_NAMED:
                return f"{', '.join(names[:-1])} and {names[-1]} are typing …"
        return "several people are typing …"

    def here(self, most: int) -> str:
        """Who is here, in words: `most` of them by name."""
        names = sorted(map(printable, self.members), key=str.casefold)
        more = f" and {len(names) - most} more" if len(names) > most else ""
        return f"{len(names)} here: {', '.join(names[:most])}{more}"

    # What is offered

    def complete(self, before: str) -> Completions:
        """What may stand in place of the last word of `before`; see `Typist.complete`."""
        start = len(before) - len(_WORD.search(before)[0])  # type: ignore[index]
        word = before[start:]
        head = before[:start].split()
        if before.startswith("/") and not head:
            choices = _begin(word, [f"/{name}" for name in COMMANDS])
        elif head == ["/switch"]:
            choices = _begin(word, _written("#", sorted(self._rooms), marked=word.startswith("#")))
        elif len(head) == 1 and head[0].removeprefix("/") in _NAMING and before.startswith("/"):
            choices = _begin(word, _written("@", self._names(), marked=word.startswith("@")))
        elif word.startswith("@"):
            choices = _begin(word, [f"@{name}" for name in self._names()])
        else:
            choices = _begin(word, self._names()) if word else []
        return Completions(start, tuple(choices))

    def _names(self) -> list[str]:
        others = self.members - {self.username}
        spoken = [name for name in reversed(self._speakers) if name in others]
        return spoken + sorted(others.difference(spoken), key=str.casefold)


def _written(mark: str, names: Iterable[str], *, marked: bool) -> list[str]:
    """Names as a command reads them, which takes one mark away: with it if they are to be `marked`, or if it
    is a part of the name.
    """
    return [mark + name if marked or name.startswith(mark) else name for name in names]


def _begin(word: str, names: Iterable[str]) -> list[str]:
    """Those of the names that begin with the word, in any case of letters."""
    wanted = word.casefold()
    return [
        name
        for name in names
        if name.casefold().startswith(wanted) and printable(name) == name and len(name.split()) == 1
    ]
