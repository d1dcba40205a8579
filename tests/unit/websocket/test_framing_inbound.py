"""What is made of a client's bytes: each case is what it sends, and what comes out."""

import time
from dataclasses import replace
from struct import pack

import pytest

from chatroom.core.errors import CloseCode
from chatroom.core.limits import Limits
from chatroom.websocket.framing import Inbound
from tests.support.client_frames import BINARY, CLOSE, PING, PONG, TEXT, head, masked
from tests.support.inbounds import Control, Received, feed, handed_out, held

LIMITS = Limits(frame_bytes=1000, frame_fragments=4, control_rate=5)
CONTINUATION = 0
BOTH = pytest.mark.parametrize("pieces", ["whole", "byte by byte"])

FINE: dict[str, tuple[bytes, list[Received]]] = {
    "text": (masked(TEXT, b"hello"), ["hello"]),
    "text of any script": (masked(TEXT, "hé€😀".encode()), ["hé€😀"]),
    "empty text": (masked(TEXT), [""]),
    "medium": (masked(TEXT, b"m" * 126), ["m" * 126]),
    "as large as allowed": (masked(TEXT, b"x" * 1000), ["x" * 1000]),
    "a mask of noughts": (masked(TEXT, b"plain", key=bytes(4)), ["plain"]),
    "fragments as many as allowed": (
        masked(TEXT, b"a", fin=False)
        + masked(CONTINUATION, b"b", fin=False)
        + masked(CONTINUATION, fin=False)
        + masked(CONTINUATION, b"c"),
        ["abc"],
    ),
    "fragments together as large as allowed": (
        masked(TEXT, b"a" * 500, fin=False) + masked(CONTINUATION, b"b" * 500),
        ["a" * 500 + "b" * 500],
    ),
    "a fragment with nothing in it": (masked(TEXT, fin=False) + masked(CONTINUATION), [""]),
    "fragments that cut a character": (
        masked(TEXT, "€".encode()[:1], fin=False) + masked(CONTINUATION, "€".encode()[1:]),
        ["€"],
    ),
    "message after message": (
        masked(TEXT, b"a" * 900) + masked(TEXT, b"b" * 900),
        ["a" * 900, "b" * 900],
    ),
    "message after fragments": (
        masked(TEXT, b"a", fin=False) + masked(CONTINUATION, b"b") + masked(TEXT, b"c"),
        ["ab", "c"],
    ),
    "control in a message": (
        masked(TEXT, b"a", fin=False) + masked(PING, b"p" * 125) + masked(CONTINUATION, b"b"),
        [Control(PING, b"p" * 125), "ab"],
    ),
    "control between messages": (
        masked(TEXT, b"a") + masked(PING, b"1") + masked(PONG, b"2") + masked(TEXT, b"b"),
        ["a", Control(PING, b"1"), "b"],  # a pong asks for nothing
    ),
    "as many control frames as allowed": (
        masked(PING) * 3 + masked(PONG, b"x") * 2,
        [Control(PING)] * 3,
    ),
}
TOO_BIG = "message of more than 1000 bytes"
TOO_MANY = "message in more than 4 fragments"
NO_BINARY = "binary messages are not understood, send text"
FLOOD = "more than 5 control frames a second"
FAULTS: dict[str, tuple[bytes, CloseCode, str, list[Received]]] = {
    "too large": (masked(TEXT, b"x" * 1001), CloseCode.TOO_BIG, TOO_BIG, []),
    "too large in fragments": (
        masked(TEXT, b"x" * 600, fin=False) + masked(CONTINUATION, b"x" * 401),
        CloseCode.TOO_BIG,
        TOO_BIG,
        [],
    ),
    "too many fragments": (
        masked(TEXT, fin=False) + masked(CONTINUATION, fin=False) * 3 + masked(CONTINUATION),
        CloseCode.POLICY,
        TOO_MANY,
        [],
    ),
    "binary": (masked(BINARY, b"b"), CloseCode.UNSUPPORTED_DATA, NO_BINARY, []),
    "fragmented binary": (masked(BINARY, b"b", fin=False), CloseCode.UNSUPPORTED_DATA, NO_BINARY, []),
    "binary, too large": (masked(BINARY, b"x" * 1001), CloseCode.UNSUPPORTED_DATA, NO_BINARY, []),
    "too many control frames": (masked(PING) * 6, CloseCode.POLICY, FLOOD, [Control(PING)] * 5),
    "too many control frames of both kinds": (
        (masked(PING) + masked(PONG)) * 3,
        CloseCode.POLICY,
        FLOOD,
        [Control(PING)] * 3,
    ),
    "too many control frames within a message": (
        masked(TEXT, b"a", fin=False) + masked(PING) * 6 + masked(CONTINUATION, b"b"),
        CloseCode.POLICY,
        FLOOD,
        [Control(PING)] * 5,
    ),
}
LOST: dict[str, bytes] = {
    "not masked": head(TEXT, 5, mask=False) + b"hello",
    "reserved bit": head(TEXT, 0, bits=4),
    "reserved bit of a control frame": head(PING, 0, bits=1),
    "reserved opcode": head(3, 0),
    "reserved control opcode": head(11, 0),
    "ping in fragments": head(PING, 0, fin=False),
    "ping in fragments with a payload": masked(PING, b"p", fin=False) + masked(CONTINUATION, b"q"),
    "close in fragments": masked(CLOSE, b"\x03\xe8", fin=False),
    "long ping": head(PING, 126),
    "huge close": head(CLOSE, 1 << 20),
    "length in two bytes for no reason": head(TEXT, 125, form=126),
    "length in two bytes for no reason, and so much": head(TEXT, 5, form=126) + masked(TEXT, b"hello")[2:],
    "length in eight bytes for no reason": head(TEXT, 65_535, form=127),
    "length beyond 63 bits": head(TEXT, 1 << 63),
    "message in a message": masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"),
    "binary in a message": masked(TEXT, b"a", fin=False) + masked(BINARY, b"b"),
    "continuation of nothing": masked(CONTINUATION, b"a"),
    "binary, not masked": head(BINARY, 5, mask=False),
}
NO_TEXT: dict[str, bytes] = {
    "no first byte": masked(TEXT, b"\xff"),
    "overlong": masked(TEXT, b"\xc0\xaf"),
    "a surrogate": masked(TEXT, b"\xed\xa0\x80"),
    "beyond Unicode": masked(TEXT, b"\xf4\x90\x80\x80"),
    "cut off": masked(TEXT, "ok€".encode()[:-1]),
    "cut off in fragments": masked(TEXT, b"ok\xe2", fin=False) + masked(CONTINUATION, b"\x82"),
    "in the first fragment": masked(TEXT, b"\xff", fin=False) + masked(CONTINUATION, b"fine"),
    "in the last fragment": masked(TEXT, b"fine", fin=False) + masked(CONTINUATION, b"\xff"),
}


