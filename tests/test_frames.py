"""Frames: the ones we build, and the scanner's view of the ones that clients send."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from chatroom.pure.frames import FrameScanner, close_frame, ping_frame, text_frame
from chatroom.values.codes import CloseCode
from chatroom.values.limits import Limits
from tests.support.client_frames import BINARY, CLOSE, PING, PONG, TEXT, head, masked

LIMITS = Limits(frame_bytes=1000, frame_fragments=4, control_rate=5)
LOOSE = Limits(frame_bytes=1 << 63, frame_fragments=1 << 63, control_rate=1e12)
CONTINUATION = 0


def parsed(frame: bytes) -> list[tuple[Opcode, object]]:
    """What an independent client makes of our frames."""
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(frame)
    return [(one.opcode, one.payload) for one in client.received_frames()]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_a_text_frame_is_one_whole_message(size: int) -> None:
    payload = b"x" * size
    assert parsed(text_frame(payload) + text_frame(b"next")) == [
        (Opcode.TEXT, payload.decode()),
        (Opcode.TEXT, "next"),
    ]


def test_a_ping_carries_its_payload() -> None:
    assert parsed(ping_frame() + ping_frame(b"p" * 125)) == [(Opcode.PING, b""), (Opcode.PING, b"p" * 125)]
    with pytest.raises(ValueError, match="125"):
        ping_frame(b"p" * 126)


@pytest.mark.parametrize(
    ("reason", "read"),
    [
        ("", ""),
        ("restarting", "restarting"),
        ("a" * 123, "a" * 123),
        ("a" * 200, "a" * 123),
        ("é" * 100, "é" * 61),  # 123 is odd: half of the last é would have fitted
        ("a" + "😀" * 50, "a" + "😀" * 30),
        ("lone \ud800", "lone ?"),
    ],
)
def test_a_close_frame_cuts_its_reason_at_a_character(reason: str, read: str) -> None:
    assert parsed(close_frame(CloseCode.RESTART, reason)) == [
        (Opcode.CLOSE, (CloseReason.SERVICE_RESTART, read))
    ]


def test_a_private_close_code_is_sent_as_it_is() -> None:
    assert parsed(close_frame(CloseCode.TOO_FAR_BEHIND, "x")) == [(Opcode.CLOSE, (4008, "x"))]


# The scanner: each case is what a client sends, and how it must be seen


FINE = {
    "text": masked(TEXT, b"hello"),
    "empty text": masked(TEXT),
    "medium": masked(TEXT, b"m" * 126),
    "as large as allowed": masked(TEXT, b"x" * 1000),
    "fragments as many as allowed": masked(TEXT, b"a", fin=False)
    + masked(CONTINUATION, b"b", fin=False)
    + masked(CONTINUATION, fin=False)
    + masked(CONTINUATION, b"c"),
    "fragments together as large as allowed": masked(TEXT, b"a" * 500, fin=False)
    + masked(CONTINUATION, b"b" * 500),
    "message after message": masked(TEXT, b"a" * 900) + masked(TEXT, b"b" * 900),
    "control in a message": masked(TEXT, b"a", fin=False)
    + masked(PING, b"p" * 125)
    + masked(CONTINUATION, b"b"),
    "as many control frames as allowed": masked(PING) * 3 + masked(PONG, b"x") * 2,
}
FAULTS = {
    "too large": (masked(TEXT, b"x" * 1001), CloseCode.TOO_BIG),
    "too large in fragments": (
        masked(TEXT, b"x" * 600, fin=False) + masked(CONTINUATION, b"x" * 401),
        CloseCode.TOO_BIG,
    ),
    "too many fragments": (
        masked(TEXT, fin=False) + masked(CONTINUATION, fin=False) * 3 + masked(CONTINUATION),
        CloseCode.POLICY,
    ),
    "binary": (masked(BINARY, b"b"), CloseCode.UNSUPPORTED_DATA),
    "fragmented binary": (masked(BINARY, b"b", fin=False), CloseCode.UNSUPPORTED_DATA),
    "binary, too large": (masked(BINARY, b"x" * 1001), CloseCode.UNSUPPORTED_DATA),
    "too many control frames": (masked(PING) * 6, CloseCode.POLICY),
    "too many control frames of both kinds": ((masked(PING) + masked(PONG)) * 3, CloseCode.POLICY),
}
LAST_FRAME_OF = {
    "too large in fragments": masked(CONTINUATION, b"x" * 401),
    "too many fragments": masked(CONTINUATION),
    "too many control frames": masked(PING),
    "too many control frames of both kinds": masked(PONG),
}
LOST = {
    "not masked": head(TEXT, 5, mask=False) + b"hello",
    "reserved bit": head(TEXT, 0, bits=4),
    "reserved opcode": head(3, 0),
    "reserved control opcode": head(11, 0),
    "ping in fragments": head(PING, 0, fin=False),
    "long ping": head(PING, 126),
    "huge close": head(CLOSE, 1 << 20),
    "length in two bytes for no reason": head(TEXT, 125, form=126),
    "length in eight bytes for no reason": head(TEXT, 65_535, form=127),
    "length beyond 63 bits": head(TEXT, 1 << 63),
    "message in a message": masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"),
    "continuation of nothing": masked(CONTINUATION, b"a"),
    "binary, not masked": head(BINARY, 5, mask=False),
}


def cut(data: bytes, pieces: str) -> list[bytes]:
    return [data] if pieces == "whole" else [data[at : at + 1] for at in range(len(data))]


def scan(scanner: FrameScanner, pieces: list[bytes], now: float = 0.0) -> bytes:
    """Scan the pieces as they arrive; return what the parser got, which ends where it was first cut off."""
    allowed = b""
    for piece in pieces:
        count = scanner.scan(piece, now)
        allowed += piece[:count]
    return allowed


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize("case", FINE)
def test_what_keeps_the_limits_is_let_through(case: str, pieces: str) -> None:
    scanner = FrameScanner(LIMITS)
    assert scan(scanner, cut(FINE[case], pieces)) == FINE[case]
    assert (scanner.fault, scanner.closed, scanner.lost, scanner.since) == (None, False, False, None)


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize("trailing", [b"", masked(TEXT, b"later"), masked(PING), b"\xff" * 20])
@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_limit_is_a_fault_and_its_frame_is_withheld(case: str, trailing: bytes, pieces: str) -> None:
    data, code = FAULTS[case]
    before = masked(TEXT, b"fine before")
    scanner = FrameScanner(LIMITS)
    allowed = scan(scanner, cut(before + data + trailing, pieces))
    assert scanner.fault is not None
    assert scanner.fault.code == code
    last = LAST_FRAME_OF.get(case, data)
    whole = before + data[: -len(last)]
    # Byte by byte, the parser has got the beginning of a header, which it can't act on.
    assert allowed == whole if pieces == "whole" else allowed[: len(whole)] == whole
    assert len(allowed) < len(whole) + 10


@pytest.mark.parametrize("length", [1001, 1 << 16, (1 << 63) - 1])
def test_a_declared_length_is_refused_before_any_payload(length: int) -> None:
    scanner = FrameScanner(LIMITS)
    assert scanner.scan(head(TEXT, length), 0.0) == 0
    assert scanner.fault is not None
    assert scanner.fault.code == CloseCode.TOO_BIG
    assert str(scanner.fault) == "message of more than 1000 bytes"


def test_binary_is_refused_before_any_payload_and_let_through_where_wanted() -> None:
    scanner = FrameScanner(LIMITS)
    scanner.scan(head(BINARY, 5), 0.0)
    assert scanner.fault is not None
    assert scanner.fault.code == CloseCode.UNSUPPORTED_DATA
    echoing = FrameScanner(LIMITS, binary=True)
    assert echoing.scan(masked(BINARY, b"12345"), 0.0) == 11
    assert echoing.fault is None


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize("case", LOST)
def test_broken_framing_goes_to_the_parser_and_nothing_after_it_is_judged(case: str, pieces: str) -> None:
    data = LOST[case]
    after = masked(BINARY, b"b") + masked(CLOSE) + head(TEXT, 1 << 40)
    scanner = FrameScanner(LIMITS)
    assert scan(scanner, cut(data + after, pieces), 3.0) == data + after
    assert scanner.lost
    assert (scanner.fault, scanner.closed, scanner.since) == (None, False, 3.0)


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize("close", [masked(CLOSE), masked(CLOSE, b"\x03\xe8bye"), masked(CLOSE, b"x" * 125)])
@pytest.mark.parametrize("trailing", [b"", masked(PING), masked(TEXT, b"x" * 2000), b"\xff" * 20])
def test_nothing_passes_after_a_close_frame(close: bytes, trailing: bytes, pieces: str) -> None:
    before = masked(TEXT, b"a", fin=False)
    scanner = FrameScanner(LIMITS)
    assert scan(scanner, cut(before + close + trailing, pieces)) == before + close
    assert (scanner.closed, scanner.fault, scanner.since) == (True, None, None)


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
def test_a_close_frame_is_found_behind_a_refused_message(pieces: str) -> None:
    scanner = FrameScanner(LIMITS)
    data = masked(TEXT, b"\x88\x80" * 5000) + masked(BINARY, b"b") + masked(PING) * 20 + masked(CLOSE)
    scan(scanner, cut(data, pieces))
    assert scanner.closed
    assert scanner.fault is not None
    assert scanner.fault.code == CloseCode.TOO_BIG, "the first fault stands"


def test_control_frames_are_counted_over_time() -> None:
    scanner = FrameScanner(LIMITS)
    now = 100.0
    for _ in range(1000):
        scanner.scan(masked(PING), now)
        now += 0.2
    assert scanner.fault is None
    for _ in range(5):
        scanner.scan(masked(PONG), now)
    assert scanner.fault is None
    scanner.scan(masked(PONG), now)
    assert scanner.fault is not None


def test_a_control_rate_of_nought_lifts_the_limit() -> None:
    scanner = FrameScanner(replace(LIMITS, control_rate=0))
    scanner.scan(masked(PING) * 1000, 0.0)
    assert scanner.fault is None


def test_the_time_of_an_unfinished_message_runs_from_its_first_byte() -> None:
    scanner = FrameScanner(LIMITS)
    scanner.scan(masked(TEXT, b"a", fin=False)[:1], 1.0)
    assert scanner.since == 1.0
    scanner.scan(masked(TEXT, b"a", fin=False)[1:], 2.0)
    scanner.scan(masked(PING), 3.0)
    scanner.scan(masked(CONTINUATION, b"b", fin=False), 4.0)
    assert scanner.since == 1.0, "neither a control frame nor progress starts it anew"
    scanner.pause(10.0)
    assert scanner.since == 11.0
    scanner.scan(masked(CONTINUATION) + masked(TEXT, b"next")[:3], 20.0)
    assert scanner.since == 20.0
    scanner.scan(masked(TEXT, b"next")[3:], 21.0)
    assert scanner.since is None
    scanner.pause(10.0)
    assert scanner.since is None
    scanner.scan(masked(PING, b"dribble")[:4], 30.0)
    assert scanner.since == 30.0
    scanner.give_up_waiting()
    assert scanner.fault is not None
    assert (scanner.fault.code, str(scanner.fault)) == (
        CloseCode.POLICY,
        "message not finished in 10 seconds",
    )


# Properties: against the parser that stands behind the scanner


def frames() -> st.SearchStrategy[bytes]:
    """Frames, mostly right, with something wrong in some."""
    opcode = st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, PING, PONG, CLOSE, 3, 15])
    right = st.builds(masked, opcode, st.binary(max_size=20), fin=st.booleans())
    large = st.builds(masked, opcode, st.sampled_from([b"x" * 126, b"y" * 70_000]), fin=st.booleans())
    length = st.sampled_from([0, 1, 125, 126, 65_535, 65_536, 1 << 62, 1 << 63])
    wrong = st.builds(
        head,
        opcode,
        length,
        fin=st.booleans(),
        bits=st.sampled_from([0, 0, 0, 1, 4]),
        mask=st.booleans(),
        form=st.sampled_from([0, 127]),
    )
    return st.one_of(right, right, right, large, wrong, st.binary(max_size=6))


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = 0
    for size in cuts:
        yield data[at : at + size]
        at += size
    yield data[at:]


def parser_verdict(data: bytes) -> str:
    """Whether the parser behind the scanner finds fault with these bytes, and with what of them."""
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(data)
    try:
        list(server.received_frames())
    except ParseFailed as error:
        in_payload = error.code is CloseReason.INVALID_FRAME_PAYLOAD_DATA or "CLOSE" in str(error)
        return "payload" if in_payload else "framing"
    return "fine"


@settings(deadline=None)
@given(st.lists(frames(), max_size=8).map(b"".join), st.lists(st.integers(1, 30), max_size=10))
@example(masked(TEXT, b"x" * 2000) + masked(CLOSE), [3, 1, 1])
def test_however_cut_the_scanner_sees_the_same(data: bytes, cuts: list[int]) -> None:
    whole, pieces = FrameScanner(LIMITS), FrameScanner(LIMITS)
    passed = scan(whole, [data])
    passed_in_pieces = scan(pieces, list(split(data, cuts)))
    assert passed_in_pieces.startswith(passed)
    assert len(passed_in_pieces) < len(passed) + 10, "at most a part of a header more"
    assert (str(whole.fault), whole.closed, whole.lost) == (str(pieces.fault), pieces.closed, pieces.lost)


@settings(deadline=None)
@given(st.lists(frames(), max_size=8).map(b"".join))
def test_the_scanner_loses_the_framing_just_where_the_parser_does(data: bytes) -> None:
    scanner = FrameScanner(LOOSE, binary=True)
    allowed = data[: scanner.scan(data, 0.0)]
    if parser_verdict(allowed) == "framing":
        assert scanner.lost
    if scanner.lost:  # the parser sees that a frame is out of turn only at its first payload byte
        assert parser_verdict(allowed + bytes(5)) != "fine"


@settings(deadline=None)
@given(st.lists(frames(), max_size=8).map(b"".join))
def test_the_parser_never_sees_more_than_the_limits_allow(data: bytes) -> None:
    scanner = FrameScanner(LIMITS)
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(data[: scanner.scan(data, 0.0)])
    size = 0
    try:
        for frame in server.received_frames():
            assert frame.opcode is not Opcode.BINARY
            if frame.opcode is Opcode.TEXT:
                size += len(frame.payload)
                assert size <= LIMITS.frame_bytes
                size = 0 if frame.message_finished else size
    except ParseFailed:
        assert data
