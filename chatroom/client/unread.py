"""Where the line `── new ──` stands: above the first message that the person hasn't had before the eyes.

Owns whether that line is due. Rules:

1. A person looks away when the terminal says so. Where it never says so, they have looked away once they have
   typed nothing for IDLE seconds.
2. What came while they were away stands below the line, and so does what had come before the client was there
   again: after a lost connection, or since the last visit to the room.
3. What they have said themselves needs no line. There is one line for each time away.

It doesn't know a clock beyond the times that it is given.
"""

from chatroom.client.cursor import Position

IDLE = 180.0
"""Seconds without a key after which a person counts as away, where the terminal doesn't tell."""


class Unread:
    """The line of one person."""

    def __init__(self, now: float) -> None:
        self._pressed = now
        self._tells = False
        self._away = False
        self._waiting = True
        self._since: int | None = None

    def pressed(self, now: float) -> None:
        """A key was pressed."""
        self._pressed, self._waiting = now, True

    def looking(self, there: bool, now: float) -> None:
        """The terminal says that the person turns to it, or away."""
        self._tells, self._away, self._waiting = True, not there, True
        if there:
            self._pressed = now

    def entered(self, seen: Position | None, epoch: str, last_id: int) -> None:
        """The person enters a room, at first or again, whose history `epoch` goes up to `last_id`; `seen` is
        what they have had of it.
        """
        if seen is None:
            self._since = None
        else:  # of another history they have had nothing
            self._since = seen.id if seen.epoch == epoch and seen.id <= last_id else 0

    def is_first(self, number: int, *, own: bool, old: bool, now: float) -> bool:
        """Whether the line stands above the record `number`. `old`: it was there before the person."""
        if own:
            return False
        if old:
            if self._since is None or number <= self._since:
                return False
            self._since, self._waiting = None, False
            return True
        self._since = None
        away = self._away if self._tells else now - self._pressed >= IDLE
        if not away or not self._waiting:
            return False
        self._waiting = False
        return True