def cut(data: bytes, pieces: str) -> list[bytes]:
    return [data] if pieces == "whole" else [data[at : at + 1] for at in range(len(data))]


@BOTH
@pytest.mark.parametrize("case", FINE)
def test_what_keeps_the_rules_comes_out_in_order(case: str, pieces: str) -> None:
    data, items = FINE[case]
    inbound = Inbound(LIMITS)
    assert feed(inbound, cut(data, pieces)) == items
    assert (inbound.fault, inbound.closed, inbound.lost, inbound.since) == (None, False, False, None)
    assert held(inbound) == 0


@BOTH
@pytest.mark.parametrize("trailing", [b"", masked(TEXT, b"later"), masked(PING), b"\xff" * 20])
@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_limit_is_a_fault_and_its_frame_is_withheld(case: str, trailing: bytes, pieces: str) -> None:
    data, code, reason, items = FAULTS[case]
    inbound = Inbound(LIMITS)
    found = feed(inbound, cut(masked(TEXT, b"fine before") + data + trailing, pieces))
    assert found == ["fine before", *items]
    assert inbound.fault is not None
    assert (inbound.fault.code, inbound.fault.reason) == (code, reason)
    assert not inbound.closed


@BOTH
@pytest.mark.parametrize("case", LOST)
def test_behind_broken_framing_nothing_is_looked_at(case: str, pieces: str) -> None:
    after = masked(BINARY, b"b") + masked(CLOSE) + head(TEXT, 1 << 40)
    inbound = Inbound(LIMITS)
    assert feed(inbound, cut(LOST[case] + after, pieces), 3.0) == []
    assert inbound.fault is not None
    assert (inbound.fault.code, inbound.fault.reason) == (CloseCode.PROTOCOL_ERROR, "protocol error")
    assert (inbound.lost, inbound.closed, inbound.since) == (True, False, 3.0)
    assert held(inbound) == 0


