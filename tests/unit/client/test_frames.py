"""What a client reads of a frame, whatever a server writes into it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.frames import (
    RECORDS,
    Frame,
    command,
    frame_of,
    limits,
    names,
    page,
    read,
    seconds,
    stand,
    text_of,
    whole_number,
)

MOST = 2**53 - 1
EVENTS = (*sorted(RECORDS), "welcome", "switched", "history", "error", "ack", "expiring", "new")
MEMBERS = ("event", "data", "room", "id", "ts", "cid", "code", "username", "epoch", "last_id", "replay")
MORE = ("members", "limits", "frame", "messages", "more", "text", "by", "in", "message", "duplicate")


def json_values() -> st.SearchStrategy[Any]:
    """Any value of JSON, as a text may hold it: lone surrogates and numbers of every size included."""
    texts = st.text(st.characters(exclude_categories=()), max_size=8)
    numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(MEMBERS + MORE) | texts, inner, max_size=6)
        ),
        max_leaves=20,
    )


def objects() -> st.SearchStrategy[dict[str, Any]]:
    """An object that has the members of a frame, with anything in them."""
    beside = {name: json_values() for name in MEMBERS[2:] + MORE}
    return st.fixed_dictionaries(
        {"event": st.sampled_from(EVENTS) | json_values(), "data": json_values()}, optional=beside
    )


def welcome(**members: Any) -> Frame:
    whole = {"event": "welcome", "data": {"members": ["bob"]}, "room": "r", "epoch": "e", "last_id": 5}
    found = frame_of({**whole, "replay": 2, **members})
    assert found is not None
    return found


def history(*items: Any, more: Any = False, **members: Any) -> Frame:
    return Frame("history", {"messages": list(items), "more": more}, {"room": "r", **members})


# Any JSON


@given(objects() | json_values())
def test_whatever_is_sent_is_read_without_an_error(found: Any) -> None:
    frame = read(json.dumps(found))
    assert frame == frame_of(found)
    if frame is None:
        return
    assert isinstance(frame.complaint, str)
    for text in (frame.cid, frame.room, frame.author, frame.complaint):
        assert text is None or text.encode().decode() == text
    assert frame.id is None or (frame.event in RECORDS and 0 <= frame.id <= MOST)
    if (entered := stand(frame)) is not None:
        assert 0 <= entered.first <= entered.last_id <= MOST
        assert all(isinstance(each, str) for each in (entered.room, entered.epoch, *entered.members))
    largest = limits(frame).frame
    assert largest is None or 0 <= largest <= MOST
    messages, more = page(frame)
    numbers = [each.id for each in messages]
    assert numbers == sorted({each for each in numbers if each})
    assert isinstance(more, bool)


@given(st.text(st.characters(exclude_categories=())) | st.binary().map(lambda data: data.decode("latin-1")))
def test_a_text_that_is_no_frame_is_none(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"event":"pong"}',
        '{"event":"pong","data":[]}',
        '{"event":1,"data":{}}',
        '[{"event":"pong","data":{}}]',
        '{"event":"pong","data":{},"x":NaN}',
        '{"event":"pong","data":{},"x":1e999}',
        '{"event":"pong","data":{},"x":' + "9" * 100_000 + "}",
        '{"event":"pong","data":{},"x":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"event":"pong","data":{}} {}',
    ],
)
def test_no_frame(text: str) -> None:
    assert read(text) is None


# Members


@pytest.mark.parametrize("found", [True, False, 1.0, "1", None, -1, 2**53, [1], {}])
def test_what_is_no_whole_number(found: object) -> None:
    assert whole_number(found) is None


@pytest.mark.parametrize("found", [0, 1, MOST])
def test_whole_numbers(found: int) -> None:
    assert whole_number(found) == found


@pytest.mark.parametrize("found", [1, True, None, ["a"], "\ud800", "a\udfffb"])
def test_what_is_no_text(found: object) -> None:
    assert text_of(found) is None


@pytest.mark.parametrize("found", ["", "a", "\U0001f600\x00\x1b", "\ud7ff\ue000"])
def test_texts(found: str) -> None:
    assert text_of(found) == found


@pytest.mark.parametrize(
    ("found", "number"),
    [(60, 60.0), (0.5, 0.5), (-3, 0.0), (True, 0.0), ("60", 0.0), (None, 0.0), (2**62, 2.0**62)],
)
def test_seconds(found: object, number: float) -> None:
    assert seconds(found) == number


def test_a_list_of_names_has_only_names() -> None:
    assert names(["a", 1, None, "b", ["c"], "\ud800"]) == ("a", "b")
    assert names({"a": 1}) == names("ab") == names(None) == ()


@pytest.mark.parametrize("event", sorted(RECORDS))
def test_only_a_record_has_an_id(event: str) -> None:
    assert Frame(event, {}, {"id": 7}).id == 7
    assert Frame("ack", {"id": 7}, {"id": 7}).id is None


def test_the_author_is_whose_command_it_was() -> None:
    data = {"username": "alice", "by": "carol"}
    assert Frame("message", data, {}).author == "alice"
    assert [Frame(event, data, {}).author for event in ("edited", "deleted", "moderated")] == ["carol"] * 3
    assert Frame("message", {"username": 1}, {}).author is None


def test_an_error_has_always_a_sentence() -> None:
    assert Frame("error", {"message": "Not allowed"}, {}).complaint == "Not allowed"
    assert Frame("error", {"message": ""}, {}).complaint == Frame("error", {}, {}).complaint != ""


# How a room stands


def test_a_welcome_tells_how_the_room_stands() -> None:
    found = stand(welcome())
    assert found == ("r", "e", 5, 2, ("bob",))
    assert found is not None
    assert found.first == 3


def test_a_switched_has_the_room_in_its_data_and_the_members_beside_it() -> None:
    whole = {"room": "no", "members": ["bob"], "epoch": "e", "last_id": 5, "replay": 5}
    assert stand(Frame("switched", {"room": "ops", "members": ["no"]}, whole)) == ("ops", "e", 5, 5, ("bob",))


@pytest.mark.parametrize(
    "members",
    [
        {"room": None},
        {"room": 1},
        {"epoch": "\ud800"},
        {"epoch": None},
        {"last_id": True},
        {"last_id": 5.0},
        {"replay": -1},
        {"replay": 6},
        {"replay": None},
    ],
)
def test_a_welcome_that_makes_no_sense(members: dict[str, Any]) -> None:
    assert stand(welcome(**members)) is None


def test_a_welcome_without_members_is_one_of_an_empty_room() -> None:
    found = stand(welcome(data={}))
    assert found is not None
    assert found.members == ()


def test_limits() -> None:
    assert limits(welcome(limits={"frame": 65536})).frame == 65536
    assert [limits(welcome(limits=each)).frame for each in ({}, {"frame": "1"}, [], None)] == [None] * 4
    assert limits(welcome()).frame is None


# Pages of history


def test_a_page_has_its_messages_as_frames_of_the_room() -> None:
    item = {"id": 3, "ts": 9, "username": "bob", "text": "hi", "edited": 5, "cid": "c"}
    (message,), more = page(history(item, more=True))
    assert more
    assert (message.event, message.id, message.author, message.room) == ("message", 3, "bob", "r")
    assert message.data == {"username": "bob", "text": "hi"}
    beside = {"id": 3, "ts": 9, "edited": 5, "cid": "c"}
    assert message.whole == {"event": "message", "data": message.data, "room": "r", **beside}


def test_an_item_of_a_page_cannot_pass_for_something_else() -> None:
    (message,), _ = page(history({"id": 1, "event": "welcome", "data": 1, "room": "other", "text": "hi"}))
    assert message.whole == {"event": "message", "data": {"text": "hi"}, "room": "r", "id": 1}


def test_what_is_out_of_order_on_a_page_or_no_message_is_left_out() -> None:
    items: list[Any] = [{"id": number} for number in (2, 1, 2, 5, 3, True, 0, None, 2**53, 6)]
    messages, _ = page(history(*items[:5], "text", None, [], {}, *items[5:]))
    assert [each.id for each in messages] == [2, 5, 6]


@pytest.mark.parametrize("found", [None, {}, "text", 1])
def test_a_page_without_a_list_is_empty(found: object) -> None:
    assert page(Frame("history", {"messages": found, "more": 1}, {})) == ((), False)


# Commands


def test_a_command_is_written_as_the_server_reads_it() -> None:
    assert command("ping") == '{"event":"ping"}'
    assert command("message", {"text": "é\n"}, "c") == '{"event":"message","data":{"text":"é\\n"},"cid":"c"}'
    assert command("history", {}) == '{"event":"history","data":{}}'


def test_a_command_can_be_sent_whatever_is_said() -> None:
    text = command("message", {"text": "\u00e9\ud800"})
    assert text.encode() == rb'{"event":"message","data":{"text":"\u00e9\ud800"}}'
