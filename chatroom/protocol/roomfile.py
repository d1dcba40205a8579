"""A room as a file of lines: what `export` writes and `import` reads.

    {"event":"room","data":{"format":1,"entries":"all","room":"general","epoch":"…","first":1,"last":3}}
    {"event":"message","data":{…},"room":"general","id":1,"ts":…}
    …
    {"event":"sanctions","data":{"sanctions":[…]},"room":"general"}

Owns the form of the file, and what is judged of one line. Rules:

1. The first line says what the file is. Then comes each record, in the order of ids, as the frame that
   members get. The last line has the sanctions in force, so that a file that was cut short is recognized.
2. `entries` is `all`, where every record from `first` to `last` is there; or `messages`, where only messages
   are, as a page of history shows them.
3. A line is judged by the rules of the server for names, texts and `cid`s. Members of an object that aren't
   known are ignored, as clients do it. A fault is a ValueError with a sentence, which repeats nothing of the
   line but ids.
4. An Edited or a Deleted comes out with 0 as `replaces`: a frame doesn't say what it replaced.

It doesn't know files, nor whether a change fits the message that it is about.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from chatroom.core.jsontext import RepeatedKey, decoder
from chatroom.core.messages import Deleted, Edited, Message, Moderated, Record
from chatroom.core.names import clean_room, clean_username
from chatroom.core.sanctions import LASTING, MAX_SANCTIONS, Action, Sanction
from chatroom.protocol import events
from chatroom.protocol.codec import MAX_CID, MAX_REASON

FORMAT = 1
_MOST = 2**53 - 1
"""The largest integer that every reader of JSON has."""
_BESIDE_TEXT, _BYTES_OF_CHAR = 2 * 1024 * 1024, 12
_DECODER = decoder()

Entries = Literal["all", "messages"]


class Head(NamedTuple):
    """The first line. The records of the file have ids from `first` to `last`; none where first > last."""

    room: str
    entries: Entries
    epoch: str | None
    first: int
    last: int


class End(NamedTuple):
    """The last line: the sanctions in force; none if whoever wrote the file might not know them."""

    sanctions: tuple[Sanction, ...]


def longest_line(max_text: int) -> int:
    """The bytes that a line may have, with texts of `max_text` characters."""
    return _BESIDE_TEXT + _BYTES_OF_CHAR * max_text


# Writing


def head_line(head: Head) -> bytes:
    """The first line of a file."""
    data = {
        "format": FORMAT,
        "entries": head.entries,
        "room": head.room,
        "epoch": head.epoch,
        "first": head.first,
        "last": head.last,
    }
    return json.dumps({"event": "room", "data": data}, ensure_ascii=False, separators=(",", ":")).encode()


def end_line(room: str, sanctions: tuple[Sanction, ...] | None) -> bytes:
    """The last line of a file; None: they aren't known."""
    if sanctions is None:
        return f'{{"event":"sanctions","data":{{}},"room":{events.quoted(room)}}}'.encode()
    return events.sanctions(room, sanctions, None, None)


# Reading


class Reader:
    """Reads a file line by line."""

    def __init__(self, max_text: int) -> None:
        self._max_text = max_text
        self._last = 0
        self._head: Head | None = None
        self._ended = False

    def read(self, line: bytes) -> Head | Record | End:
        """What a line says. Raises ValueError."""
        if len(line) > (most := longest_line(self._max_text)):
            raise ValueError(f"it is longer than {most:,} bytes")
        frame = _frame(line)
        event, data = frame.get("event"), frame.get("data")
        if not isinstance(data, dict):
            raise ValueError("its data is no object")  # noqa: TRY004  (the file's fault)
        if self._head is None:
            if event != "room":
                raise ValueError("the first line of an export has the event room")
            self._head = head = _head(data)
            self._last = head.first - 1
            return head
        if self._ended:
            raise ValueError("the sanctions are the last line of an export")
        if frame.get("room", self._head.room) != self._head.room:
            raise ValueError("it is of another room than the first line")
        if event == "sanctions":
            self._ended = True
            return self._end(self._head, data)
        return self._record(self._head, event, data, frame)

    def finish(self) -> None:
        """The file is at its end. Raises ValueError if it should not be."""
        if self._head is None:
            raise ValueError("it has no first line")
        if not self._ended:
            raise ValueError("it has no last line with the sanctions: it was cut short")

    def _end(self, head: Head, data: dict[str, Any]) -> End:
        if head.entries == "all" and self._last != head.last:
            raise ValueError(f"the record {self._last + 1} is missing")
        found = data.get("sanctions", [])
        if not isinstance(found, list) or len(found) > MAX_SANCTIONS:
            raise ValueError(f"sanctions must be a list of at most {MAX_SANCTIONS}")
        sanctions = tuple(_sanction(each) for each in found)
        if len({each[:2] for each in sanctions}) < len(sanctions):
            raise ValueError("the same sanction is there twice")
        return End(sanctions)

    def _record(self, head: Head, event: object, data: dict[str, Any], frame: dict[str, Any]) -> Record:
        number, ts = _whole(frame, "id", least=1), _whole(frame, "ts")
        if not self._last < number <= head.last:
            raise ValueError(f"after {self._last} the id {number} makes no sense")
        if head.entries == "all" and number != self._last + 1:
            raise ValueError(f"the record {self._last + 1} is missing")
        cid = _cid(frame)
        if event != "message" and head.entries == "messages":
            raise ValueError("by the first line there are only messages")
        match event:
            case "message":
                record: Record = self._message(number, ts, cid, data, frame)
            case "edited":
                record = self._edited(number, ts, cid, data)
            case "deleted":
                author, by = _name(data, "username"), _name(data, "by")
                record = Deleted(number, ts, by, "", cid, _about(data, number), author, 0)
            case "moderated":
                record = _moderated(number, ts, cid, data)
            case _:
                raise ValueError("its event is none of message, edited, deleted, moderated, sanctions")
        self._last = number
        return record

    def _message(
        self, number: int, ts: int, cid: str | None, data: dict[str, Any], frame: dict[str, Any]
    ) -> Message:
        edited = _whole(frame, "edited", least=number + 1) if "edited" in frame else None
        deleted = _whole(frame, "deleted", least=number + 1) if "deleted" in frame else None
        text = self._text(data)
        if (text == "") != (deleted is not None):
            raise ValueError("its text is empty" if deleted is None else "it is deleted, but has a text")
        return Message(number, ts, _name(data, "username"), text, cid, edited, deleted)

    def _edited(self, number: int, ts: int, cid: str | None, data: dict[str, Any]) -> Edited:
        author, by = _name(data, "username"), _name(data, "by")
        if author != by:
            raise ValueError("nobody edits another one's message")
        return Edited(number, ts, by, self._text(data), cid, _about(data, number), 0)

    def _text(self, data: dict[str, Any]) -> str:
        text = _string(data, "text").strip()
        if len(text) > self._max_text:
            raise ValueError(f"its text is longer than {self._max_text} characters (see --max-text)")
        return text


