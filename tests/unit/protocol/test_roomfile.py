"""A room as a file of lines: what is written is read again, and every fault has its sentence."""

import json
from typing import Any

import pytest

from chatroom.core.messages import Deleted, Edited, Message, Moderated
from chatroom.core.sanctions import MAX_SANCTIONS, Action, Sanction
from chatroom.protocol import events, roomfile
from chatroom.protocol.roomfile import End, Head, Reader, end_line, head_line

TS = 1_764_000_000_000
HEAD = Head("général", "all", "e1", 1, 9)
RECORDS = [
    Message(1, TS, "alice", "hello\x9b\u2028.", "c1", edited=5),
    Message(2, TS, "bob", "", None, deleted=6),
    Message(3, TS, "élise", "x" * 40, None),
    Edited(4, TS, "alice", "", "c2", 1, 0),
    Edited(5, TS, "alice", "hello\x9b\u2028.", None, 1, 0),
    Deleted(6, TS, "carol", "", "c3", 2, "bob", 0),
    Moderated(7, TS, "carol", "flooding", "c4", Action.MUTE, "bob", TS + 1),
    Moderated(8, TS, "carol", "", None, Action.UNMUTE, "bob", None),
    Moderated(9, TS, "carol", "", None, Action.KICK, "bob", None),
]
SANCTIONS = (
    Sanction(Action.BAN, "eve", "carol", None, ""),
    Sanction(Action.MUTE, "bob", "carol", TS + 5, "so it is"),
)


def record_lines() -> list[bytes]:
    return [events.record(HEAD.room, record) for record in RECORDS]


def reader_behind(head: Head = HEAD, *lines: bytes, max_text: int = 40) -> Reader:
    reader = Reader(max_text)
    for line in (head_line(head), *lines):
        reader.read(line)
    return reader


def test_what_is_written_is_read() -> None:
    reader = Reader(40)
    assert reader.read(head_line(HEAD)) == HEAD
    assert [reader.read(line) for line in record_lines()] == RECORDS
    assert reader.read(end_line(HEAD.room, SANCTIONS)) == End(SANCTIONS)
    reader.finish()


def test_a_room_without_records_is_read() -> None:
    reader = reader_behind(Head("r", "all", "e1", 8, 7))
    assert reader.read(end_line("r", ())) == End(())
    reader.finish()


def test_a_file_of_messages_has_holes_and_may_lack_an_epoch_and_sanctions() -> None:
    reader = reader_behind(Head("r", "messages", None, 1, 9))
    assert reader.read(events.record("r", RECORDS[1])) == RECORDS[1]
    assert reader.read(events.record("r", Message(7, TS, "a", "x", None))) == Message(7, TS, "a", "x", None)
    assert reader.read(end_line("r", None)) == End(())
    reader.finish()


def test_names_texts_and_reasons_get_their_one_form() -> None:
    """As the server reads them."""
    line = {
        "event": "message",
        "data": {"username": "\uff41lice", "text": " hi\n", "more": 1},
        "room": "général",
        "id": 1,
        "ts": 0,
        "more": [],
    }
    assert reader_behind().read(json.dumps(line).encode()) == Message(1, 0, "alice", "hi", None)
    line = {"event": "moderated", "id": 1, "ts": 0}
    line["data"] = {"action": "ban", "username": "\uff41", "by": "b", "reason": " a\n b "}
    found = reader_behind().read(json.dumps(line).encode())
    assert found == Moderated(1, 0, "b", "a b", None, Action.BAN, "a", None)


def test_members_that_are_not_known_are_ignored_and_room_may_be_left_out() -> None:
    line = json.loads(record_lines()[0])
    del line["room"]
    assert reader_behind().read(json.dumps(line).encode()) == RECORDS[0]


# Faults


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "it is not JSON"),
        (b"\xff", "it is not UTF-8"),
        (b"[]", "it is no object"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"event":"room","event":"room"}', "a key is given twice"),
        (b'{"event":"room","data":{"room":"\\ud800"}}', "a lone surrogate is not text"),
        (b'{"event":"room","data":{"format":NaN}}', "it is not JSON"),
        (b'{"event":"room"}', "its data is no object"),
        (b'{"event":"message","data":{}}', "the first line of an export has the event room"),
        (b'{"event":"room","data":{}}', "it is of another format than 1, which this version knows"),
        (b'{"event":"room","data":{"format":2}}', "it is of another format than 1, which this version knows"),
        (b'{"event":"room","data":{"format":1}}', "its entries are neither all nor messages"),
    ],
)
def test_a_first_line_that_is_wrong(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        Reader(40).read(line)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"entries": ["all"]}, "its entries are neither all nor messages"),
        ({"first": 0}, "first must be an integer of at least 1"),
        ({"last": "9"}, "last must be an integer of at least 0"),
        ({"last": True}, "last must be an integer of at least 0"),
        ({"last": 2**53}, "last must be an integer of at least 0"),
        ({"first": 11}, "its first id is beyond the last one"),
        ({"epoch": 7}, "its epoch is no string"),
        ({"room": "a b"}, "its room: room may not contain spaces"),
        ({"room": 7}, "its room: room must be a string"),
    ],
)
def test_a_head_that_is_wrong(change: dict[str, object], why: str) -> None:
    line = json.loads(head_line(HEAD))
    line["data"] |= change
    with pytest.raises(ValueError, match=f"^{why}$"):
        Reader(40).read(json.dumps(line).encode())


