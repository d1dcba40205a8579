"""The built server against heads that no client should send: refused with one line, never guessed at."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw import KEY, UPGRADE, Raw, exchange, get, handshake, head
from tests.support.scene import Scene, Served, check_clean, served

HOST = ("Host", "localhost")
GOOD = "/?token=dev-token"
H = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"BLAH\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60 + b"\r\n\r\n", 400),
        (b"\r\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
        (H + b"X: a\nb\r\n\r\n", 400),
        (H + b"X: a\r\n b\r\n\r\n", 400),
        (H + b"X: \x00\r\n\r\n", 400),
        (H + b"X\x00: 1\r\n\r\n", 400),
        (H + b"X : 1\r\n\r\n", 400),
        (H + b"no colon\r\n\r\n", 400),
        (H + b": 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://u@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /#x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (H + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (H + b"Content-Length: -1\r\n\r\n", 400),
        (H + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /" + b"x" * 100_000, 414),
        (b"x" * 20_000, 414),
        (H + b"X: " + b"x" * 33_000 + b"\r\n\r\n", 431),
        (H + b"X: y\r\n" * 100 + b"\r\n", 431),
        (H + b"X: y\r\n" * 5000, 431),
    ],
)  # fmt: skip
def test_wrong_heads(scene: Scene, request_bytes: bytes, status: int) -> None:
    """400 or its like, one line, and the end: never a guess, and never silence."""
    visitor = scene.visitor()
    visitor.send(request_bytes)
    answer = visitor.read_answer()
    assert answer.status == status, answer
    assert len(answer.text.strip().splitlines()) == 1
    assert visitor.read_end() == b""


def upgrade_but(name: str, *values: str) -> bytes:
    """A handshake with other values of one header."""
    others = [pair for pair in UPGRADE if pair[0] != name]
    return head(f"GET {GOOD} HTTP/1.1", *others, *((name, value) for value in values))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (upgrade_but("Upgrade"), 400),
        (upgrade_but("Upgrade", "websocket", "websocket"), 400),
        (upgrade_but("Upgrade", "WebSocket"), 101),
        (upgrade_but("Connection"), 400),
        (upgrade_but("Connection", "keep-alive"), 400),
        (upgrade_but("Connection", "keep-alive, Upgrade"), 101),
        (upgrade_but("Connection", "upgrade\xff"), 400),
        (upgrade_but("Sec-WebSocket-Key"), 400),
        (upgrade_but("Sec-WebSocket-Key", ""), 400),
        (upgrade_but("Sec-WebSocket-Key", "short"), 400),
        (upgrade_but("Sec-WebSocket-Key", KEY[:-2] + "\xff="), 400),
        (upgrade_but("Sec-WebSocket-Key", KEY, KEY), 400),
        (upgrade_but("Sec-WebSocket-Version"), 400),
        (upgrade_but("Sec-WebSocket-Version", "13", "13"), 400),
        (upgrade_but("Sec-WebSocket-Version", "13, 8"), 426),
        (upgrade_but("Sec-WebSocket-Version", "8"), 426),
        (upgrade_but("Host"), 400),
        (upgrade_but("Host", ""), 400),
        (upgrade_but("Host", "a", "b"), 400),
        (handshake(GOOD, ("Content-Length", "5")) + b"hello", 400),
        (handshake(GOOD, ("Content-Length", "0")), 101),
        (handshake(GOOD, ("Transfer-Encoding", "chunked")), 400),
        (handshake(GOOD, ("Expect", "100-continue")), 400),
        (handshake(GOOD, ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")), 101),
        (handshake(GOOD, ("Sec-WebSocket-Extensions", ";;;\xff")), 101),
        (handshake(GOOD, ("Sec-WebSocket-Protocol", "\xff")), 400),
        (handshake(GOOD, ("Sec-WebSocket-Protocol", "a, a")), 400),
        (handshake(GOOD, ("Cookie", "\xff" * 1000)), 101),
        (handshake(GOOD.replace("/", "ws://localhost/", 1)), 400),
        (head(f"GET {GOOD} HTTP/1.0", *UPGRADE), 505),
    ],
)  # fmt: skip
def test_wrong_upgrades(scene: Scene, request_bytes: bytes, status: int) -> None:
    answer = exchange(scene.server.port, request_bytes)
    assert answer.status == status, answer
    if status == 426:
        assert answer.headers["sec-websocket-version"] == "13"
    if status == 101:
        assert "sec-websocket-extensions" not in answer.headers


def test_an_upgrade_to_something_else_is_ignored(scene: Scene) -> None:
    answer = get(scene.server.port, "/healthz", ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"))
    assert answer.status == 200


def test_a_head_that_is_never_finished(scene: Scene) -> None:
    """Nothing came: closed without a word. Something came: 408. Five seconds in all, however it drips."""
    begun = time.monotonic()
    silent, slow, dripping = scene.visitor(), scene.visitor(), scene.visitor()
    kept = scene.visitor()
    kept.send(head("GET /healthz HTTP/1.1", HOST))
    assert kept.read_answer().status == 200
    slow.send(b"GET / HTTP/1.1\r\nHost: loc")
    dripping.socket.settimeout(0.2)
    answer = None
    for byte in head("GET / HTTP/1.1", HOST, ("X", "y" * 200)):
        dripping.send(bytes([byte]))
        try:
            answer = dripping.read_answer()
            break
        except TimeoutError:
            assert time.monotonic() < begun + 20
    assert answer is not None
    assert answer.status == 408
    assert 4 < time.monotonic() - begun < 15
    assert slow.read_answer().status == 408
    assert silent.read_end() == kept.read_end() == b""


def test_strangers_bytes_end_only_themselves(scene: Scene) -> None:
    """What once ended a process that used the library's own server."""
    for request in (
        upgrade_but("Host", "\xff"),
        upgrade_but("Connection", "Upgrade, \xff"),
        handshake(GOOD, ("Sec-WebSocket-Protocol", "\xff")),
        handshake(GOOD, ("Sec-WebSocket-Extensions", "\xff")),
        handshake("/\xff"),
        b"BLAH",
    ):
        raw = Raw(scene.server.port)
        raw.send(request)
        raw.reset()
    assert get(scene.server.port, "/healthz").status == 200


