"""Whatever a client sends, however it is cut: against an independent parser, and against the limits."""

from struct import pack

from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from chatroom.core.errors import CloseCode
from chatroom.core.limits import Limits
from chatroom.websocket.framing import Inbound
from tests.support.client_frames import BINARY, CLOSE, PING, PONG, TEXT, masked
from tests.support.inbounds import CONTINUATION, Control, Received, feed, frames, handed_out, held, split

LIMITS = Limits(frame_bytes=1000, frame_fragments=4, control_rate=5)
LOOSE = Limits(frame_bytes=1 << 63, frame_fragments=1 << 63, control_rate=0)
HEADER = 14  # the longest, with its key
CONTROL_FRAME = 6 + 125
CUTS = st.lists(st.integers(1, 30), max_size=10)


def conversations() -> st.SearchStrategy[bytes]:
    """Right frames in a right order: messages in any number of fragments, with control frames anywhere."""
    control = st.builds(masked, st.sampled_from([PING, PONG]), st.binary(max_size=125))
    controls = st.lists(control, max_size=2).map(b"".join)

    @st.composite
    def message(draw: st.DrawFn) -> bytes:
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(st.text(max_size=60)).encode()
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        data, at = b"", 0
        for number, end in enumerate([*cuts, len(payload)]):
            last = number == len(cuts)
            data += draw(controls) + masked(opcode, payload[at:end], fin=last)
            opcode, at = CONTINUATION, end
        return data

    return st.lists(st.one_of(message(), controls), max_size=6).map(b"".join)


def parsed(data: bytes) -> tuple[list[Received], str]:
    """What an independent parser makes of it up to a close frame, and what it finds fault with."""
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(data)
    items: list[Received] = []
    message: str | bytes | None = None
    try:
        for frame in server.received_frames():
            if frame.opcode is Opcode.CLOSE:
                assert isinstance(frame.payload, tuple)
                code, reason = frame.payload
                said = b"" if code == CloseReason.NO_STATUS_RCVD else pack("!H", code) + reason.encode()
                return [*items, Control(CLOSE, said)], "fine"
            assert not isinstance(frame.payload, tuple)
            piece = frame.payload if isinstance(frame.payload, str) else bytes(frame.payload)
            if frame.opcode.iscontrol():
                if frame.opcode is Opcode.PING:
                    assert isinstance(piece, bytes)
                    items.append(Control(PING, piece))
                continue
            message = piece if message is None else message + piece  # type: ignore[operator]
            if frame.message_finished:
                items.append(message)
                message = None
    except ParseFailed as error:
        if "CLOSE" in str(error):
            return items, f"close {error.code:d}"
        return items, "text" if error.code is CloseReason.INVALID_FRAME_PAYLOAD_DATA else "framing"
    return items, "fine"


def state(inbound: Inbound) -> tuple[str, bool, bool]:
    return repr(inbound.fault), inbound.closed, inbound.lost


@settings(deadline=None)
@given(st.lists(frames(), max_size=8).map(b"".join), CUTS)
@example(masked(TEXT, b"x" * 2000) + masked(CLOSE), [3, 1, 1])
@example(masked(TEXT, b"\xff" * 20) + masked(PING) + masked(CLOSE), [3, 1, 1])
def test_however_cut_the_same_comes_out(data: bytes, cuts: list[int]) -> None:
    whole, pieces, late = Inbound(LIMITS), Inbound(LIMITS), Inbound(LIMITS)
    items = feed(whole, [data])
    assert feed(pieces, split(data, cuts)) == items
    assert state(pieces) == state(whole)
    for piece in split(data, cuts):
        late.feed(piece, 0.0)
    assert handed_out(late) == items
    assert state(late) == state(whole)


@settings(deadline=None)
@given(st.lists(frames(), max_size=8))
@example([masked(TEXT, "é".encode()), masked(TEXT, b"\xff"), masked(TEXT, b"later"), masked(CLOSE)])
@example([masked(TEXT, b"a", fin=False), masked(TEXT, b"in a message")])
@example([masked(TEXT, b"x" * 1000), masked(TEXT, b"x" * 1001), masked(TEXT, b"later")])
@example([masked(TEXT, b"x" * 126)[:2], masked(TEXT, b"x" * 126)[2:], masked(TEXT)])
def test_frame_by_frame_the_same_comes_out_as_at_once(data: list[bytes]) -> None:
    whole, pieces = Inbound(LIMITS), Inbound(LIMITS)
    assert feed(pieces, data) == feed(whole, [b"".join(data)])
    assert state(pieces) == state(whole)
    if whole.fault is None:
        assert (pieces.since, held(pieces)) == (whole.since, held(whole))


