"""The built server against frames that no client should send: the right close code, and nobody notices."""

import struct
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, close, command, frame
from tests.support.scene import Scene, Served, served

HELLO = command("message", text="hello")
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def closing(scene: Scene, *data: bytes) -> tuple[int, str]:
    """What a member who sends this is told; the others see it leave."""
    witness = scene.join("witness")
    raw = scene.raw("mallory")
    witness.expect("joined", username="mallory")
    raw.send(*data)
    found = raw.read_closing()
    raw.half_close()
    assert raw.read_end() == b""
    frames = [witness.receive()]
    while frames[-1]["event"] != "left":
        frames.append(witness.receive())
    return found


CODES: list[tuple[str, bytes, int]] = [
    # Too big, known from the declared length: not a byte of payload has to come
    ("oversized by one", frame(length=64 * 1024 + 1), 1009),
    ("oversized, 16 MiB", frame(length=16 * MIB), 1009),
    ("oversized, 2**62", frame(length=2**62), 1009),
    ("oversized with payload", frame(b"x" * 65537), 1009),
    ("oversized in two", frame(b"x" * 40_000, first=TEXT) + frame(b"x" * 40_000, first=0x80), 1009),
    ("oversized, then a ping", frame(b"x" * 70_000) + frame(b"", PING), 1009),
    ("oversized in code points that fit", frame("\u20ac" * 30_000), 1009),
    # Too many pieces
    ("65 fragments", frame(b"x", first=TEXT) + frame(b"x", first=0) * 63 + frame(b"x", first=0x80), 1008),
    ("empty fragments without an end", frame(b"", first=TEXT) + frame(b"", first=0) * 64, 1008),
    ("200,000 empty fragments", frame(b"", first=TEXT) + frame(b"", first=0) * 200_000, 1008),
    # Kind
    ("binary", frame(b"hello", BINARY), 1003),
    ("binary, empty", frame(b"", BINARY), 1003),
    ("binary in pieces", frame(b"he", first=BINARY), 1003),
    # Framing
    ("unmasked", frame(b"{}", mask=None), 1002),
    ("unmasked ping", frame(b"", PING, mask=None), 1002),
    ("reserved bit 1", frame(b"{}", first=0xC1), 1002),
    ("reserved bit 2", frame(b"{}", first=0xA1), 1002),
    ("reserved bit 3", frame(b"{}", first=0x91), 1002),
    ("reserved bit on a ping", frame(b"", first=0xC9), 1002),
    *((f"opcode {opcode}", frame(b"", opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    ("a continuation of nothing", frame(b"x", 0), 1002),
    ("a new message within one", frame(b"x", first=TEXT) + frame(b"x"), 1002),
    ("a ping in pieces", frame(b"", first=PING), 1002),
    ("a ping of 126 bytes", frame(b"x" * 126, PING), 1002),
    ("a close of 126 bytes", frame(b"\x03\xe8" + b"x" * 124, CLOSE), 1002),
    ("a length in too many bytes", b"\x81\xfe\x00\x05" + b"\0" * 9, 1002),
    ("a length in far too many bytes", b"\x81\xff" + struct.pack("!Q", 5) + b"\0" * 9, 1002),
    ("a length beyond 63 bits", b"\x81\xff" + struct.pack("!Q", 1 << 63), 1002),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1002),
    # Text
    ("no UTF-8", frame(b"\xff"), 1007),
    ("an overlong form", frame(b"\xc0\x80"), 1007),
    ("a surrogate", frame(b"\xed\xa0\x80"), 1007),
    ("beyond Unicode", frame(b"\xf4\x90\x80\x80"), 1007),
    ("half a character", frame(b'"\xf0\x9f\x98'), 1007),
    ("no UTF-8 in the second piece", frame(b"\xf0\x9f", first=TEXT) + frame(b"\x28", first=0x80), 1007),
    # Close frames
    ("close of one byte", frame(b"\x03", CLOSE), 1002),
    ("close 0", close(0), 1002),
    ("close 999", close(999), 1002),
    ("close 1004", close(1004), 1002),
    ("close 1005", close(1005), 1002),
    ("close 1006", close(1006), 1002),
    ("close 1015", close(1015), 1002),
    ("close 1016", close(1016), 1002),
    ("close 2999", close(2999), 1002),
    ("close 5000", close(5000), 1002),
    ("close 65535", close(65535), 1002),
    ("close with no UTF-8", frame(b"\x03\xe8\xff", CLOSE), 1007),
    # Floods
    ("500 pings", frame(b"", PING) * 500, 1008),
    ("500 pongs", frame(b"", PONG) * 500, 1008),
    ("pings within a message", frame(b"x", first=TEXT) + frame(b"", PING) * 500, 1008),
]


@pytest.mark.parametrize(("data", "code"), [case[1:] for case in CODES], ids=[case[0] for case in CODES])
def test_close_codes(scene: Scene, data: bytes, code: int) -> None:
    found, reason = closing(scene, data)
    assert found == code
    assert reason, "a person at a terminal should see why"
    assert "token" not in reason


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1011, 1012, 3000, 3999, 4000, 4999])
def test_a_close_is_answered(scene: Scene, code: int) -> None:
    found, _ = closing(scene, close(code, "good-bye"))
    assert found == code


