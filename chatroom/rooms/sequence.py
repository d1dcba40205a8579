"""The order of one room's log, for messages that come early, late, twice or not at all.

1. The message after `head` is the next one. A message at or below `head` has been shown, and is dropped.
2. A message above that waits, up to WINDOW ids ahead. Of messages further ahead only the number is
   remembered.
3. `tip` is the highest id known to exist. What lies between `head` and `tip` is still missing. A store that
   has lost its last messages may have told a wrong `tip`.

It doesn't know how missing messages are read, nor what becomes of those that it gives out.
"""

from collections.abc import Sequence as Records

from chatroom.core.messages import Record

WINDOW = 1024
"""How many ids ahead of the head messages are kept."""


class Sequence:
    """Puts the messages of a room into the order of their ids."""

    __slots__ = ("_early", "head", "tip")

    def __init__(self, head: int) -> None:
        """`head` is the last id that has been shown."""
        self.head = head
        self.tip = head
        self._early: dict[int, Record] = {}

    def receive(self, message: Record) -> Records[Record]:
        """Receive `message`. Return the messages that are next now, in their order."""
        message_id = message.id
        if message_id == self.head + 1:
            if self.tip == self.head:  # always so if no other node writes
                self.head = self.tip = message_id
                return (message,)
            self.head = message_id
            return (message, *self._next())
        if message_id > self.head:
            self.expect(message_id)
            if message_id <= self.head + WINDOW:
                self._early[message_id] = message
        return ()

    def expect(self, last_id: int) -> None:
        """The log is known to reach up to `last_id` at least."""
        self.tip = max(self.tip, last_id)

    def give_up(self, tip: int) -> None:
        """The log says that it ends at the head: no more exists, unless the tip is beyond `tip` by now."""
        if self.tip == tip:
            self.tip = self.head
            self._early.clear()

    @property
    def gap(self) -> tuple[int, int] | None:
        """The next gap: the id before it and its last id; None if nothing is missing."""
        if self.tip <= self.head:
            return None
        return self.head, min(self._early) - 1 if self._early else self.tip

    def _next(self) -> list[Record]:
        found = []
        while (message := self._early.pop(self.head + 1, None)) is not None:
            self.head = message.id
            found.append(message)
        return found
