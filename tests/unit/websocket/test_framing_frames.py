"""Frames as we build them, and the mask of those that clients send."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from chatroom.core.errors import CloseCode
from chatroom.websocket.framing import (
    close_frame,
    close_reply_frame,
    ping_frame,
    pong_frame,
    text_frame,
    unmask,
)


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


def test_pings_and_pongs_carry_their_payload() -> None:
    assert parsed(ping_frame() + ping_frame(b"p" * 125)) == [(Opcode.PING, b""), (Opcode.PING, b"p" * 125)]
    assert parsed(pong_frame(b"") + pong_frame(b"p" * 125)) == [(Opcode.PONG, b""), (Opcode.PONG, b"p" * 125)]
    for frame in (ping_frame, pong_frame):
        with pytest.raises(ValueError, match="125"):
            frame(b"p" * 126)


def test_a_close_is_answered_by_its_like() -> None:
    assert parsed(close_reply_frame(b"")) == [(Opcode.CLOSE, (CloseReason.NO_STATUS_RCVD, ""))]
    assert parsed(close_reply_frame(b"\x03\xe9bye")) == [(Opcode.CLOSE, (CloseReason.GOING_AWAY, "bye"))]


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


KEYS = st.binary(min_size=4, max_size=4)


@given(KEYS, st.binary(max_size=300))
@example(bytes(4), b"as it is")
@example(b"\xff" * 4, b"")
@example(b"\0\0\0\1", b"\0\0\0\1")  # leading noughts are bytes too
@example(b"\1\2\3\4", b"12345")
def test_unmasking_is_the_mask_byte_for_byte(key: bytes, payload: bytes) -> None:
    expected = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    assert unmask(key, payload) == expected
    assert unmask(bytearray(key), bytearray(payload)) == expected


@given(KEYS, st.integers(65_530, 65_540))
def test_a_large_payload_is_unmasked_to_its_last_byte(key: bytes, size: int) -> None:
    payload = bytes(at % 251 for at in range(size))
    assert unmask(key, unmask(key, payload)) == payload
    assert unmask(key, payload)[-5:] == bytes(payload[at] ^ key[at % 4] for at in range(size - 5, size))