@BOTH
@pytest.mark.parametrize("case", LOST)
def test_what_came_before_broken_framing_comes_out(case: str, pieces: str) -> None:
    before = masked(TEXT, b"one") + masked(PING, b"p") + masked(TEXT, b"two")
    inbound = Inbound(LIMITS)
    assert feed(inbound, cut(before + LOST[case], pieces)) == ["one", Control(PING, b"p"), "two"]
    assert inbound.lost


@BOTH
@pytest.mark.parametrize("case", NO_TEXT)
def test_what_is_no_text_is_a_fault_behind_which_the_close_is_found(case: str, pieces: str) -> None:
    inbound = Inbound(LIMITS)
    data = masked(TEXT, b"before") + NO_TEXT[case] + masked(TEXT, b"after") + masked(PING)
    assert feed(inbound, cut(data, pieces)) == ["before"]
    assert inbound.fault is not None
    assert (inbound.fault.code, inbound.fault.reason) == (CloseCode.INVALID_UTF8, "text is not UTF-8")
    assert (inbound.lost, inbound.closed) == (False, False)
    assert feed(inbound, cut(masked(CLOSE), pieces)) == []
    assert inbound.closed


@pytest.mark.parametrize("length", [1001, 1 << 16, (1 << 63) - 1])
def test_a_declared_length_is_refused_before_any_payload(length: int) -> None:
    inbound = Inbound(LIMITS)
    assert feed(inbound, [head(TEXT, length)]) == []
    assert inbound.fault is not None
    assert inbound.fault.code == CloseCode.TOO_BIG
    assert inbound.fault.reason == TOO_BIG


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("length", [1001, 1 << 20, 1 << 40, (1 << 63) - 1])
def test_not_a_byte_of_what_was_refused_is_kept(opcode: int, length: int) -> None:
    inbound = Inbound(LIMITS)
    inbound.feed(head(opcode, length), 0.0)
    inbound.next()
    for _ in range(50):
        inbound.feed(b"\x88" * 64 * 1024, 0.0)
        assert inbound.next() is None
        assert held(inbound) < 14


def test_what_was_declared_and_does_not_come_takes_no_room() -> None:
    inbound = Inbound(replace(LIMITS, frame_bytes=1 << 40))
    assert feed(inbound, [head(TEXT, 1 << 40), b"\0" * 100]) == []
    assert inbound.fault is None
    assert held(inbound) == 110


def test_binary_is_refused_before_any_payload_and_let_through_where_wanted() -> None:
    inbound = Inbound(LIMITS)
    feed(inbound, [head(BINARY, 5)])
    assert inbound.fault is not None
    assert inbound.fault.code == CloseCode.UNSUPPORTED_DATA
    echoing = Inbound(LIMITS, binary=True)
    data = masked(BINARY, b"\xff2345") + masked(BINARY, b"\xff", fin=False) + masked(CONTINUATION, b"\xfe")
    assert feed(echoing, [data + masked(TEXT, b"text")]) == [b"\xff2345", b"\xff\xfe", "text"]
    assert echoing.fault is None
    feed(echoing, [masked(BINARY, b"x" * 1001)])
    assert echoing.fault is not None, "but not past the limits"


