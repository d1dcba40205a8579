"""The command `admin`: what an operator or a moderator does in the rooms of a running server.

Owns the commands, their options, and what they print. Exit codes:

    0    done
    1    the server refuses: its sentence on standard error
    2    the command makes no sense as it was written
    75   the server can't be asked now

1. Everything goes by the HTTP API of the server, so a command can do what its token may, and no more. At the
   admin socket no token is needed.
2. A token comes from the environment or a file, never from the command line, which everybody can read.
3. What people see has no control or bidi character of others in it. `--json` is for programs, in ASCII, so it
   can't act on a terminal either.
4. Neither Trio nor the server is imported, so that a command is quick.

It doesn't know how a request travels; see `client.httpclient`.
"""

import json
import re
import secrets
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar
from urllib.parse import quote

from chatroom.client.address import HTTP, Place, read_url
from chatroom.client.credentials import VARIABLE, token_of_file, token_of_variable
from chatroom.client.httpclient import Client, Refused, Unreachable
from chatroom.config import parsers
from chatroom.config.options import OPTIONS, Option, Parser, value_of
from chatroom.core.errors import StartError
from chatroom.core.logevents import escape
from chatroom.core.messages import Message
from chatroom.core.names import clean_room, clean_username
from chatroom.core.sanctions import DONE, LASTING, TAKES_BACK, Action, Sanction
from chatroom.system.stdio import print_error, print_out, stopping_between_steps

REFUSED, UNREACHABLE = 1, 75
(_ADMIN_SOCKET,) = (option for option in OPTIONS if option.name == "admin-socket")
OPERATOR = "operator"
DEFAULT_PLACE = Place(port=3000)
PAGE = 200
MAX_TEXT_BYTES = 4 * 1024 * 1024
_WITHOUT_END = "without end"
_ID = re.compile(r"[1-9][0-9]{0,15}")
_AS_IT_WAS = {Action.UNMUTE: "isn't muted", Action.UNBAN: "isn't banned"}


# Options

WORDS: dict[str, str] = {
    "rooms": "",
    "who": "ROOM",
    "sanctions": "ROOM",
    **{str(action): "ROOM NAME" for action in Action},
    "say": "ROOM TEXT|-",
    "delete": "ROOM ID…",
    "export": "ROOM",
}
"""The commands, and the words behind each."""
_OF_COMMANDS: dict[str, tuple[str, ...]] = {
    "for": ("mute", "ban"),
    "reason": tuple(Action),
    "all": ("sanctions",),
    "output": ("export",),
    "json": tuple(name for name in WORDS if name != "export"),
}
"""The options that only some commands have."""


def _url(text: str) -> Place:
    return read_url(text, schemes=HTTP)


def _seconds(text: str) -> int:
    return round(parsers.duration("1s", "36600d")(text))


def _reason(text: str) -> str:
    return " ".join(text.split())


