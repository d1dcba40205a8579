"""What a typed line asks for: something to say, or a command that begins with a slash.

1. A line that begins with two slashes is said, with the first one left out. `/me` is said as it is: who shows
   the message makes an action of it.
2. A command that isn't known, or makes no sense as it was written, is Wrong and is never said: a slip of the
   finger must not tell everybody what was meant for one's own client.

It doesn't know what comes of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from chatroom.core.sanctions import LASTING, TAKES_BACK, Action

HISTORY, MOST_HISTORY = 20, 200
"""How many messages `/last` and `/history` ask for, if they don't say, and at most."""
COMMANDS: Mapping[str, tuple[str, str]] = {
    "switch": ("ROOM", "go to another room"),
    "rooms": ("", "list the rooms"),
    "members": ("", "list who is here"),
    "last": ("[N]", f"show the last N with their ids, {HISTORY} if left out"),
    "history": ("[N]", f"show N older messages, {HISTORY} if left out"),
    "me": ("TEXT", "say what you do: ~ alice waves"),
    "edit": ("[#ID] TEXT", "change your last message, or the one with that id"),
    "delete": ("[#ID]", "delete your last message, or the one with that id"),
    "kick": ("NAME [REASON]", "as a moderator: send somebody out"),
    "mute": (
        "NAME [TIME] [REASON]",
        "as a moderator: let somebody only read",
    ),
    "unmute": ("NAME", "take that back"),
    "ban": ("NAME [TIME] [REASON]", "as a moderator: keep somebody out"),
    "unban": ("NAME", "take that back"),
    "help": ("", "list these commands"),
    "quit": ("", "leave"),
}
"""The commands, what may stand behind each, and what it does."""
_HINTS = (
    "A TIME is like 10m, 2h or 7d; left out, without end. IDs: /last and /history.",
    "A NAME may have an @ before it and a ROOM a #: @@bob is somebody called @bob.",
    "// says a line that begins with a slash. Where lines are edited, Tab completes",
    "names and commands, Alt-Enter begins a new line, and Ctrl-R finds old lines.",
)
_ACTIONS = frozenset(Action)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r"([1-9][0-9]{0,9})([smhd])")
_ID = re.compile(r"#([1-9][0-9]{0,15})")
_COUNT = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Say:
    """Something to say in the room."""

    text: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Go to a room."""

    room: str


@dataclass(frozen=True, slots=True)
class ShowRooms:
    """List the rooms."""


@dataclass(frozen=True, slots=True)
class ShowMembers:
    """List who is here."""


@dataclass(frozen=True, slots=True)
class ShowLast:
    """Show so many of the newest messages again."""

    count: int


@dataclass(frozen=True, slots=True)
class ShowHistory:
    """Show so many older messages."""

    count: int


@dataclass(frozen=True, slots=True)
class Edit:
    """Give the message with this id another text; None: one's own last one."""

    id: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Take back the message with this id; None: one's own last one."""

    id: int | None


@dataclass(frozen=True, slots=True)
class Moderate:
    """Do what a moderator may; for `seconds`, or without an end."""

    action: Action
    username: str
    seconds: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ShowHelp:
    """List the commands."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """It makes no sense; the sentence says what would. It may have parts of the line in it."""

    sentence: str


Typed = (
    Say
    | Switch
    | ShowRooms
    | ShowMembers
    | ShowLast
    | ShowHistory
    | Edit
    | Delete
    | Moderate
    | ShowHelp
    | Quit
    | Wrong
)


def read_typed(line: str) -> Typed | None:
    """What a line asks for; None if there is nothing in it."""
    line = line.strip()
    if not line:
        return None
    if not line.startswith("/"):
        return Say(line)
    if line.startswith("//"):
        return Say(line[1:])
    name, rest = _split(line[1:])
    if name not in COMMANDS:
        return Wrong(f"there is no command /{name[:40]}: see /help, or say a line with a slash by //")
    return _command(name, rest, line) or Wrong(f"write it like /{usage(name)}")


def usage(name: str) -> str:
    """A command and what stands behind it, without the slash."""
    return f"{name} {COMMANDS[name][0]}".rstrip()


def help_lines() -> list[str]:
    """The commands as a table."""
    width = max(len(usage(name)) for name in COMMANDS)
    return [*(f"/{usage(name):{width}}  {meaning}" for name, (_, meaning) in COMMANDS.items()), *_HINTS]


def _command(name: str, rest: str, line: str) -> Typed | None:
    if name in _ACTIONS:
        return _moderate(Action(name), rest)
    match name:
        case "switch" if rest and " " not in rest:
            return Switch(rest.removeprefix("#") or rest)
        case "me" if rest:
            return Say(line)
        case "edit":
            return _edit(rest)
        case "delete" if not rest:
            return Delete(None)
        case "delete" if found := _ID.fullmatch(rest):
            return Delete(int(found[1]))
        case "last" | "history" if not rest or _COUNT.fullmatch(rest):
            count = min(int(rest or HISTORY), MOST_HISTORY)
            return ShowLast(count) if name == "last" else ShowHistory(count)
    return _PLAIN[name] if name in _PLAIN and not rest else None


_PLAIN: Mapping[str, Typed] = {
    "rooms": ShowRooms(),
    "members": ShowMembers(),
    "help": ShowHelp(),
    "quit": Quit(),
}


def _edit(rest: str) -> Edit | None:
    first, text = _split(rest)
    found = _ID.fullmatch(first)
    if found is None:
        return Edit(None, rest) if rest else None
    return Edit(int(found[1]), text) if text else None


def _moderate(action: Action, rest: str) -> Moderate | None:
    name, rest = _split(rest)
    name = name.removeprefix("@") or name
    if not name or (action in TAKES_BACK and rest):
        return None
    seconds = None
    if action in LASTING:
        first, behind = _split(rest)
        if found := _TIME.fullmatch(first):
            seconds, rest = int(found[1]) * _UNITS[found[2]], behind
    return Moderate(action, name, seconds, " ".join(rest.split()))


def _split(text: str) -> tuple[str, str]:
    """The first word, and what stands behind it."""
    first, *rest = text.split(maxsplit=1) or [""]
    return first, rest[0] if rest else ""