@settings(deadline=None)
@given(conversations(), CUTS)
def test_what_is_right_comes_out_as_an_independent_parser_reads_it(data: bytes, cuts: list[int]) -> None:
    items, verdict = parsed(data)
    assert verdict == "fine"
    inbound = Inbound(LOOSE, binary=True)
    assert feed(inbound, split(data, cuts)) == items
    assert state(inbound) == ("None", False, False)
    assert (inbound.since, held(inbound)) == (None, 0)


@settings(deadline=None)
@given(st.lists(frames(), max_size=8).map(b"".join))
def test_what_is_wrong_is_found_where_an_independent_parser_finds_it(data: bytes) -> None:
    items, verdict = parsed(data)
    inbound = Inbound(LOOSE, binary=True)
    assert feed(inbound, [data]) == items
    code = None if inbound.fault is None else inbound.fault.code
    answered = any(isinstance(item, Control) and item.opcode == CLOSE for item in items)
    assert inbound.closed == answered or code is not None
    if verdict.startswith("close"):
        assert (f"close {code}", inbound.closed) == (verdict, True)
        return
    if verdict == "framing":
        assert (code, inbound.lost) == (CloseCode.PROTOCOL_ERROR, True)
    elif verdict == "text":  # which it says at the first wrong byte, and we at the end of the message
        unfinished = inbound.since is not None
        assert code in {CloseCode.INVALID_UTF8, CloseCode.PROTOCOL_ERROR} or unfinished
    else:
        assert code in {None, CloseCode.PROTOCOL_ERROR}
    if code == CloseCode.PROTOCOL_ERROR:  # it sees that a frame is out of turn only at its first payload byte
        assert parsed(data + bytes(5))[1] != "fine"
    if code == CloseCode.INVALID_UTF8:
        assert verdict == "text"


@settings(deadline=None)
@given(st.lists(frames(), max_size=8).map(b"".join), CUTS)
def test_nothing_beyond_the_limits_is_handed_out_or_kept(data: bytes, cuts: list[int]) -> None:
    inbound = Inbound(LIMITS)
    for piece in split(data, cuts):
        inbound.feed(piece, 0.0)
        for item in handed_out(inbound):
            assert not isinstance(item, bytes)
            if isinstance(item, str):
                assert len(item.encode()) <= LIMITS.frame_bytes
        assert held(inbound) <= LIMITS.frame_bytes + HEADER + CONTROL_FRAME + len(piece)
        if inbound.fault is not None or inbound.closed:
            assert held(inbound) < HEADER + len(piece)
            assert inbound.next() is None
            assert inbound.pings is None
            assert not inbound.close_reply


@settings(deadline=None)
@given(conversations(), conversations(), st.integers(0, 3000), CUTS)
def test_the_close_is_found_behind_anything_that_is_ignored(
    data: bytes, more: bytes, at: int, cuts: list[int]
) -> None:
    """Whatever was handed out before, and whatever comes behind the close."""
    data += masked(CLOSE)
    at = min(at, len(data) - len(masked(CLOSE)))
    inbound = Inbound(LOOSE, binary=True)
    feed(inbound, [data[:at]])
    inbound.ignore()
    rest = data[at:]
    assert feed(inbound, split(rest[:-1], cuts)) == []
    assert not inbound.closed
    assert feed(inbound, [rest[-1:] + more]) == []
    assert state(inbound) == ("None", True, False)
    assert held(inbound) == 0


UNITS = st.sampled_from(
    [
        masked(TEXT, b"hello"),
        masked(TEXT),
        masked(PING, b"p" * 40),
        masked(TEXT, b"a", fin=False) + masked(PONG) + masked(CONTINUATION, b"b"),
    ]
)


@given(st.lists(UNITS, max_size=6), CUTS)
def test_what_is_unfinished_is_timed_from_the_arrival_of_its_first_byte(
    units: list[bytes], cuts: list[int]
) -> None:
    begins = [
        start for number, unit in enumerate(units) for start in [len(b"".join(units[:number]))] * len(unit)
    ]
    arrival_of: list[int] = []  # of each byte
    inbound = Inbound(LOOSE)
    for now, piece in enumerate(split(b"".join(units), cuts)):
        arrival_of += [now] * len(piece)
        feed(inbound, [piece], float(now))
        at = len(arrival_of)
        inside = 0 < at < len(begins) and begins[at] == begins[at - 1]
        assert inbound.since == (arrival_of[begins[at]] if inside else None)