def test_a_close_without_a_code(scene: Scene) -> None:
    assert closing(scene, frame(b"", CLOSE)) in ((1000, ""), (1005, ""))


def test_a_close_and_a_ping_in_one_write(scene: Scene) -> None:
    assert closing(scene, close(1000) + frame(b"x", PING) * 3 + HELLO)[0] == 1000


def test_what_comes_before_a_close_is_said(scene: Scene) -> None:
    bob = scene.join("bob")
    raw = scene.raw("eve")
    bob.expect("joined")
    raw.send(HELLO * 20, close(1000))
    assert raw.read_closing()[0] == 1000
    assert bob.texts(20) == ["hello"] * 20
    bob.expect("left", username="eve")


def test_nothing_of_a_refused_message_is_said(scene: Scene) -> None:
    bob = scene.join("bob")
    raw = scene.raw("eve")
    bob.expect("joined")
    raw.send(HELLO, frame(b"", BINARY), HELLO)
    assert raw.read_closing()[0] == 1003
    raw.half_close()
    frames = [bob.receive()]
    if frames[0]["event"] == "message":  # else it was lost with its sender, who has no echo
        frames.append(bob.receive())
    assert frames[-1]["event"] == "left"


def test_pings_are_answered_between_fragments(scene: Scene) -> None:
    raw = scene.raw()
    text = b'{"event":"message","data":{"text":"\xf0\x9f\x98\x80"}}'
    pieces = [text[i : i + 1] for i in range(len(text))]
    raw.send(frame(pieces[0], first=TEXT))
    for number, piece in enumerate(pieces[1:-1]):
        raw.send(frame(piece, first=0), frame(b"p%d" % number, PING) if number < 5 else b"")
    raw.send(frame(pieces[-1], first=0x80))
    for number in range(5):
        assert raw.read_frame() == (PONG, b"p%d" % number)
    assert raw.read_text()["data"]["text"] == "\U0001f600"


def test_sixty_four_fragments_and_a_byte_at_a_time(scene: Scene) -> None:
    raw = scene.raw()
    whole = b'{"event":"message","data":{"text":"in pieces"}}' + b" " * 17
    assert len(whole) == 64
    firsts = [TEXT, *[0] * 62, 0x80]
    data = b"".join(frame(whole[i : i + 1], first=first) for i, first in enumerate(firsts))
    for byte in data:
        raw.send(bytes([byte]))
    assert raw.read_text()["data"]["text"] == "in pieces"


def test_a_client_that_stops_in_the_middle(scene: Scene) -> None:
    """End of stream at every place of a frame: it leaves, and nothing of the torn frame is said."""
    bob = scene.join("bob")
    whole = HELLO + frame(b"x" * 200)
    for cut in (1, 2, 5, 20, len(HELLO) - 1, len(HELLO) + 3, len(HELLO) + 20):
        raw = scene.raw("eve")
        bob.expect("joined", username="eve")
        raw.send(whole[:cut])
        raw.half_close()
        raw.read_end()
        if cut > len(HELLO):
            bob.expect("message", text="hello")
        bob.expect("left", username="eve")


def test_half_closed_after_a_question(scene: Scene) -> None:
    """What was asked before the end is answered, or the connection ends; it never hangs."""
    raw = scene.raw()
    raw.send(command("ping", "p1"))
    raw.half_close()
    raw.read_end()


def test_a_slow_message(scene: Scene) -> None:
    """The one slow test: a message gets ten seconds, however it drips; one that pauses between is fine."""
    begun = time.monotonic()
    raw, idle = scene.raw("mallory"), scene.raw("idle")
    raw.send(frame(b"x", first=TEXT))
    for _ in pairwise(range(40)):
        time.sleep(0.25)
        raw.send(frame(b"", PING))
    while (found := raw.read_frame()) is not None and found[0] != CLOSE:
        assert found == (PONG, b"") or b'"joined"' in found[1]
    assert found is not None
    assert int.from_bytes(found[1][:2], "big") == 1008
    assert 9 < time.monotonic() - begun < 20
    idle.send(HELLO)
    idle.read_event("message")


def test_resets_at_once(scene: Scene) -> None:
    for data in (
        frame(b"x" * 70_000) + frame(b"", PING),
        close(1000) + frame(b"", PING),
        frame(b"\xff"),
        b"\x81",
    ):
        raw = scene.raw()
        raw.send(data)
        raw.reset()
    raws: list[Raw] = [scene.raw() for _ in range(10)]
    for raw in raws:
        raw.reset()