# What is large and still right

COOKIES = ("Cookie", "; ".join(f"program-{number}={'c' * 200}" for number in range(60)))
"""What browsers send along: cookies know no ports."""


def test_a_token_of_8192_characters_fits_in_every_way_of_sending_it(pyz: Path, tmp_path: Path) -> None:
    long = "t" * 8192
    (tmp_path / "tokens.toml").write_text(f'[[token]]\ntoken = "{long}"\n')
    bearer = ("Authorization", f"Bearer {long}")
    offered = ("Sec-WebSocket-Protocol", f"chatroom.v1, bearer.{long}")
    room = "room=" + "%C3%A9" * 64
    with Served("--tokens", str(tmp_path / "tokens.toml"), "--log-format", "json") as server:
        assert len(COOKIES[1]) > 12_000
        for path, *headers in (
            (f"/?{room}&token={long}", COOKIES),
            (f"/?{room}", COOKIES, bearer),
            (f"/?{room}", COOKIES, offered),
            (f"/?{room}&token={long}", ("Cookie", "c" * 4000), bearer, offered),
        ):
            assert exchange(server.port, handshake(path, *headers)).status == 101
            if offered not in headers:
                answer = get(server.port, "/handshake" + path[1:], *headers)
                assert answer.status == 200
        check_clean(server, long)
        assert server.stop() == 0


def test_a_head_may_be_as_large_as_is_said(scene: Scene) -> None:
    most = H + b"X: " + b"x" * (32 * 1024 - len(H) - 7) + b"\r\n\r\n"
    assert len(most) == 32 * 1024
    assert exchange(scene.server.port, most).status == 200
    many = H + b"X: y\r\n" * 99 + b"\r\n"
    assert exchange(scene.server.port, many).status == 200
    line = b"GET /?" + b"x" * (16 * 1024 - 17) + b" HTTP/1.1\r\n"
    assert len(line) == 16 * 1024
    assert exchange(scene.server.port, line + b"Host: a\r\n\r\n").status == 200


def test_who_sends_too_many_cookies_is_told_what_to_do(scene: Scene) -> None:
    for request in (
        handshake(GOOD, ("Cookie", "c" * 33_000)),
        head("GET / HTTP/1.1", HOST, *[("Cookie", "c" * 300)] * 99, ("Cookie", "c" * 9000)),
    ):
        answer = exchange(scene.server.port, request)
        assert answer.status == 431
        assert "Cookies count" in answer.text
        assert "delete them, or use another host name" in answer.text
    assert "in a header" in get(scene.server.port, "/?" + "x" * 17_000).text
