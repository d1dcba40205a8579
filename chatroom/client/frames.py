"""What a frame of the server says, as far as a client acts on it.

Owns the reading of frames, and the writing of commands. Rules:

1. Nothing of a frame is taken for granted: a member of another type than the protocol gives it is as if it
   weren't there. A text with a lone surrogate is no text: it couldn't be sent back. Events and members that
   aren't known are ignored.
2. A text that is no frame at all is None: then the peer is no chatroom.

It doesn't know in which state a client is.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from chatroom.core.jsontext import decoder

RECORDS = frozenset({"message", "edited", "deleted", "moderated"})
"""The events that are records of the log."""
LONGEST_FRAME = 16 * 1024 * 1024
"""Bytes of the longest frame that a client takes: a list of 10,000 members has 1.3 MB."""
_MOST = 2**53 - 1
_SURROGATES = re.compile("[\ud800-\udfff]")
_DECODER = decoder(dict)


class Frame(NamedTuple):
    """A frame: its event, its `data`, and the whole object as it was sent."""

    event: str
    data: Mapping[str, Any]
    whole: Mapping[str, Any]

    @property
    def id(self) -> int | None:
        """The id of the record; None if this is no record."""
        return whole_number(self.whole.get("id")) if self.event in RECORDS else None

    @property
    def cid(self) -> str | None:
        return text_of(self.whole.get("cid"))

    @property
    def room(self) -> str | None:
        """The room that it is about."""
        return text_of(self.whole.get("room"))

    @property
    def author(self) -> str | None:
        """Whose command a record came from."""
        return text_of(self.data.get("username" if self.event == "message" else "by"))

    @property
    def complaint(self) -> str:
        """The sentence of an `error`."""
        return text_of(self.data.get("message")) or "the server gives no reason"


class Stand(NamedTuple):
    """How a room stands when it is entered: from `welcome` or `switched`. `replay` records follow."""

    room: str
    epoch: str
    last_id: int
    replay: int
    members: tuple[str, ...]

    @property
    def first(self) -> int:
        """The id before the first record that follows."""
        return self.last_id - self.replay


class Limits(NamedTuple):
    """What the server takes: bytes of a frame."""

    frame: int | None


def read(text: str) -> Frame | None:
    """The frame that a text is; None if it is none."""
    try:
        found = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return frame_of(found)


def frame_of(found: object) -> Frame | None:
    """The frame that an object is; None if it is none."""
    if not isinstance(found, dict):
        return None
    event, data = found.get("event"), found.get("data")
    if not isinstance(event, str) or not isinstance(data, dict):
        return None
    return Frame(event, data, found)


def stand(frame: Frame) -> Stand | None:
    """What a `welcome` or `switched` says; None if it makes no sense."""
    welcome = frame.event == "welcome"
    room = text_of((frame.whole if welcome else frame.data).get("room"))
    members = names((frame.data if welcome else frame.whole).get("members"))
    epoch = text_of(frame.whole.get("epoch"))
    last_id, replay = whole_number(frame.whole.get("last_id")), whole_number(frame.whole.get("replay"))
    if room is None or epoch is None or last_id is None or replay is None or replay > last_id:
        return None
    return Stand(room, epoch, last_id, replay, members)


def limits(frame: Frame) -> Limits:
    """The limits that a `welcome` tells."""
    found = frame.whole.get("limits")
    return Limits(whole_number(found.get("frame")) if isinstance(found, dict) else None)


def page(frame: Frame) -> tuple[tuple[Frame, ...], bool]:
    """The messages of a `history`, each as its own frame, and whether there are more.

    What is no message, or out of order, is left out.
    """
    items = frame.data.get("messages")
    found: list[Frame] = []
    last = 0
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and (number := whole_number(item.get("id"))) and number > last:
            found.append(_message(frame, item))
            last = number
    return tuple(found), frame.data.get("more") is True


def _message(frame: Frame, item: Mapping[str, Any]) -> Frame:
    """An item of a page as the frame that a room would get."""
    data = {name: item[name] for name in ("username", "text") if name in item}
    beside = {name: value for name, value in item.items() if name not in data}
    return Frame("message", data, {**beside, "event": "message", "data": data, "room": frame.room})


def names(found: object) -> tuple[str, ...]:
    """A list of names."""
    return tuple(each for each in found if text_of(each) is not None) if isinstance(found, list) else ()


def text_of(found: object) -> str | None:
    """It, if it is a text."""
    return found if isinstance(found, str) and not _SURROGATES.search(found) else None


def whole_number(found: object) -> int | None:
    """It, if it is a whole number from 0 on that every reader of JSON has."""
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MOST else None


def seconds(found: object) -> float:
    """A number of seconds; 0 if it is none."""
    return max(0.0, float(found)) if isinstance(found, int | float) and not isinstance(found, bool) else 0.0


def command(event: str, data: Mapping[str, Any] | None = None, cid: str | None = None) -> str:
    """A command as the text of a frame. A lone surrogate in it is written as an escape: the server says what
    is wrong with it.
    """
    whole: dict[str, Any] = {"event": event}
    if data is not None:
        whole["data"] = data
    if cid is not None:
        whole["cid"] = cid
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    return json.dumps(whole, separators=(",", ":")) if _SURROGATES.search(text) else text