SOUND_CLOSES = [
    b"",
    b"\x03\xe8bye",
    pack("!H", 4999) + "é".encode() * 61,
    *(pack("!H", code) for code in (1000, 1001, 1002, 1003, 1007, 1008, 1011, 1013, 3000, 3999, 4000)),
]
BAD_CLOSES = [
    (b"\xff", CloseCode.PROTOCOL_ERROR),
    (b"\x03", CloseCode.PROTOCOL_ERROR),
    *(
        (pack("!H", code), CloseCode.PROTOCOL_ERROR)
        for code in (0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2000, 2999, 5000, 65_535)
    ),
    (b"x" * 125, CloseCode.PROTOCOL_ERROR),
    (pack("!H", 999) + b"\xff", CloseCode.PROTOCOL_ERROR),
    (pack("!H", 1000) + b"\xff", CloseCode.INVALID_UTF8),
    (pack("!H", 1000) + "é".encode()[:1], CloseCode.INVALID_UTF8),
    (pack("!H", 4000) + b"\xed\xa0\x80", CloseCode.INVALID_UTF8),
]
BEHIND_A_CLOSE = pytest.mark.parametrize(
    "trailing", [b"", masked(PING), masked(TEXT, b"x" * 2000), masked(CLOSE), b"\xff" * 20]
)


@BOTH
@pytest.mark.parametrize("payload", SOUND_CLOSES)
@BEHIND_A_CLOSE
def test_a_close_frame_is_answered_by_its_like_and_nothing_comes_after_it(
    payload: bytes, trailing: bytes, pieces: str
) -> None:
    data = masked(PING) + masked(TEXT, b"one") + masked(TEXT, b"a", fin=False) + masked(CLOSE, payload)
    inbound = Inbound(LIMITS)
    assert feed(inbound, cut(data + trailing, pieces)) == [Control(PING), "one", Control(CLOSE, payload)]
    assert (inbound.closed, inbound.fault, inbound.since) == (True, None, None)
    assert held(inbound) == 0


@BOTH
@pytest.mark.parametrize(("payload", "code"), BAD_CLOSES)
@BEHIND_A_CLOSE
def test_a_close_frame_that_says_what_it_may_not_is_a_fault_and_closes(
    payload: bytes, code: CloseCode, trailing: bytes, pieces: str
) -> None:
    data = masked(PING) + masked(TEXT, b"one") + masked(CLOSE, payload)
    inbound = Inbound(LIMITS)
    assert feed(inbound, cut(data + trailing, pieces)) == [Control(PING), "one"]
    assert inbound.fault is not None
    assert inbound.fault.code == code
    assert (inbound.closed, inbound.lost, inbound.since) == (True, False, None)
    assert held(inbound) == 0


def test_pings_of_one_read_are_left_together_and_once() -> None:
    inbound = Inbound(LIMITS)
    inbound.feed(masked(PING, b"1") + masked(PONG) + masked(PING, b"2") + masked(TEXT, b"a"), 0.0)
    assert inbound.pings is None
    assert inbound.next() == "a"
    assert inbound.pings == [b"1", b"2"]
    inbound.feed(masked(PING, b"3"), 0.0)
    assert inbound.next() is None
    assert inbound.pings == [b"1", b"2", b"3"]


def test_a_close_frame_has_come_only_when_what_is_before_it_was_taken() -> None:
    inbound = Inbound(LIMITS)
    inbound.feed(masked(TEXT, b"one") + masked(CLOSE), 0.0)
    assert inbound.next() == "one"
    assert not inbound.closed
    assert inbound.next() is None
    assert inbound.closed


@BOTH
def test_a_close_frame_is_found_behind_a_refused_message(pieces: str) -> None:
    inbound = Inbound(LIMITS)
    data = masked(TEXT, b"\x88\x80" * 5000) + masked(BINARY, b"b") + masked(PING) * 20 + masked(CLOSE)
    assert feed(inbound, cut(data, pieces)) == []
    assert inbound.closed
    assert inbound.fault is not None
    assert inbound.fault.code == CloseCode.TOO_BIG, "the first fault stands"


@BOTH
def test_who_ignores_finds_the_close_in_what_has_come_and_what_comes(pieces: str) -> None:
    data = masked(TEXT, b"a", fin=False) + masked(PING) + masked(CONTINUATION, b"\xff") + masked(CLOSE)
    for at in range(len(data) + 1):
        inbound = Inbound(LIMITS)
        inbound.feed(data[:at], 0.0)  # nobody takes anything
        inbound.ignore()
        assert feed(inbound, cut(data[at:], pieces)) == []
        assert (inbound.closed, inbound.lost, inbound.fault) == (True, False, None), at
        assert held(inbound) == 0