def _frame(line: bytes) -> dict[str, Any]:
    try:
        frame = _DECODER.decode(line.decode())
        if b"\\u" in line:
            json.dumps(frame, ensure_ascii=False).encode()  # a lone surrogate can't be
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not text") from None
    except RepeatedKey:
        raise ValueError("a key is given twice") from None
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(frame, dict):
        raise ValueError("it is no object")  # noqa: TRY004  (the file's fault)
    return frame


def _head(data: dict[str, Any]) -> Head:
    if data.get("format") != FORMAT:
        raise ValueError(f"it is of another format than {FORMAT}, which this version knows")
    entries = data.get("entries")
    if entries not in ("all", "messages"):
        raise ValueError("its entries are neither all nor messages")
    first, last = _whole(data, "first", least=1), _whole(data, "last")
    if first > last + 1:
        raise ValueError("its first id is beyond the last one")
    epoch = data.get("epoch")
    if not isinstance(epoch, str | None):
        raise ValueError("its epoch is no string")  # noqa: TRY004  (the file's fault)
    try:
        return Head(clean_room(_string(data, "room")), entries, epoch, first, last)
    except ValueError as error:
        raise ValueError(f"its room: {error}") from None


def _moderated(number: int, ts: int, cid: str | None, data: dict[str, Any]) -> Moderated:
    target, by, until, reason = _judged(data)
    try:
        action = Action(_string(data, "action"))
    except ValueError:
        raise ValueError(f"its action is none of {', '.join(Action)}") from None
    if until is not None and action not in LASTING:
        raise ValueError("such an action has no end")
    return Moderated(number, ts, by, reason, cid, action, target, until)


def _sanction(data: object) -> Sanction:
    if not isinstance(data, dict):
        raise ValueError("a sanction is no object")  # noqa: TRY004  (the file's fault)
    target, by, until, reason = _judged(data)
    action = _string(data, "action")
    if action not in LASTING:
        raise ValueError("a sanction is neither a mute nor a ban")
    return Sanction(Action(action), target, by, until, reason)


def _judged(data: dict[str, Any]) -> tuple[str, str, int | None, str]:
    """Against whom, by whom, until when, and why."""
    reason = " ".join(_string(data, "reason", "").split())
    if len(reason.encode()) > MAX_REASON:
        raise ValueError(f"its reason is longer than {MAX_REASON} bytes")
    until = _whole(data, "until") if "until" in data else None
    return _name(data, "username"), _name(data, "by"), until, reason


def _about(data: dict[str, Any], number: int) -> int:
    about = _whole(data, "id", least=1)
    if about >= number:
        raise ValueError("it changes what comes later")
    return about


def _name(data: dict[str, Any], field: str) -> str:
    name = _string(data, field)
    try:
        return clean_username(name)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _cid(frame: dict[str, Any]) -> str | None:
    if "cid" not in frame:
        return None
    cid = _string(frame, "cid")
    if not 1 <= len(cid) <= MAX_CID:
        raise ValueError(f"cid must be a string of 1 to {MAX_CID} characters")
    return cid


def _string(data: Mapping[str, Any], field: str, default: str | None = None) -> str:
    value = data.get(field, default)
    if not isinstance(value, str):
        raise ValueError(f"{field} must be a string")  # noqa: TRY004  (the file's fault)
    return value


def _whole(data: Mapping[str, Any], field: str, least: int = 0) -> int:
    value = data.get(field)
    if type(value) is not int or not least <= value <= _MOST:
        raise ValueError(f"{field} must be an integer of at least {least}")
    return value
