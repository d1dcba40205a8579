"""Sanctions: what moderators have taken against names in one room, and what of that is in force.

1. A mute and a ban of the same name stand beside each other; a new one of a kind replaces the old one.
2. A sanction ends at its time by itself, or when it is taken back. A kick is over at once.
3. At most MAX_SANCTIONS are in force in a room.

They don't know rights, nor how a sanction is carried out.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, Self

MAX_SANCTIONS = 1000
"""Sanctions that may be in force in one room, so that its list stays bounded."""


class Action(StrEnum):
    """What a moderator does to a name."""

    KICK = "kick"
    MUTE = "mute"
    UNMUTE = "unmute"
    BAN = "ban"
    UNBAN = "unban"


DONE: dict[str, str] = {
    Action.KICK: "kicked",
    Action.MUTE: "muted",
    Action.UNMUTE: "unmuted",
    Action.BAN: "banned",
    Action.UNBAN: "unbanned",
}
"""What somebody has done then, in words."""
LASTING = frozenset({Action.MUTE, Action.BAN})
"""Actions that are in force from then on."""
TAKES_BACK = {Action.UNMUTE: Action.MUTE, Action.UNBAN: Action.BAN}
REMOVES = frozenset({Action.KICK, Action.BAN})
"""Actions after which the name's connections leave the room."""


class Sanction(NamedTuple):
    """A mute or a ban of `username`, by a moderator. `until` is in milliseconds since 1970; None: no end."""

    action: Action
    username: str
    by: str
    until: int | None
    reason: str


class Sanctions:
    """The sanctions of one room."""

    __slots__ = ("_known",)

    def __init__(self, known: Iterable[Sanction] = ()) -> None:
        self._known = {(each.action, each.username): each for each in known}

    def __len__(self) -> int:
        return len(self._known)

    def copy(self) -> Self:
        """The same, to be changed apart."""
        return type(self)(self._known.values())

    def find(self, action: Action, username: str, now: int) -> Sanction | None:
        """The sanction of this kind that is in force against a name."""
        found = self._known.get((action, username))
        return found if found is not None and (found.until is None or found.until > now) else None

    def forbids(self, username: str, now: int) -> Sanction | None:
        """The sanction by which a name may not speak: its ban, else its mute."""
        if not self._known:
            return None
        return self.find(Action.BAN, username, now) or self.find(Action.MUTE, username, now)

    def all(self) -> tuple[Sanction, ...]:
        """All that are known, also those that have ended."""
        return tuple(self._known.values())

    def in_force(self, now: int) -> tuple[Sanction, ...]:
        """All that are in force, by name."""
        found = [each for each in self._known.values() if each.until is None or each.until > now]
        return tuple(sorted(found, key=lambda each: (each.username, each.action)))

    def apply(self, action: Action, sanction: Sanction) -> None:
        """An action was taken: `sanction` says against whom, by whom and until when."""
        if action in LASTING:
            self._known[action, sanction.username] = sanction
        elif action in TAKES_BACK:
            self._known.pop((TAKES_BACK[action], sanction.username), None)

    def expire(self, now: int) -> None:
        """Forget those that have ended."""
        self._known = {
            key: each for key, each in self._known.items() if each.until is None or each.until > now
        }