def test_control_frames_are_counted_over_time() -> None:
    inbound = Inbound(LIMITS)
    now = 100.0
    for _ in range(1000):
        assert feed(inbound, [masked(PING)], now) == [Control(PING)]
        now += 0.2
    assert inbound.fault is None
    assert feed(inbound, [masked(PONG)] * 5, now) == []
    assert inbound.fault is None
    assert feed(inbound, [masked(PONG)], now) == []
    assert inbound.fault is not None


@BOTH
def test_a_control_frame_is_counted_once_however_it_arrives(pieces: str) -> None:
    inbound = Inbound(LIMITS)
    data = masked(PING, b"p" * 100) * 5
    assert len(feed(inbound, cut(data, pieces))) == 5
    assert inbound.fault is None


def test_a_control_rate_of_nought_lifts_the_limit() -> None:
    inbound = Inbound(replace(LIMITS, control_rate=0))
    assert feed(inbound, [masked(PING) * 1000]) == [Control(PING)] * 1000
    assert inbound.fault is None


def test_the_time_of_an_unfinished_message_runs_from_its_first_byte() -> None:
    inbound = Inbound(LIMITS)
    feed(inbound, [masked(TEXT, b"a", fin=False)[:1]], 1.0)
    assert inbound.since == 1.0
    feed(inbound, [masked(TEXT, b"a", fin=False)[1:]], 2.0)
    feed(inbound, [masked(PING)], 3.0)
    feed(inbound, [masked(CONTINUATION, b"b", fin=False)], 4.0)
    assert inbound.since == 1.0, "neither a control frame nor progress starts it anew"
    inbound.pause(10.0)
    assert inbound.since == 11.0
    assert feed(inbound, [masked(CONTINUATION) + masked(TEXT, b"next")[:3]], 20.0) == ["ab"]
    assert inbound.since == 20.0
    assert feed(inbound, [masked(TEXT, b"next")[3:]], 21.0) == ["next"]
    assert inbound.since is None
    inbound.pause(10.0)
    assert inbound.since is None
    feed(inbound, [masked(PING, b"dribble")[:4]], 30.0)
    assert inbound.since == 30.0
    inbound.give_up_waiting()
    assert inbound.fault is not None
    assert (inbound.fault.code, inbound.fault.reason) == (
        CloseCode.POLICY,
        "message not finished in 10 seconds",
    )


def test_behind_a_given_up_message_the_close_is_found() -> None:
    inbound = Inbound(LIMITS)
    late = masked(CONTINUATION, b"\x88\x80\0\0\0\0 late", key=bytes(4))
    feed(inbound, [masked(TEXT, b"a", fin=False) + late[:3]])
    inbound.give_up_waiting()
    assert feed(inbound, [late[3:-1]]) == []
    assert not inbound.closed
    assert feed(inbound, [late[-1:] + masked(CLOSE)]) == []
    assert inbound.closed


def test_the_time_that_counts_is_that_of_the_arrival_not_of_the_taking() -> None:
    inbound = Inbound(LIMITS)
    inbound.feed(masked(TEXT, b"one") + masked(PING) + masked(TEXT, b"two")[:5], 7.0)
    assert handed_out(inbound) == ["one", Control(PING)]
    assert inbound.since == 7.0
    inbound.pause(100.0)
    assert inbound.since == 107.0


def test_a_message_in_very_many_fragments_costs_as_much_for_each() -> None:
    inbound = Inbound(replace(LIMITS, frame_fragments=1 << 20, frame_bytes=1 << 20))
    number = 1 << 17
    data = masked(TEXT, b"x", fin=False) + masked(CONTINUATION, b"x", fin=False) * (number - 2)
    start = time.process_time()
    inbound.feed(data, 0.0)
    assert inbound.next() is None
    assert feed(inbound, [masked(CONTINUATION, b"x")]) == ["x" * number]
    assert time.process_time() - start < 5, "0.3 s; half a minute where each fragment copies those before it"
