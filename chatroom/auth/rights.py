"""Rights: what a token allows in each room.

Owns the meaning of the table `rooms` in a file or in claims. Rules:

1. A right is `r` (join and read) or `w` (write). Rights are given per room, or per glob of rooms.
2. An entry with the room's exact name decides. Without one, the longest glob that matches decides (in
   characters, wildcards included). Without any, nothing is allowed. One entry decides alone: the rights of
   several are never added up.
3. Of globs equally long the one with fewer `*` decides, then the one with fewer `?`, then the first in code
   point order. So the result never depends on the order in a file.
4. `*` stands for any characters, also none, and `?` for exactly one. Every other character, brackets
   included, stands for itself. Rooms may have brackets in their names, and a pattern misread as a class of
   characters would open rooms that nobody listed. Letter case counts.
5. Rooms and patterns are compared in their clean form, so an entry matches however its file composes accents.
6. Matching takes at most (length of pattern x length of name) steps, both of them at most 64.

It doesn't know which token has the rights, nor that joining needs `r`: `w` alone is just `w`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Literal, Self

from chatroom.core.names import clean_room, clean_room_pattern

Access = Literal["r", "w", "m"]
"""To read, to write, to moderate."""

_GRANTS = {
    "".join(order): "".join(each for each in "rwm" if each in order)
    for count in range(4)
    for order in permutations("rwm", count)
}


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights per room and glob: `entries` are (pattern, letters of "rwm"), the most decisive first."""

    entries: tuple[tuple[str, str], ...]
    _exact: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _globs: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_exact", dict(self.entries))
        object.__setattr__(self, "_globs", tuple(entry for entry in self.entries if _is_glob(entry[0])))

    @classmethod
    def everything(cls) -> Self:
        """To read and write in all rooms."""
        return cls((("*", "rw"),))

    @classmethod
    def parse(cls, rooms: object) -> Self:
        """The rights in the `rooms` of a file or of a token's claims. Raises ValueError."""
        if not isinstance(rooms, Mapping):
            raise ValueError('rooms must be a table such as { general = "rw" }')  # noqa: TRY004 (the file's fault)
        grants: dict[str, str] = {}
        for key, value in rooms.items():
            pattern = _clean_pattern(key)
            if pattern in grants:
                raise ValueError(f"rooms: {pattern!r} is given twice")
            grants[pattern] = _grant(pattern, value)
        return cls(tuple(sorted(grants.items(), key=_decisiveness)))

    @property
    def moderates(self) -> bool:
        """Whether there is a room that may be moderated by them."""
        return any("m" in grant for _, grant in self.entries)

    def can(self, room: str, access: Access) -> bool:
        """Whether `access` to the room is granted. `room` is a clean name."""
        return access in self._grant(room)

    def _grant(self, room: str) -> str:
        exact = self._exact.get(room)
        if exact is not None:
            return exact
        for pattern, grant in self._globs:
            if matches(pattern, room):
                return grant
        return ""


def matches(pattern: str, name: str) -> bool:
    """Whether the glob `pattern` matches the whole of `name`.

    Only the last `*` is ever extended: the match of an earlier one can stay as short as it was.
    """
    if pattern == "*":
        return True
    at = here = 0
    star, resume = -1, 0
    while here < len(name):
        symbol = pattern[at] if at < len(pattern) else ""
        if symbol == "*":
            star, resume = at, here
            at += 1
        elif symbol in ("?", name[here]):
            at += 1
            here += 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


def _is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _grant(pattern: str, value: object) -> str:
    if isinstance(value, Mapping):
        raise ValueError(f"rooms: {pattern!r} is a table; put names with dots in quotes")  # noqa: TRY004
    grant = _GRANTS.get(value) if isinstance(value, str) else None
    if grant is None:
        raise ValueError(f'rooms: {pattern!r} must be "r", "w", "m", several of them, or ""')
    return grant


def _decisiveness(entry: tuple[str, str]) -> tuple[int, int, int, str]:
    pattern = entry[0]
    return (-len(pattern), pattern.count("*"), pattern.count("?"), pattern)


def _clean_pattern(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError("rooms: a room's name must be a string")  # noqa: TRY004 (the file's fault)
    try:
        return clean_room_pattern(key) if _is_glob(key) else clean_room(key)
    except ValueError as error:
        raise ValueError(f"rooms: {key[:64]!a}: {error}") from None
