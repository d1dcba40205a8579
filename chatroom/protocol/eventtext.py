"""Frames of a room as the text of Server-Sent Events (HTML, section 9.2), for streams.

Owns that text. Rules:

1. A stored record is one event: `id: EPOCH:ID`, and the payload of its frame as `data:`. JSON text as the
   server writes it has no line end within. Frames of what isn't stored are left out.
2. Many streams are given the same frames as one bytes object. It is turned into text once, and the result is
   kept for a while, up to a bound in bytes.
3. The id stands in the frame, behind the room: quotes in a string are escaped, so the last `,"id":` is it.

It doesn't know streams, nor where a frame comes from.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

STORED = tuple(b'{"event":"%b",' % event for event in (b"message", b"edited", b"deleted", b"moderated"))
COMMENT = b":\n\n"
"""Says nothing, and keeps the connection in use."""
_ID = b',"id":'
KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of text that are kept for further streams."""
_COST = 400  # bytes that a text takes beside its own, about


class EventText(NamedTuple):
    """Frames as text: `ends` are the ends of their events in it. A frame that is left out has no bytes."""

    text: bytes
    ends: Sequence[int]


class EventTexts:
    """The texts of the frames that streams were given lately, by the object that holds the frames.

    `last` is the text of `last_data`, the last one that was asked for.
    """

    __slots__ = ("_bytes", "_kept", "_most", "last", "last_data")

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._bytes = 0
        self._kept: OrderedDict[int, tuple[bytes, EventText]] = OrderedDict()
        self.last_data = b""
        self.last = EventText(b"", ())

    def of(self, data: bytes, ends: Sequence[int], epoch: bytes) -> EventText:
        """The frames in `data`, which end at `ends`, as text. All are of one room with that epoch."""
        if data is self.last_data:
            return self.last
        found = self._kept.get(id(data))
        if found is None:
            text = event_text(data, ends, epoch)
            self._keep(data, text)
        else:
            text = found[1]
        self.last_data, self.last = data, text
        return text

    def _keep(self, data: bytes, text: EventText) -> None:
        # The data is kept as well, so no other object can have its id.
        self._kept[id(data)] = (data, text)
        self._bytes += _cost(data, text)
        while self._bytes > self._most:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= _cost(*gone)


def _cost(data: bytes, text: EventText) -> int:
    return len(data) + len(text.text) + 8 * len(text.ends) + _COST


def event_text(data: bytes, ends: Sequence[int], epoch: bytes) -> EventText:
    """The text of whole, unmasked text frames."""
    events: list[bytes] = []
    text_ends: list[int] = []
    start = size = 0
    for end in ends:
        event = _event(payload_of(data, start, end), epoch)
        if event:
            events.append(event)
            size += len(event)
        text_ends.append(size)
        start = end
    return EventText(b"".join(events), tuple(text_ends))


def payload_of(data: bytes, start: int, end: int) -> bytes:
    """The payload of the unmasked frame between these places."""
    short = data[start + 1]
    return data[start + (2 if short < 126 else 4 if short == 126 else 10) : end]


def _event(payload: bytes, epoch: bytes) -> bytes:
    if not payload.startswith(STORED):
        return b""
    start = payload.rindex(_ID) + len(_ID)
    return b"id: %b:%b\ndata: %b\n\n" % (epoch, payload[start : payload.index(b",", start)], payload)


def opening_text(payload: bytes, epoch: str, message_id: int) -> bytes:
    """The first event of a stream: it stands under the id before the first replayed one."""
    return b"id: %b:%d\ndata: %b\n\n" % (epoch.encode(), message_id, payload)


def farewell_text(reason: str, retry_ms: int) -> bytes:
    """The end of a stream: when a reader may come back, and a comment that says why."""
    line = " ".join(reason.split())
    return f": {line}\nretry: {retry_ms}\n\n".encode()
