"""Records of a room as lines: for people, and as JSON for programs.

    05:12:33 alice: hello                              a message
    05:12:33 alice: hello! (edited)                    one whose text is another by now
    05:12:33 alice: (deleted)                          one that is gone
    05:12:34 ~ alice waves                             one that begins with /me: what somebody does
    05:12:40 * alice edited 1843: hello!               what became of an earlier one
    05:12:40 * carol deleted 1843 of alice
    05:12:41 * carol muted bob until 06:00:00: flooding
    * records 1844 to 1899 are missing                 what the client says itself; see `gap`, `replaced`

1. A record is the object of its frame, as docs/protocol.md has it; gaps and replaced histories are such
   objects, too. Nothing in it is taken for granted: what isn't of its type is shown as `?`.
2. Of what others have written nothing acts on a terminal (see `printable`). A JSON line is ASCII.
3. Nothing that others have written begins a line: a text of several lines is one line, or is indented.
4. A name has one colour wherever it stands, to be read on a dark and on a light ground. Texts have none.

It doesn't know the time zone, nor how wide a terminal is.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from zlib import crc32

from chatroom.client.frames import whole_number
from chatroom.client.printable import printable, printable_lines
from chatroom.core.sanctions import DONE

Record = Mapping[str, Any]
Clock = Callable[[int], str]
"""The text of a time that is given in milliseconds since 1970 UTC."""

UNKNOWN = "?"
PALETTE = (28, 30, 32, 98, 100, 161, 164, 166)
"""Colours of the 256 that terminals have."""
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_HANGING = 3
"""Columns by which the further lines of a text stand behind the time of the first."""
_YEAR_10000 = 253_402_300_800_000
_DEEPEST = 16
_ACTION = re.compile(r"/me\s+(?=\S)")
"""Its lines have a sign of their own: with a star somebody might make up what a moderator has done."""


# Of the client itself


def gap(room: str, after: int, before: int, *, filled: bool) -> dict[str, Any]:
    """A record that says: those between the ids `after` and `before`, both exclusive, aren't shown.

    `filled`: the messages among them that are still kept come next, as they are now.
    """
    return {
        "event": "gap",
        "data": {"after": after, "before": before, "filled": filled},
        "room": room,
    }


def replaced(room: str, epoch: str) -> dict[str, Any]:
    """A record that says: the room has another history now, of the epoch `epoch`, and ids begin anew."""
    return {"event": "replaced", "data": {}, "room": room, "epoch": epoch}


# For people


class _Sentence(NamedTuple):
    """A record in words: what comes before the text of somebody, the text, and a mark behind it."""

    head: str
    text: str = ""
    mark: str = ""


def text_line(record: Record, *, colour: bool, clock: Clock, end_clock: Clock | None = None) -> str:
    """The record as one line, without its end. `end_clock` gives the time at which a sanction ends."""
    head, text, mark = _sentence(record, colour, end_clock or clock)
    return _joined(_time(record, colour, clock), head, printable(text), _dim(mark, colour))


def screen_lines(record: Record, *, colour: bool, clock: Clock, end_clock: Clock | None = None) -> list[str]:
    """The same as one line for each line of its text. The further ones are indented.

    A screen that breaks a line which is too long for it has to indent the rest, too (rule 3).
    """
    head, text, mark = _sentence(record, colour, end_clock or clock)
    first, *rest = printable_lines(text)
    indent = " " * (len(_time(record, False, clock)) + _HANGING)
    lines = [_joined(_time(record, colour, clock), head, first), *(indent + line for line in rest)]
    lines[-1] = _joined(lines[-1], _dim(mark, colour))
    return lines


def shown_name(name: str, *, colour: bool) -> str:
    """A name, in its colour."""
    if not colour:
        return printable(name)
    number = PALETTE[crc32(name.encode("utf-8", "surrogatepass")) % len(PALETTE)]
    return f"\x1b[38;5;{number}m{printable(name)}{_PLAIN}"


def _sentence(record: Record, colour: bool, end_clock: Clock) -> _Sentence:
    found = record.get("data")
    data: Record = found if isinstance(found, Mapping) else {}

    def name(member: str) -> str:
        value = data.get(member)
        return shown_name(value, colour=colour) if isinstance(value, str) else UNKNOWN

    match record.get("event"):
        case "message":
            head = f"{name('username')}:"
            if "deleted" in record:
                return _Sentence(head, mark="(deleted)")
            text, mark = _text(data.get("text")), "(edited)" if "edited" in record else ""
            if action := _ACTION.match(text):
                return _Sentence(f"~ {name('username')}", text[action.end() :], mark)
            return _Sentence(head, text, mark)
        case "edited":
            text = _text(data.get("text"))
            return _Sentence(_star(f"{name('by')} edited {number_text(data.get('id'))}", text), text)
        case "deleted":
            of = "" if data.get("username") == data.get("by") else f" of {name('username')}"
            return _Sentence(_star(f"{name('by')} deleted {number_text(data.get('id'))}{of}"))
        case "moderated":
            reason = _text(data["reason"]) if "reason" in data else ""
            end = f" until {_moment(data['until'], end_clock)}" if "until" in data else ""
            done = f"{name('by')} {_done(data.get('action'))} {name('username')}{end}"
            return _Sentence(_star(done, reason), reason)
        case "gap":
            return _Sentence(_star(_gap_in_words(data)))
        case "replaced":
            return _Sentence(_star("the history was replaced by another one: ids begin anew"))
        case _:
            return _Sentence(_star("a record that this version doesn't know"))


def _gap_in_words(data: Record) -> str:
    after, before = whole_number(data.get("after")), whole_number(data.get("before"))
    if after is None or before is None or before - after < 2:
        return "records may be missing"
    several = before - after > 2
    which = f"records {after + 1} to {before - 1}" if several else f"record {after + 1}"
    if data.get("filled") is True:
        return f"{which} {'were' if several else 'was'} missed: what is left of the messages comes next"
    return f"{which} {'are' if several else 'is'} missing"


def _done(action: object) -> str:
    if not isinstance(action, str):
        return UNKNOWN
    return DONE.get(action) or printable(action)


def _text(value: object) -> str:
    return value if isinstance(value, str) else UNKNOWN


def number_text(value: object) -> str:
    """An id or a count, as far as it is one."""
    number = whole_number(value)
    return UNKNOWN if number is None else str(number)


def _moment(value: object, clock: Clock) -> str:
    time = whole_number(value)
    return UNKNOWN if time is None or time >= _YEAR_10000 else clock(time)


def _time(record: Record, colour: bool, clock: Clock) -> str:
    """When it was; nothing for what the client says itself."""
    if record.get("event") in ("gap", "replaced"):
        return ""
    return _dim(_moment(record.get("ts"), clock), colour)


def _star(words: str, text: str = "") -> str:
    return f"* {words}:" if text else f"* {words}"


def _dim(text: str, colour: bool) -> str:
    return f"{_DIM}{text}{_PLAIN}" if colour and text else text


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


# For programs


def json_line(record: Record) -> str:
    """The record as one line of JSON in ASCII, without its end: `event` and `data` first, and no spaces."""
    ordered = {name: record[name] for name in ("event", "data") if name in record} | dict(record)
    try:
        return _encoded(ordered)
    except (ValueError, RecursionError):
        return _encoded(_bounded(ordered, _DEEPEST))


def _encoded(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _bounded(value: object, depth: int) -> object:
    """`value` with null for what JSON has no number for, and for what lies too deep."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict() | list() if not depth:
            return None
        case dict():
            return {name: _bounded(each, depth - 1) for name, each in value.items()}
        case list():
            return [_bounded(each, depth - 1) for each in value]
        case _:
            return value