ADMIN_OPTIONS = (
    Option("url", "url", _url, None, "URL", "address of the server, http://localhost:3000 if left out"),
    Option("unix", "unix", parsers.unix_path, None, "PATH",
           "its --admin-socket instead, where no token is needed; or its --unix"),
    Option("ca", "ca", parsers.path, None, "FILE",
           "PEM file of the authorities whose certificates are believed, instead of the system's"),
    Option("token-file", "token_file", parsers.path, None, "FILE",
           "file of the token, instead of the variable CHATROOM_TOKEN"),
    Option("as", "username", clean_username, None, "NAME",
           "the name to act by, where the token leaves it open; operator at the admin socket"),
    Option("json", "as_json", parsers.switch, "0", "", "print JSON, one object a line"),
    Option("for", "seconds", _seconds, None, "TIME",
           "how long a mute or ban lasts; without it, until taken back"),
    Option("reason", "reason", _reason, None, "TEXT", "why; everybody in the room sees it"),
    Option("all", "past", parsers.switch, "0", "", "also what moderators did before"),
    Option("output", "output", parsers.path, None, "FILE", "a new file for the export"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The command and its words, and how the server is asked."""

    command: str
    room: str
    words: tuple[str, ...]
    place: Place
    token: str | None
    username: str | None
    ca: str | None
    as_json: bool
    seconds: int | None
    reason: str | None
    past: bool
    output: str | None


def read_admin(arguments: Sequence[str], environ: Mapping[str, str]) -> AdminSettings | str:
    """Read the options of `admin`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        ADMIN_OPTIONS,
        prog="chatroom admin",
        usage="\n       ".join(
            f"./chat.pyz admin {name} {words}".rstrip() + _own_options(name) for name, words in WORDS.items()
        ),
        description="Looks after the rooms of a running server, by its HTTP API. The token is in the "
        "variable CHATROOM_TOKEN or a --token-file.",
        words=True,
    )
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    values = {option.target: value_of(option, getattr(given, option.target), {}) for option in ADMIN_OPTIONS}
    command, *words = given.words or [""]
    if command not in WORDS:
        raise StartError(f"admin needs one of the commands {', '.join(WORDS)}")
    for option in ADMIN_OPTIONS:
        commands = _OF_COMMANDS.get(option.name)
        if commands is not None and command not in commands and getattr(given, option.target) is not None:
            raise StartError(f"{option.flag} means nothing with {command}: leave it out")
    room, words = _words(command, words)
    return AdminSettings(command, room, tuple(words), **_way(values, environ))


def _own_options(command: str) -> str:
    own = [option for option in ADMIN_OPTIONS if len(WORDS) > 2 * len(_OF_COMMANDS.get(option.name, WORDS))]
    own = [option for option in own if command in _OF_COMMANDS[option.name]]
    return "".join(f" [{option.flag} {option.metavar}".rstrip() + "]" for option in own)


def _words(command: str, words: list[str]) -> tuple[str, list[str]]:
    """The room, and the other words. Raises StartError."""
    wanted = WORDS[command].split()
    if len(words) < len(wanted) or (len(words) > len(wanted) and command != "delete"):
        raise StartError(f"write it like ./chat.pyz admin {command} {WORDS[command]}".rstrip())
    if not wanted:
        return "", []
    room, *words = words
    try:
        room = clean_room(room)
        if command in DONE:
            words = [clean_username(words[0])]
    except ValueError as error:
        raise StartError(str(error)) from None
    if command == "delete" and not all(map(_ID.fullmatch, words)):
        raise StartError("the id of a message is a number")
    return room, words


def _way(values: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """How the server is asked. Raises StartError."""
    url, unix, token_file = values.pop("url"), values.pop("unix"), values.pop("token_file")
    if url is not None and unix is not None:
        raise StartError("--url and --unix exclude each other: give the one way to the server")
    if url is None and unix is None:
        unix = value_of(_ADMIN_SOCKET, None, environ)
    place = Place(unix=unix) if unix is not None else url or DEFAULT_PLACE
    if values["ca"] is not None and not place.secure:
        raise StartError("--ca means nothing without TLS: give an https:// address by --url, or leave it out")
    token = _token(token_file, environ)
    if unix is not None and token is None and values["username"] is None:
        values["username"] = OPERATOR
    return {**values, "place": place, "token": token}


def _token(token_file: str | None, environ: Mapping[str, str]) -> str | None:
    if token_file is not None:
        return token_of_file(token_file)
    value = environ.get(VARIABLE, "").strip()
    return token_of_variable(value) if value else None


# Running

Lines = Iterator[str]


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Carry out a command, and return the exit code. Raises StartError."""
    asked = read_admin(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return 0
    client = Client(asked.place, token=asked.token, username=asked.username, ca=asked.ca)
    try:
        with closing(client):
            for line in _COMMANDS[asked.command](client, asked):
                if not print_out(line + "\n"):
                    break
    except Refused as refused:
        print_error(str(refused))
        return REFUSED
    except Unreachable as error:
        print_error(str(error))
        return UNREACHABLE
    return 0


def _path(asked: AdminSettings, *rest: str) -> str:
    return "/".join(["/rooms", quote(asked.room, safe=""), *rest])


def _key() -> str:
    return secrets.token_urlsafe(12)


def _list_rooms(client: Client, asked: AdminSettings) -> Lines:
    rows = []
    for room in _pages(client, "/rooms", "rooms", lambda room: {"after": _get(room, "room", str)}):
        if asked.as_json:
            yield json.dumps(room)
            continue
        said = _get(room, "last_ts", int) if "last_ts" in room else None
        rows.append((
            _get(room, "room", str),
            str(_get(room, "members", int)),
            str(_get(room, "last_id", int)),
            "–" if said is None else _time(said),  # noqa: RUF001
        ))  # fmt: skip
    if not asked.as_json:
        yield from _table(("ROOM", "MEMBERS", "LAST ID", "LAST TIME"), rows)


def _list_members(client: Client, asked: AdminSettings) -> Lines:
    answer = client.ask("GET", _path(asked, "members"))
    names = _get(answer, "members", list)
    if asked.as_json:
        yield json.dumps(answer)
        return
    yield from (_shown(name) for name in names)


def _list_sanctions(client: Client, asked: AdminSettings) -> Lines:
    answer = client.ask("GET", _path(asked, "moderation"), {"all": "true"} if asked.past else None)
    if asked.as_json:
        yield json.dumps(answer)
        return
    rows = [_sanction_row(each) for each in _get(answer, "sanctions", list)]
    yield from _table(("ACTION", "NAME", "BY", "UNTIL", "REASON"), rows)
    if asked.past:
        past = [(_time(_get(each, "ts", int)), *_sanction_row(each)) for each in _get(answer, "past", list)]
        yield ""
        yield from _table(("TIME", "ACTION", "NAME", "BY", "UNTIL", "REASON"), past)


def _sanction_row(found: Mapping[str, Any]) -> tuple[str, ...]:
    action = _get(found, "action", str)
    end = _time(_get(found, "until", int)) if "until" in found else _WITHOUT_END if action in LASTING else ""
    reason = _get(found, "reason", str) if "reason" in found else ""
    return action, _get(found, "username", str), _get(found, "by", str), end, reason


def _moderate(client: Client, asked: AdminSettings) -> Lines:
    action, name = Action(asked.command), asked.words[0]
    body: dict[str, object] = {"action": asked.command, "username": name}
    if asked.seconds is not None:
        body["seconds"] = asked.seconds
    if asked.reason:
        body["reason"] = asked.reason
    entry = client.ask("POST", _path(asked, "moderation"), body=body, key=_key())
    if asked.as_json:
        yield json.dumps(entry)
        return
    where = f"{escape(name)} in {escape(asked.room)}"
    if action in TAKES_BACK and "id" not in entry:
        yield f"nothing to do: {escape(name)} {_AS_IT_WAS[action]} in {escape(asked.room)}"
        return
    data = _get(entry, "data", dict)
    end = f" until {_time(_get(data, 'until', int))}" if "until" in data else ""
    yield f"{DONE[action]} {where}{end} (id {_get(entry, 'id', int)})"


def _say(client: Client, asked: AdminSettings) -> Lines:
    text = asked.words[0] if asked.words[0] != "-" else _standard_input()
    answer = client.ask("POST", _path(asked, "messages"), body={"text": text}, key=_key())
    done = f"said in {escape(asked.room)} (id {_get(answer, 'id', int)})"
    yield json.dumps(answer) if asked.as_json else done


def _standard_input() -> str:
    content = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise StartError("standard input is longer than any text may be")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise StartError("standard input is not UTF-8") from None


def _delete(client: Client, asked: AdminSettings) -> Lines:
    for number in asked.words:
        entry = client.ask("DELETE", _path(asked, "messages", number), key=_key())
        if asked.as_json:
            yield json.dumps(entry)
            continue
        again = " already" if entry.get("duplicate") is True else ""
        yield f"{number} is deleted{again} (id {_get(entry, 'id', int)})"


def _export(client: Client, asked: AdminSettings) -> Lines:
    """Write all messages that there are by now, as they are when their page is read."""
    from chatroom import transfer  # noqa: PLC0415  (the other commands don't need it)
    from chatroom.protocol import events, roomfile  # noqa: PLC0415

    path = _path(asked, "messages")
    newest = [_message(each) for each in _get(client.ask("GET", path, {"limit": 1}), "messages", list)]
    if not newest:
        raise Refused(404, f"there are no messages in room {asked.room}")
    last, count = newest[0].id, 0
    with stopping_between_steps() as check, transfer.writing(asked.output, check) as write:
        found = _pages(client, path, "messages", lambda each: {"after": _get(each, "id", int)}, {"after": 0})
        for message in takewhile(lambda message: message.id <= last, map(_message, found)):
            check()
            line = events.record(asked.room, message) + b"\n"
            if not count:
                head = roomfile.Head(asked.room, "messages", None, message.id, last)
                line = roomfile.head_line(head) + b"\n" + line
            if not write(line):
                return
            count += 1
        write(roomfile.end_line(asked.room, _sanctions(client, asked)) + b"\n")
    if asked.output is not None:
        print_error(transfer.exported(count, "message", asked.room, asked.output))
    yield from ()


def _message(found: object) -> Message:
    """A message in a page of history. Raises Unreachable."""
    if not isinstance(found, dict):
        raise _strange()
    number, ts = _get(found, "id", int), _get(found, "ts", int)
    username, text = _get(found, "username", str), _get(found, "text", str)
    cid = _get(found, "cid", str) if "cid" in found else None
    edited, deleted = (_get(found, name, int) if name in found else None for name in ("edited", "deleted"))
    return Message(number, ts, username, text, cid, edited, deleted)


def _sanctions(client: Client, asked: AdminSettings) -> tuple[Sanction, ...] | None:
    """Those in force; None if who asks may not know them."""
    try:
        found = _get(client.ask("GET", _path(asked, "moderation")), "sanctions", list)
    except Refused:
        return None
    try:
        return tuple(
            Sanction(
                Action(_get(each, "action", str)),
                _get(each, "username", str),
                _get(each, "by", str),
                _get(each, "until", int) if "until" in each else None,
                _get(each, "reason", str) if "reason" in each else "",
            )
            for each in found
        )
    except (ValueError, TypeError):
        raise _strange() from None


_COMMANDS: dict[str, Callable[[Client, AdminSettings], Lines]] = {
    "rooms": _list_rooms,
    "who": _list_members,
    "sanctions": _list_sanctions,
    **{str(action): _moderate for action in Action},
    "say": _say,
    "delete": _delete,
    "export": _export,
}


def _pages(
    client: Client,
    path: str,
    name: str,
    behind: Callable[[Mapping[str, Any]], dict[str, str | int]],
    query: Mapping[str, str | int] | None = None,
) -> Iterator[Mapping[str, Any]]:
    """All things in a list that comes by pages; `behind` is the query for those behind one of them."""
    query = {"limit": PAGE, **(query or {})}
    while True:
        answer = client.ask("GET", path, query)
        found = _get(answer, name, list)
        for each in found:
            if not isinstance(each, dict):
                raise _strange()
            yield each
        more = _get(answer, "more", bool)
        if not (found and more):
            return
        query |= behind(found[-1])


# Answers

Value = TypeVar("Value")


def _get(found: Mapping[str, Any], name: str, kind: type[Value]) -> Value:
    """A member of an answer. Raises Unreachable if there is none of this kind."""
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, kind):
        raise _strange()
    return value


def _strange() -> Unreachable:
    return Unreachable("the server gives an answer that this version doesn't understand")


# What people see


def _time(milliseconds: int) -> str:
    """A time of the server, in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(milliseconds / 1000))
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def _shown(text: object) -> str:
    return escape(text) if isinstance(text, str) else escape(json.dumps(text))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """Aligned lines; columns of numbers are aligned at their end. Without rows there is no line."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    if not shown:
        return
    lines = [list(heads), *shown]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    numeric = [all(cell.isdecimal() for cell in column) for column in zip(*shown, strict=True)]
    for line in lines:
        cells = []
        for cell, width, right in zip(line, widths, numeric, strict=True):
            space = " " * (width - _width(cell))
            cells.append(space + cell if right else cell + space)
        yield "  ".join(cells).rstrip()


def _width(text: str) -> int:
    """About the columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
