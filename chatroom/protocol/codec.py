"""Commands: what a client may ask for, and the only place where a client's JSON is read.

1. A command is a frozen value, and only this module makes one from JSON. Every command carries the `cid` that
   its one answer must repeat, or None.
2. Whatever the text, the result is a command, None (a message without words), or CommandError.
3. Syntax is judged before shape, and shape before meaning: `bad_json`, then `bad_data` for what stands twice
   or can't be UTF-8, then `bad_event`, then `cid`, then `data`.
4. Every error but `bad_json` carries the `cid`, if it stands once at the top level and is valid.
5. Nothing of the raw input comes back in an error but the event's name, cut to 64 characters.
6. A message in its plain shape is read by one expression, in a third of the time. `decode_carefully` judges
   everything else, and whatever is wrong with a plain message. It gives the same result for any text.

It doesn't know who asks, nor whether they may.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from chatroom.core.errors import CommandError, ErrorCode
from chatroom.core.jsontext import RepeatedKey, decoder
from chatroom.core.names import clean_room, clean_username
from chatroom.core.sanctions import Action

# Commands


class Post(NamedTuple):
    """Post `text` (stripped, within the limit) in the current room."""

    text: str
    cid: str | None


@dataclass(frozen=True, slots=True)
class SwitchRoom:
    """Leave the current room for `room`, resuming after id `since` of history `epoch` if given."""

    room: str
    since: int | None
    epoch: str | None
    cid: str | None


@dataclass(frozen=True, slots=True)
class Typing:
    """The user has begun (`active`) or stopped typing."""

    active: bool
    cid: str | None


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """Read at most `limit` stored messages with ids below `before`, or above `after`, or the newest."""

    before: int | None
    after: int | None
    limit: int
    cid: str | None


@dataclass(frozen=True, slots=True)
class ListMembers:
    """List the members of the current room."""

    cid: str | None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Renew the connection with a fresh token for the same username."""

    token: str
    cid: str | None

    def __repr__(self) -> str:
        return "Authenticate(token=…)"


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a `pong`."""

    cid: str | None


@dataclass(frozen=True, slots=True)
class EditMessage:
    """Replace the text of the message `id` by `text` (stripped, within the limit)."""

    id: int
    text: str
    cid: str | None


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """Delete the message `id`."""

    id: int
    cid: str | None


@dataclass(frozen=True, slots=True)
class ModerateUser:
    """Take an action against a username in the current room, for so many seconds (None: without end)."""

    action: Action
    username: str
    seconds: int | None
    reason: str
    cid: str | None


@dataclass(frozen=True, slots=True)
class ListSanctions:
    """List the sanctions in force in the current room; with `past` also what moderators have done."""

    past: bool
    cid: str | None


@dataclass(frozen=True, slots=True)
class ListRooms:
    """List at most `limit` rooms that may be read, those behind `after` in the list, or the first ones."""

    after: str | None
    limit: int
    cid: str | None


@dataclass(frozen=True, slots=True)
class FollowRooms:
    """Be told of the activity of these rooms, and of no others."""

    rooms: tuple[str, ...]
    cid: str | None


Command = (
    Post
    | EditMessage
    | DeleteMessage
    | ModerateUser
    | ListSanctions
    | ListRooms
    | FollowRooms
    | SwitchRoom
    | Typing
    | ReadHistory
    | ListMembers
    | Authenticate
    | Ping
)


# From text to command

MAX_DEPTH = 16
"""Objects and lists that may stand in each other."""
MAX_CID = 64
"""Characters of a `cid`."""
MAX_EVENT_ECHO = 64
"""Characters of an unknown event's name that the error repeats."""
DEFAULT_ROOM = "general"
DEFAULT_PAGE = 50
MAX_PAGE = 200
"""Messages of a page of history."""

MAX_REASON = 100
"""Bytes of a moderator's reason, in UTF-8: a close frame has room for 123."""
MAX_FOLLOWED = 50
"""Rooms that a client may follow."""
MAX_SANCTION_SECONDS = 100 * 366 * 24 * 3600

_FIELDS = frozenset({
    "event", "data", "cid", "text", "room", "since", "epoch", "active", "before", "after", "limit", "token",
    "id", "action", "username", "seconds", "reason", "all", "rooms",
})  # fmt: skip
_WHITE_SPACE = " \t\n\r"
"""What JSON allows around a value (RFC 8259, section 2)."""
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


