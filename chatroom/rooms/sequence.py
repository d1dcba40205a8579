"""The order of one room's log, for messages that come early, late, twice or not at all.

1. The message after `head` is the next one. What is at or below `head` has been shown, and is dropped.
2. What is above waits, up to WINDOW ids ahead; of what is further ahead only the number is remembered.
3. `tip` is the highest id known to exist: between `head` and it lies what is still missing. It may be told
   wrongly, by a store that has lost its last messages.

It does not know how what is missing is read, nor what becomes of what it gives out.
"""

from collections.abc import Sequence as Messages

from chatroom.core.messages import Message

WINDOW = 1024
"""Ids ahead of the head that are kept."""


class Sequence:
    """Puts the messages of a room into the order of their ids."""

    __slots__ = ("_early", "head", "tip")

    def __init__(self, head: int) -> None:
        """`head` is the last id that has been shown."""
        self.head = head
        self.tip = head
        self._early: dict[int, Message] = {}

    def receive(self, message: Message) -> Messages[Message]:
        """A message has come; return those that are next now, in their order."""
        message_id = message.id
        if message_id == self.head + 1:
            if self.tip == self.head:  # as ever where nobody else writes
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
        """The log ends at the head, by its own word: no more is known to exist, if that was `tip`."""
        if self.tip == tip:
            self.tip = self.head
            self._early.clear()

    @property
    def gap(self) -> tuple[int, int] | None:
        """What is missing next: the id before it and its own last id; None if nothing is."""
        if self.tip <= self.head:
            return None
        return self.head, min(self._early) - 1 if self._early else self.tip

    def _next(self) -> list[Message]:
        found = []
        while (message := self._early.pop(self.head + 1, None)) is not None:
            self.head = message.id
            found.append(message)
        return found
