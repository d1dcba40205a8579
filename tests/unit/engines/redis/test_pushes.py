"""What nodes tell each other, to the byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.messages import Change, Message
from chatroom.engines.redis.pushes import Own, Presence, Stored, Typing, read_push, read_reply, typing


def test_messages_of_another_node() -> None:
    data = 'm n2 e1 7 8\n[[1764000000000,"ann","hi"],[1764000000001,"bob","é\\u0000","c"]]'.encode()
    assert read_push(data, "n1") == Stored(
        "e1",
        [Message(7, 1764000000000, "ann", "hi", None), Message(8, 1764000000001, "bob", "é\0", "c")],
    )


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


def test_replies() -> None:
    assert read_reply(b'["ok",1,{}]') == ["ok", 1, {}]
    for data in (b"", b"{}", b"[]", b"[1]", b'"ok"', b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011  (whatever json says)
            read_reply(data)