REMOVED = object()


def changed(number: int, path: str, value: object) -> bytes:
    """The frame of a record, with one member changed or removed."""
    frame: dict[str, Any] = json.loads(record_lines()[number - 1])
    inside, _, name = path.rpartition(".")
    place = frame[inside] if inside else frame
    place[name] = value
    if value is REMOVED:
        del place[name]
    return json.dumps(frame).encode()


@pytest.mark.parametrize(
    ("number", "path", "value", "why"),
    [
        (1, "event", "joined", "its event is none of message, edited, deleted, moderated, sanctions"),
        (1, "event", ["message"], "its event is none of message, edited, deleted, moderated, sanctions"),
        (1, "data", [], "its data is no object"),
        (1, "room", "other", "it is of another room than the first line"),
        (1, "id", REMOVED, "id must be an integer of at least 1"),
        (1, "id", 0, "id must be an integer of at least 1"),
        (1, "id", 2, "the record 1 is missing"),
        (1, "id", 10, "after 0 the id 10 makes no sense"),
        (2, "id", 1, "after 1 the id 1 makes no sense"),
        (1, "ts", 1.5, "ts must be an integer of at least 0"),
        (1, "ts", -1, "ts must be an integer of at least 0"),
        (1, "cid", "", "cid must be a string of 1 to 64 characters"),
        (1, "cid", "x" * 65, "cid must be a string of 1 to 64 characters"),
        (1, "cid", None, "cid must be a string"),
        (1, "data.username", "a b", "username: username may not contain spaces"),
        (1, "data.text", REMOVED, "text must be a string"),
        (1, "data.text", " ", "its text is empty"),
        (1, "data.text", "x" * 41, r"its text is longer than 40 characters \(see --max-text\)"),
        (1, "edited", 1, "edited must be an integer of at least 2"),
        (2, "deleted", REMOVED, "its text is empty"),
        (2, "data.text", "x", "it is deleted, but has a text"),
        (4, "data.by", "bob", "nobody edits another one's message"),
        (4, "data.id", 4, "it changes what comes later"),
        (4, "data.text", None, "text must be a string"),
        (6, "data.by", REMOVED, "by must be a string"),
        (6, "data.id", 0, "id must be an integer of at least 1"),
        (7, "data.action", "hug", "its action is none of kick, mute, unmute, ban, unban"),
        (7, "data.until", "never", "until must be an integer of at least 0"),
        (7, "data.reason", "é" * 51, "its reason is longer than 100 bytes"),
        (8, "data.until", 1, "such an action has no end"),
        (8, "data.username", "", "username: username must have 1 to 32 characters"),
    ],
)
def test_a_record_that_is_wrong(number: int, path: str, value: object, why: str) -> None:
    reader = reader_behind(HEAD, *record_lines()[: number - 1])
    with pytest.raises(ValueError, match=f"^{why}$"):
        reader.read(changed(number, path, value))


@pytest.mark.parametrize(
    ("sanctions", "why"),
    [
        ({}, "sanctions must be a list of at most 1000"),
        ([{}] * (MAX_SANCTIONS + 1), "sanctions must be a list of at most 1000"),
        ([7], "a sanction is no object"),
        ([{"action": "kick", "username": "a", "by": "b"}], "a sanction is neither a mute nor a ban"),
        ([{"action": "ban", "username": "a"}], "by must be a string"),
        ([{"action": "ban", "username": "a", "by": "b"}] * 2, "the same sanction is there twice"),
    ],
)
def test_sanctions_that_are_wrong(sanctions: object, why: str) -> None:
    line = json.dumps({"event": "sanctions", "data": {"sanctions": sanctions}}).encode()
    with pytest.raises(ValueError, match=f"^{why}$"):
        reader_behind(HEAD, *record_lines()).read(line)


def test_a_file_that_was_cut_short() -> None:
    with pytest.raises(ValueError, match="it has no first line"):
        Reader(40).finish()
    with pytest.raises(ValueError, match="it has no last line with the sanctions: it was cut short"):
        reader_behind(HEAD, *record_lines()).finish()
    with pytest.raises(ValueError, match="the record 9 is missing"):
        reader_behind(HEAD, *record_lines()[:-1]).read(end_line(HEAD.room, ()))


def test_nothing_comes_behind_the_last_line() -> None:
    reader = reader_behind(HEAD, *record_lines(), end_line(HEAD.room, ()))
    with pytest.raises(ValueError, match="the sanctions are the last line of an export"):
        reader.read(end_line(HEAD.room, ()))


def test_a_file_of_messages_has_nothing_else() -> None:
    with pytest.raises(ValueError, match="by the first line there are only messages"):
        reader_behind(HEAD._replace(entries="messages")).read(record_lines()[3])


def test_a_line_without_end_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="it is longer than 2,097,632 bytes"):
        Reader(40).read(b" " * (roomfile.longest_line(40) + 1))
    text = "\\ud83d\\ude00" * 40
    line = changed(1, "data.text", "TEXT").replace(b"TEXT", text.encode())
    assert isinstance(reader_behind().read(line), Message)


def test_no_sentence_repeats_the_line() -> None:
    secret = "s3" + "cret"
    for path in ("event", "room", "id", "ts", "data.username", "data.text", "data"):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  (the sentences differ)
            reader_behind().read(changed(1, path, secret * 20))
        assert secret not in str(caught.value)
