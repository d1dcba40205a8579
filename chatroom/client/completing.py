"""What the Tab key does with the choices for a line: the first one, the next one, and around.

Owns the walk through the choices. Rules:

1. A press at once behind another one goes on; after any other change the choices are found anew.
2. A single choice is done: a blank follows, if the line has none there.

It doesn't know where choices come from.
"""

from collections.abc import Callable

from chatroom.client.screen import Completions


class Completing:
    """The walk of one line through its choices."""

    def __init__(self, find: Callable[[str], Completions]) -> None:
        self._find = find
        self._kept = ""
        self._choices: tuple[str, ...] = ()
        self._chosen = -1
        self._made: str | None = None

    def press(self, before: str, *, backwards: bool = False) -> str | None:
        """What stands in place of `before`, the line up to the cursor; None if there is no choice."""
        if before != self._made or len(self._choices) < 2:
            start, self._choices = self._find(before)
            self._kept, self._chosen = before[:start], 0 if backwards else -1
        if not self._choices:
            self._made = None
            return None
        self._chosen = (self._chosen + (-1 if backwards else 1)) % len(self._choices)
        made = self._kept + self._choices[self._chosen]
        if len(self._choices) == 1:
            made += " "
        self._made = made
        return made

    def shown(self, before: str) -> tuple[tuple[str, ...], int]:
        """The choices to show beside the line, and which is in it; none, if there is no walk now."""
        if before != self._made or len(self._choices) < 2:
            return (), 0
        return self._choices, self._chosen
