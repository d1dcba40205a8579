"""What nodes tell each other, to the byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.messages import Change, Deleted, Edited, Message, Moderated, Record
from chatroom.core.sanctions import Action
from chatroom.engines.changes import rest_of
from chatroom.engines.redis.pushes import Own, Presence, Stored, Typing, read_push, read_reply, typing


def test_messages_of_another_node() -> None:
    data = 'm n2 e1 7 8\n[[1764000000000,"ann","hi"],[1764000000001,"bob","é\\u0000","c"]]'.encode()
    assert read_push(data, "n1") == Stored(
        "e1",
        [Message(7, 1764000000000, "ann", "hi", None), Message(8, 1764000000001, "bob", "é\0", "c")],
    )


RECORDS: list[Record] = [
    Message(7, 1, "ann", "é", "c", edited=8),
    Message(8, 1, "ann", "", None, edited=8, deleted=9),
    Edited(9, 1, "ann", "é", "c", 7, 8),
    Deleted(10, 1, "cy", "", None, 7, "ann\0", 8),
    Moderated(11, 1, "cy", "why", "c", Action.MUTE, "ann\n", 1764000000000),
    Moderated(12, 1, "cy", "", None, Action.UNBAN, "\U0001f600", None),
]


def pushed(*lines: object) -> bytes:
    return f"m n2 e1 7 {6 + len(lines)}\n{json.dumps(lines, ensure_ascii=False)}".encode()


def test_records_of_all_kinds_of_another_node() -> None:
    lines = [(*each[1:4], each.cid or False, rest_of(each)) for each in RECORDS]
    assert read_push(pushed(*lines), "n1") == Stored("e1", RECORDS)


@pytest.mark.parametrize(
    "rest",
    [
        *(
            "7",
            "[]",
            '"x"',
            "true",
            "{",
            '{"event":"x"}',
            '{"edited":"7"}',
            '{"edited":true}',
            '{"deleted":1.5}',
        ),
        *('{"event":"edited"}', '{"event":"edited","about":1,"replaces":"1"}'),
        *('{"event":"edited","about":1}', '{"event":"edited","about":1,"replaces":null}'),
        *(
            '{"event":"deleted","about":1,"replaces":1}',
            '{"event":"deleted","about":1,"replaces":1,"author":1}',
        ),
        '{"event":"deleted","about":1,"replaces":1,"author":"\\ud800"}',
        *(
            '{"event":"moderated","action":"x","target":"x"}',
            '{"event":"moderated","action":[],"target":"x"}',
        ),
        *('{"event":"moderated","action":"mute","target":1}', '{"event":"moderated","action":"mute"}'),
        '{"event":"moderated","action":"mute","target":"\\udc00"}',
        '{"event":"moderated","action":"mute","target":"x","until":"9"}',
        '{"event":"moderated","action":"mute","target":"x","until":1e400}',
        "[" * 100_000,
    ],
)
def test_records_that_make_no_sense_are_nothing(rest: str) -> None:
    assert read_push(pushed((1, "ann", "x", False, rest)), "n1") is None


@pytest.mark.parametrize("rest", [7, True, [], {"edited": 7}])
def test_a_rest_that_is_no_text_is_nothing(rest: object) -> None:
    assert read_push(pushed((1, "ann", "x", False, rest)), "n1") is None


def test_ones_own_messages_are_not_looked_into() -> None:
    assert read_push(b"m n1 e1 7 8\nwhatever", "n1") == Own("e1", 8)


def test_presence() -> None:
    assert read_push(b'p n2 e1 4 9\n[[["ann",1],["bob",2]],[["cy",0],["di",1]]]', "n1") == Presence(
        "n2",
        "e1",
        4,
        9,
        [
            Change("ann", here=True, announced=True, ours=False),
            Change("bob", here=True, announced=False, ours=False),
            Change("cy", here=False, announced=True, ours=False),
            Change("di", here=False, announced=False, ours=False),
        ],
    )
    assert read_push(b'p n1 e1 4 9\n[{},[["ann",0]]]', "n1") == Presence(
        "n1", "e1", 4, 9, [Change("ann", here=False, announced=True, ours=True)]
    )


@pytest.mark.parametrize("active", [True, False])
def test_typing(active: bool) -> None:
    data = typing("n1", "e1", "änn", active=active).encode()
    assert read_push(data, "n1") is None
    assert read_push(data, "n2") == Typing("änn", active)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"m", b"m n2 e 1 1", b"m n2 e 1 1\n", b"m n2 e 1 1\n{}[", b"m n2 e x 1\n[]",
        b"m n2 e 1 1\n[1]", b"m n2 e 1 1\n[[1]]", b"p n2 e 1 1\n[]", b"p n2 e 1 1\n[[1],[]]",
        b"p n2 e 1 1\n[1,1]", b"t n2 e\n1", b"\xff\xfe", b"m n2 \xff 1 1\n[[\xff]]", b"x n2 e 1 1\n[]",
        b"m n2 e 1 1\n" + b"[" * 100_000, b'm n2 e 1 1\n[[1,"u",5]]', b'm n2 e 1 1\n[[1,2,"x"]]',
        b'm n2 e 1 1\n[["1","u","x"]]', b'm n2 e 1 1\n[[true,"u","x"]]', b'm n2 e 1 1\n[[1,"u","x",7]]',
        b'm n2 e 1 1\n[[1,"u","\\ud800"]]', b'm n2 e 1 1\n[[1,"u","\xed\xa0\x80"]]',
        b"p n2 e 1 1\n[[[1,1]],[]]", b'p n2 e 1 1\n[[],[["\\uDC00",0]]]', b't n2 e\n["\\ud800",true]',
        b"t n2 e\n[1,true]",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_nothing(data: bytes) -> None:
    assert read_push(data, "n1") is None


@given(st.binary(max_size=60), st.sampled_from([b"", b"m n2 e 1 2\n", b"p n2 e 1 2\n", b"t n2 e\n"]))
def test_nothing_that_is_published_raises(data: bytes, head: bytes) -> None:
    read_push(head + data, "n1")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["", "x", "edited", "deleted", "moderated", "mute"]),
    lambda values: st.lists(values, max_size=3),
    max_leaves=3,
)
members = st.sampled_from(
    ["event", "edited", "deleted", "about", "replaces", "author", "action", "target", "until"]
)


@given(st.dictionaries(members, anything), anything, anything)
def test_no_rest_of_a_record_raises(rest: dict[str, object], name: object, cid: object) -> None:
    match read_push(pushed((1, name, "x", cid, json.dumps(rest))), "n1"):
        case None:
            return
        case Stored(_, [record]):
            found = (json.loads(rest_of(record) or "{}"), record.username, record.cid or cid)
            known = {key: value for key, value in rest.items() if value is not None}
            assert found[0].items() <= known.items()
            assert found[1:] == (name, cid)
        case other:
            raise AssertionError(other)


def test_replies() -> None:
    assert read_reply(b'["ok",1,{}]') == ["ok", 1, {}]
    for data in (b"", b"{}", b"[]", b"[1]", b'"ok"', b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011  (whatever json says)
            read_reply(data)
