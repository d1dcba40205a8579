"""Frames as the text of events: which, under which id, and that many streams share it."""

import json
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.messages import Deleted, Edited, Message, Moderated, Record
from chatroom.core.sanctions import Action
from chatroom.protocol import events
from chatroom.protocol.eventtext import COMMENT, EventTexts, event_text, farewell_text, opening_text
from chatroom.websocket.framing import text_frame

EPHEMERA = [
    events.joined("r", "bob"),
    events.left("r", "bob"),
    events.typing("r", "bob", True),
    events.pong(None),
]


def join(payloads: list[bytes]) -> tuple[bytes, tuple[int, ...]]:
    frames = [text_frame(payload) for payload in payloads]
    return b"".join(frames), tuple(accumulate(map(len, frames)))


def parsed(text: bytes) -> list[tuple[str, str]]:
    """What a browser reads: the last id and the data of each event (HTML, section 9.2.6)."""
    found, number, data = [], "", []
    for line in text.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            found.append((number, "\n".join(data)))
            data = []
        elif name == "id":
            number = value
        elif name == "data":
            data.append(value)
    return found


names = st.text(min_size=1, max_size=5)
texts = st.text(st.characters(codec="utf-8"), max_size=300) | st.sampled_from(
    [',"id":9', '"', "\\", "\n\ndata: x\n\nid: 1", "\r", "\u2028", "\x85", "x" * 70_000, '\\","id":5,']
)
cids = st.none() | texts
records = st.one_of(
    st.builds(Message, st.integers(1, 2**62), st.integers(0, 2**42), names, texts, cids),
    st.builds(Edited, st.integers(1, 2**62), st.just(5), names, texts, cids, st.integers(1, 9), st.just(1)),
    st.builds(
        Deleted, st.integers(1, 2**62), st.just(5), names, st.just(""), cids,
        st.integers(1, 9), names, st.just(1),
    ),
    st.builds(
        Moderated, st.integers(1, 2**62), st.just(5), names, texts, cids,
        st.sampled_from(Action), names, st.none() | st.integers(1, 9),
    ),
)  # fmt: skip


@given(st.lists(records | st.sampled_from(EPHEMERA), max_size=6), names)
def test_stored_frames_become_events_under_their_ids(items: list[Record | bytes], room: str) -> None:
    payloads = [item if isinstance(item, bytes) else events.record(room, item) for item in items]
    data, ends = join(payloads)
    text, text_ends = event_text(data, ends, b"ep")
    stored = [
        (item, payload) for item, payload in zip(items, payloads, strict=True) if not isinstance(item, bytes)
    ]
    assert parsed(text) == [(f"ep:{item.id}", payload.decode()) for item, payload in stored]
    assert len(text_ends) == len(ends)
    start = 0
    for item, end in zip(items, text_ends, strict=True):
        assert (end == start) == isinstance(item, bytes)
        assert isinstance(item, bytes) or text[start:end].startswith(b"id: ep:%d\n" % item.id)
        start = end
    assert start == len(text)


def test_the_same_object_is_turned_into_text_once() -> None:
    texts = EventTexts()
    data, ends = join([events.record("r", Message(1, 2, "bob", "hi", None))])
    other = bytes(bytearray(data))
    first = texts.of(data, ends, b"e")
    assert texts.of(data, ends, b"e") is first
    again = texts.of(other, ends, b"e")
    assert again is not first
    assert texts.of(data, ends, b"e") is first
    assert texts.of(other, ends, b"e") is again


def test_what_is_kept_is_bounded() -> None:
    texts = EventTexts(most=10_000)
    objects = [join([events.record("r", Message(n, 2, "bob", "x" * 500, None))]) for n in range(1, 100)]
    for data, ends in objects:
        texts.of(data, ends, b"e")
        assert texts._bytes <= 10_000
    assert 0 < len(texts._kept) < 10
    huge, ends = join([events.record("r", Message(1, 2, "bob", "x" * 20_000, None))])
    assert texts.of(huge, ends, b"e") is texts.of(huge, ends, b"e")
    assert (texts._bytes, len(texts._kept)) == (0, 0)


def test_the_first_event_and_the_last_words() -> None:
    ((number, data),) = parsed(opening_text(b'{"event":"welcome"}', "ep", 5))
    assert (number, json.loads(data)) == ("ep:5", {"event": "welcome"})
    assert farewell_text("no longer\nallowed", 4000) == b": no longer allowed\nretry: 4000\n\n"
    assert parsed(COMMENT) == parsed(farewell_text("x", 1)) == []


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536])
def test_payloads_of_any_length_are_found(size: int) -> None:
    payload = events.record("r", Message(1, 2, "bob", "x" * size, None))
    data, ends = join([payload, payload])
    assert [each for _, each in parsed(event_text(data, ends, b"e").text)] == [payload.decode()] * 2
