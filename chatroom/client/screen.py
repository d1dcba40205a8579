"""What `join` needs of a terminal: the port that both screens keep.

Owns the port: `editor` keeps it where a line can be edited, `plainscreen` everywhere else. Rules:

1. A screen runs the program, not the other way round: it may need the outermost loop (see `Run`).
2. What is shown is safe already. A screen adds escape sequences of its own only where it edits lines, and
   what it shows of the typed line has no control of the terminal in it, wherever it was pasted from.
3. However a screen ends, it leaves the terminal as it was.

It doesn't know what lines mean, nor who else is in the room.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol


class Unwritable(Exception):
    """What was shown couldn't be written, and its reader isn't gone; the text says why."""


class Completions(NamedTuple):
    """What the end of a line may become: each choice stands for everything from `start` on."""

    start: int
    choices: tuple[str, ...]


class Typist(Protocol):
    """Who wants to know what happens at the keyboard. All but `complete` is called in a task of Trio."""

    def typing(self, text: str) -> None:
        """The line has another text now."""

    def looking(self, there: bool) -> None:
        """The person turns to the terminal, or away from it. Terminals that can't tell never call it."""

    def leave(self) -> None:
        """The person asks to leave, now. The None that stands behind all that was typed comes as well."""

    def complete(self, before: str) -> Completions:
        """What may stand in place of the end of `before`, the line up to the cursor. It may not call Trio."""


class Screen(Protocol):
    """What is shown, and what is typed."""

    def attend(self, typist: Typist) -> None:
        """Tell `typist` from now on. Only then a line is edited: signals have to be caught before."""

    def show(self, lines: Sequence[str]) -> None:
        """Print lines, which scroll away; at most their own colours are in them.

        Where lines are edited, the rest of one that is too long is indented: it is no line of its own.
        """

    def set_prompt(self, text: str) -> None:
        """Show a text before the typed line, where lines are edited."""

    def set_status(self, text: str) -> None:
        """Show a text that stays until the next one, where there is a place for it."""

    def put_back(self, text: str) -> None:
        """Have a text in the line to be edited again, if the line is empty and can be edited."""

    def take_back(self, text: str) -> None:
        """Empty the line, if it is still this text that was put back."""

    def ring(self) -> None:
        """Call for attention, where a person may be."""

    async def next_line(self) -> str | None:
        """What was typed next, of several lines where one paste had them. None: the person wants to leave.

        That may be said again if the program doesn't leave; where nobody `is_there`, it is said for ever.
        """

    @property
    def is_there(self) -> bool:
        """Whether a person is there, who sees the status and can press another key."""


Program = Callable[[Screen], Awaitable[int]]
"""What runs with a screen; it returns the exit code."""
Run = Callable[[Program], int]
"""A screen that runs a program, in Trio, and returns its exit code. Raises what the program raises, and
Unwritable.
"""