_CID = rf'"cid": ?"([^"\\\x00-\x1f\ud800-\udfff]{{1,{MAX_CID}}}+)"'
_TEXT = r'"text": ?"([^"\\\x00-\x1f]*+)"'
PLAIN_MESSAGE = re.compile(
    rf'\{{(?:{_CID}, ?)?+"event": ?"message", ?"data": ?\{{{_TEXT}\}}(?:, ?{_CID})?+\}}'
)
"""A message as JSON.stringify and json.dumps write it, without escapes; the `cid` may stand before or behind.

No part of the expression is ever tried in a second way, so any text is judged in linear time.
"""
_plain_message = PLAIN_MESSAGE.fullmatch


class _Pairs(list[tuple[str, Any]]):
    """An object read without losing repeated keys."""


_written = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_FAST = decoder()
_CAREFUL = decoder(_Pairs)


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return [item for _, item in value] if isinstance(value, _Pairs) else value


def _too_deep(value: object, allowed: int) -> bool:
    """Whether more than `allowed` objects and lists stand in each other. Counts by levels, which is quick."""
    level = [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        if not allowed:
            return True
        allowed -= 1
        level = [item for each in level for item in _items(each)]
    return False


def _parse(reader: json.JSONDecoder, text: str) -> Any:
    """The JSON value of `text`.

    Raises CommandError (`bad_json`); RepeatedKey where `reader` looks for that.
    """
    text = text.strip(_WHITE_SPACE)
    try:
        value, end = reader.raw_decode(text)
    except (ValueError, RecursionError):
        raise CommandError(ErrorCode.BAD_JSON, "Invalid JSON") from None
    deep = text.count("{") + text.count("[") > MAX_DEPTH and _too_deep(value, MAX_DEPTH)
    if deep or end != len(text):
        raise CommandError(ErrorCode.BAD_JSON, "Invalid JSON")
    return value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _valid_cid(cid: object) -> str | None:
    return cid if isinstance(cid, str) and 1 <= len(cid) <= MAX_CID and _is_encodable(cid) else None


def _known(key: str) -> str:
    """The key, if it is one that the protocol knows: others are raw input (rule 5)."""
    return key if key in _FIELDS else "frame"


def _bad_data(message: str, field: str, cid: str | None) -> CommandError:
    return CommandError(ErrorCode.BAD_DATA, message, field=field, cid=cid)


def _repeated_key(text: str) -> CommandError:
    """The answer to a frame with a key given twice. Rule 4 needs the second, careful reading."""
    frame = _parse(_CAREFUL, text)
    if not isinstance(frame, _Pairs):
        return _bad_data("Not an object", "frame", None)
    cids = [value for key, value in frame if key == "cid"]
    cid = _valid_cid(cids[0]) if len(cids) == 1 else None
    return _bad_data("A key is given twice", _known(_find_repeated(frame)), cid)


def _find_repeated(value: object) -> str:
    """The first key that stands twice in one object, cut short, or an empty string."""
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            if key in seen:
                return key
            seen.add(key)
            if found := _find_repeated(item):
                return found
    elif isinstance(value, list):
        for item in value:
            if found := _find_repeated(item):
                return found
    return ""


def _find_lone_surrogate(value: object, field: str) -> str:
    """The name of the member whose key or string can't be written as UTF-8; else an empty string."""
    if isinstance(value, str):
        return "" if _is_encodable(value) else field
    if isinstance(value, dict):
        for key, item in value.items():
            if not _is_encodable(key):
                return field
            if found := _find_lone_surrogate(item, _known(key)):
                return found
    elif isinstance(value, list):
        for item in value:
            if found := _find_lone_surrogate(item, field):
                return found
    return ""


def decode(text: str, *, max_text: int) -> Command | None:
    """The command in a text frame; None for a message without words and without a `cid`.

    `max_text` is the length of the longest message, in code points. Raises CommandError.
    """
    if plain := _plain_message(text):
        cid, said, cid_behind = plain.groups()
        said = said.strip()
        if said and len(said) <= max_text and not (cid and cid_behind):
            return Post(said, cid or cid_behind)
    return decode_carefully(text, max_text)


def decode_carefully(text: str, max_text: int) -> Command | None:
    """The same as `decode`, for any text: the one judge of what a frame is. Raises CommandError."""
    frame, cid = _object(text)
    event = frame.get("event")
    reader = _READERS.get(event) if isinstance(event, str) else None
    if reader is None:
        name = event[:MAX_EVENT_ECHO] if isinstance(event, str) else "(none)"
        raise CommandError(ErrorCode.BAD_EVENT, f"Unknown event: {name}", cid=cid)
    _check_cid(frame, cid)
    data = frame.get("data", {})
    if not isinstance(data, dict):
        raise _bad_data("data must be an object", "data", cid)
    return reader(data, cid, max_text)


def decode_object(text: str) -> tuple[dict[str, Any], str | None]:
    """The members of a JSON object by the same rules, and its `cid`. Raises CommandError.

    It is the `data` of a command, with the `cid` among its members, as a body by HTTP has it.
    """
    data, cid = _object(text)
    _check_cid(data, cid)
    return data, cid


def read_command(event: str, data: dict[str, Any], cid: str | None, *, max_text: int) -> Command | None:
    """The command of one of COMMANDS. Raises CommandError."""
    return _READERS[event](data, cid, max_text)


def _object(text: str) -> tuple[dict[str, Any], str | None]:
    """The JSON object in `text`, and its `cid` if that is valid. Raises CommandError."""
    try:
        frame = _parse(_FAST, text)
    except RepeatedKey:
        raise _repeated_key(text) from None
    if not isinstance(frame, dict):
        raise _bad_data("Not an object", "frame", None)
    cid = _valid_cid(frame.get("cid"))
    escapes = "\\" in text and _ESCAPED_SURROGATE.search(text)
    if escapes and not _is_encodable(_written(frame)):
        raise _bad_data("A lone surrogate is not text", _find_lone_surrogate(frame, "frame"), cid)
    return frame, cid


def _check_cid(frame: dict[str, Any], cid: str | None) -> None:
    if "cid" in frame and cid is None:
        raise _bad_data(f"cid must be a string of 1 to {MAX_CID} characters", "cid", None)


def _string(data: dict[str, Any], field: str, default: str, cid: str | None) -> str:
    value = data.get(field, default)
    if not isinstance(value, str):
        raise _bad_data(f"{field} must be a string", field, cid)
    return value


def _count(data: dict[str, Any], field: str, cid: str | None, least: int = 0) -> int | None:
    """An integer member of at least `least`; None if it is left out. Raises CommandError (`bad_data`)."""
    if field not in data:
        return None
    value = data[field]
    if type(value) is not int or value < least:
        raise _bad_data(f"{field} must be an integer of at least {least}", field, cid)
    return value


def _read_message(data: dict[str, Any], cid: str | None, max_text: int) -> Post | None:
    text = _text(data, cid, max_text)
    if text:
        return Post(text, cid)
    if cid is None:
        return None
    raise _bad_data("text is empty", "text", cid)


def _text(data: dict[str, Any], cid: str | None, max_text: int) -> str:
    text = _string(data, "text", "", cid).strip()
    if len(text) > max_text:
        raise CommandError(
            ErrorCode.TOO_LONG, f"text is longer than {max_text} characters", limit=max_text, cid=cid
        )
    return text


def _read_edit(data: dict[str, Any], cid: str | None, max_text: int) -> EditMessage:
    number = _id(data, cid)
    text = _text(data, cid, max_text)
    if not text:
        raise _bad_data("text is empty", "text", cid)
    return EditMessage(number, text, cid)


def _read_delete(data: dict[str, Any], cid: str | None, _max_text: int) -> DeleteMessage:
    return DeleteMessage(_id(data, cid), cid)


def _id(data: dict[str, Any], cid: str | None) -> int:
    number = _count(data, "id", cid, least=1)
    if number is None:
        raise _bad_data("id is missing", "id", cid)
    return number


def _read_moderate(data: dict[str, Any], cid: str | None, _max_text: int) -> ModerateUser:
    try:
        action = Action(_string(data, "action", "", cid))
    except ValueError:
        raise _bad_data(f"action must be one of {', '.join(Action)}", "action", cid) from None
    try:
        username = clean_username(_string(data, "username", "", cid))
    except ValueError as error:
        raise _bad_data(f"username: {error}", "username", cid) from None
    seconds = _count(data, "seconds", cid, least=1)
    if seconds is not None and seconds > MAX_SANCTION_SECONDS:
        raise _bad_data(f"seconds must be at most {MAX_SANCTION_SECONDS}", "seconds", cid)
    reason = " ".join(_string(data, "reason", "", cid).split())
    if len(reason.encode()) > MAX_REASON:
        raise CommandError(
            ErrorCode.TOO_LONG, f"reason is longer than {MAX_REASON} bytes", limit=MAX_REASON, cid=cid
        )
    return ModerateUser(action, username, seconds, reason, cid)


def _read_sanctions(data: dict[str, Any], cid: str | None, _max_text: int) -> ListSanctions:
    past = data.get("all", False)
    if not isinstance(past, bool):
        raise _bad_data("all must be true or false", "all", cid)
    return ListSanctions(past, cid)


def _read_switch(data: dict[str, Any], cid: str | None, _max_text: int) -> SwitchRoom:
    room = _room(_string(data, "room", DEFAULT_ROOM, cid), "room", cid)
    since = _count(data, "since", cid)
    epoch = _string(data, "epoch", "", cid) if "epoch" in data else None
    if since is not None and epoch is None:
        raise _bad_data("since needs the epoch that was told with it", "epoch", cid)
    return SwitchRoom(room, since, epoch if since is not None else None, cid)


def _room(name: str, field: str, cid: str | None) -> str:
    """The clean name of a room. Raises CommandError (`bad_data`)."""
    try:
        return clean_room(name)
    except ValueError as error:
        raise _bad_data(f"{field}: {error}", field, cid) from None


def _read_rooms(data: dict[str, Any], cid: str | None, _max_text: int) -> ListRooms:
    after = _room(_string(data, "after", "", cid), "after", cid) if "after" in data else None
    limit = _count(data, "limit", cid, least=1)
    return ListRooms(after, min(DEFAULT_PAGE if limit is None else limit, MAX_PAGE), cid)


def _read_follow(data: dict[str, Any], cid: str | None, _max_text: int) -> FollowRooms:
    names = data.get("rooms")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _bad_data("rooms must be a list of names", "rooms", cid)
    if len(names) > MAX_FOLLOWED:
        raise _bad_data(f"rooms must be {MAX_FOLLOWED} at most", "rooms", cid)
    return FollowRooms(tuple(dict.fromkeys(_room(name, "rooms", cid) for name in names)), cid)


def _read_typing(data: dict[str, Any], cid: str | None, _max_text: int) -> Typing:
    active = data.get("active")
    if not isinstance(active, bool):
        raise _bad_data("active must be true or false", "active", cid)
    return Typing(active, cid)


def _read_history(data: dict[str, Any], cid: str | None, _max_text: int) -> ReadHistory:
    before, after = _count(data, "before", cid), _count(data, "after", cid)
    if before is not None and after is not None:
        raise _bad_data("before and after exclude each other", "after", cid)
    limit = _count(data, "limit", cid, least=1)
    return ReadHistory(before, after, min(DEFAULT_PAGE if limit is None else limit, MAX_PAGE), cid)


def _read_auth(data: dict[str, Any], cid: str | None, _max_text: int) -> Authenticate:
    if "token" not in data:
        raise _bad_data("token is missing", "token", cid)
    return Authenticate(_string(data, "token", "", cid), cid)


_READERS: dict[str, Callable[[dict[str, Any], str | None, int], Command | None]] = {
    "message": _read_message,
    "edit": _read_edit,
    "delete": _read_delete,
    "moderate": _read_moderate,
    "sanctions": _read_sanctions,
    "switch_room": _read_switch,
    "rooms": _read_rooms,
    "follow": _read_follow,
    "typing": _read_typing,
    "history": _read_history,
    "members": lambda _data, cid, _max_text: ListMembers(cid),
    "auth": _read_auth,
    "ping": lambda _data, cid, _max_text: Ping(cid),
}

COMMANDS = frozenset(_READERS)
"""The events that a client may send."""
