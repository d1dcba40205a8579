"""The built server refuses without helping and without being harmed: what is told, how often, to whom."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.process import ServerProcess, python_command
from tests.support.raw import UPGRADE, Answer, Raw, ask, exchange, get, handshake, head, knock
from tests.support.scene import Scene, Served, await_true, gauges, served, snapshot

HOST = ("Host", "localhost")
PROTECTION = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LONG = "x" * 33_000


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--origin", "null", "--max-per-user", "2", "--trusted-proxy", "127.0.0.1") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def behind(address: str) -> tuple[str, str]:
    """The header of a proxy that asks for this address."""
    return ("X-Forwarded-For", address)


# What every answer carries


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (head("GET / HTTP/1.1", HOST), 200),
        (head("GET /healthz HTTP/1.1", HOST), 200),
        (head("GET /readyz HTTP/1.1", HOST), 200),
        (head("GET /metrics HTTP/1.1", HOST), 200),
        (head("GET /handshake?token=dev-token HTTP/1.1", HOST), 200),
        (head("OPTIONS /handshake HTTP/1.1", HOST), 204),
        (b"nonsense\r\n\r\n", 400),
        (head("GET / HTTP/1.1"), 400),
        (head("GET /handshake?room=a&room=b HTTP/1.1", HOST), 400),
        (handshake("/"), 401),
        (handshake("/?token=dev-token", ("Origin", "https://evil.example")), 403),
        (head("GET /nowhere HTTP/1.1", HOST), 404),
        (head("POST / HTTP/1.1", HOST), 405),
        (b"GET / HTTP/1.1\r\n", 408),
        (head(f"GET /{LONG} HTTP/1.1", HOST), 414),
        (head("GET /?token=dev-token HTTP/1.1", *UPGRADE[:-1], ("Sec-WebSocket-Version", "8")), 426),
        (handshake("/?token=dev-token&username=ann"), 429),
        (head("GET / HTTP/1.1", HOST, ("X", LONG)), 431),
        (head("GET / HTTP/3.0", HOST), 505),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_every_answer_is_protected(scene: Scene, request_bytes: bytes, status: int) -> None:
    with ExitStack() as stack:
        if status == 429:
            stack.callback(scene.join("ann").vanish)
        answer = exchange(scene.server.port, request_bytes)
    assert answer.status == status, answer
    check_protection(answer, page=request_bytes.startswith(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))


def check_protection(answer: Answer, *, page: bool = False) -> None:
    """Nothing here may be sniffed, framed, told by a referrer, or kept; the page only if asked about."""
    found = {name: answer.headers.get(name, "") for name in PROTECTION}
    if page:
        policy = found.pop("content-security-policy")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert found.pop("cache-control") == "no-cache"
    assert found == {name: PROTECTION[name] for name in found}
    assert answer.headers.get("content-type", "text/plain").startswith(("text/", "application/json"))
    assert "server" not in answer.headers, "which software that is is nobody's business"


def test_a_full_server_says_so_and_stays_well(pyz: Path) -> None:
    """Neither those inside nor the operator's paths suffer from those who can't come in."""
    with served("--max-connections", "3", "--rate", "0") as server, Scene(server) as scene:
        alice = scene.join("alice")
        for number in range(300):
            answer = knock(server.port, target("den", f"guest-{number}"))
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
        check_protection(answer)
        alice.say("still here")
        assert alice.texts(1) == ["still here"]
        assert get(server.port, "/healthz").status == get(server.port, "/readyz").status == 200
        alice.close()
        await_true(lambda: ask(server.port, target("den", "alice")).status == 200, "a place is free")
        scene.join("bob")


# One 401


def test_every_wrong_token_gets_the_same_bytes(scene: Scene) -> None:
    """All but the date, at the door and at the enquiry, so that nothing says what was wrong."""
    queries = ("", "?token=", "?token=wrong", "?token=token-alicf", "?token=token-alice%20", "?token=%ff")
    queries += ("?token=%zz", "?token=%00", f"?token={'x' * 5000}", "?token=token-alic", "?Token=dev-token")
    headers: list[tuple[str, str]] = [
        ("Authorization", "Bearer wrong"),
        ("Authorization", "Bearer"),
        ("Authorization", "Basic ZGV2LXRva2Vu"),
        ("Authorization", "Bearer dev-token x"),
        ("Sec-WebSocket-Protocol", "chatroom.v1, bearer.wrong"),
        ("Sec-WebSocket-Protocol", "bearer.dev-token"),
    ]
    for act in (knock, ask):
        answers = [act(scene.server.port, "/" + query) for query in queries]
        answers += [act(scene.server.port, "/", header) for header in headers]
        for answer in answers:
            answer.headers.pop("date")
        assert {each.status for each in answers} == {401}
        assert len({(each.body, tuple(each.headers.items())) for each in answers}) == 1


def test_wrong_tokens_of_an_address_are_counted_whatever_they_are_shown_to(scene: Scene) -> None:
    """Twenty in a minute, at the door and at the enquiry together; then wrong ones wait, right ones don't."""
    port = scene.server.port
    for number in range(10):
        assert knock(port, f"/?token=wrong-{number}", behind("203.0.113.5")).status == 401
        assert ask(port, "/", behind("203.0.113.5")).status == 401
    for query in ("?token=wrong", "?token=%ff", ""):
        for act in (knock, ask):
            answer = act(port, "/" + query, behind("203.0.113.5"))
            assert answer.status == 429
            assert 0 < int(answer.headers["retry-after"]) <= 60
            check_protection(answer)
    assert ask(port, "/?token=dev-token", behind("203.0.113.5")).status == 200
    raw = Raw(port)
    raw.upgrade("/?token=dev-token", behind("203.0.113.5"))
    raw.close()
    assert ask(port, "/?token=wrong", behind("203.0.113.6")).status == 401
    assert ask(port, "/?token=wrong").status == 401


def test_an_ipv6_network_is_one_address(scene: Scene) -> None:
    port = scene.server.port
    for number in range(20):
        assert ask(port, "/", behind(f"2001:db8:1:2:{number:x}::1")).status == 401
    assert ask(port, "/?token=wrong", behind("2001:db8:1:2:ffff::")).status == 429
    assert ask(port, "/?token=dev-token", behind("2001:db8:1:2:ffff::")).status == 200
    assert ask(port, "/?token=wrong", behind("2001:db8:1:3::")).status == 401


def test_loopback_may_try_as_often_as_it_likes(pyz: Path) -> None:
    with served() as server, Scene(server):
        for number in range(50):
            assert ask(server.port, f"/?token=wrong-{number}", behind("203.0.113.5")).status == 401
        assert ask(server.port, "/?token=dev-token").status == 200


def test_connections_of_an_address_are_counted_and_given_back(pyz: Path) -> None:
    """By the address that a trusted proxy names; an IPv6 address counts with its network."""
    with served("--max-per-ip", "2", "--trusted-proxy", "127.0.0.1", "--rate", "0") as server, Scene(server):
        for first, same, other in (
            ("203.0.113.5", "::ffff:203.0.113.5", "203.0.113.6"),
            ("2001:db8:1:2::1", "2001:db8:1:2:3::1", "2001:db8:1:3::1"),
            ("127.0.0.9", "127.0.0.9:1234", "127.0.0.8"),
        ):
            inside = [Raw(server.port), Raw(server.port)]
            for raw, address in zip(inside, (first, same), strict=True):
                raw.upgrade("/?token=dev-token", behind(address))
            for act in (knock, ask):
                for address in (first, same):
                    answer = act(server.port, "/?token=dev-token", behind(address))
                    assert answer.status == 429
                    assert int(answer.headers["retry-after"]) > 0
                assert ask(server.port, "/?token=wrong", behind(first)).status == 429
                assert ask(server.port, "/?token=dev-token", behind(other)).status == 200
                assert ask(server.port, "/?token=dev-token").status == 200
            inside[0].close()
            again = behind(first)
            await_true(
                lambda again=again: ask(server.port, "/?token=dev-token", again).status == 200,  # type: ignore[misc]
                "a place is free",
            )
            inside[1].close()


# Descriptors, and places before the door


@contextmanager
def hanging(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing; those which the server can't accept wait in its backlog."""
    sockets = []
    try:
        for _ in range(number):
            sock = socket.socket()
            sockets.append(sock)
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def test_those_who_hang_before_the_door_are_bounded_and_keep_nobody_out(scene: Scene) -> None:
    """Of hundreds who say nothing a hundred are held, the oldest go, and who says something comes in."""
    alice = scene.join("alice")
    with hanging(scene.server.port, 400):
        bob = scene.join("bob")
        alice.expect("joined", username="bob")
        assert snapshot(scene.server)["chatroom_handshakes"] <= 100
        bob.say("in spite of them")
        assert alice.texts(1) == ["in spite of them"]
    await_true(lambda: gauges(scene.server)["chatroom_handshakes"] <= 2, "they are forgotten")


def cpu_seconds(pid: int) -> float:
    """What the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_running_out_of_descriptors_hurts_nobody_inside(pyz: Path) -> None:
    """Hundreds hang at a server of 60 descriptors; those inside talk on, and then others come in again."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = ["sh", "-c", 'ulimit -n 60 && exec "$@"', "sh", *python_command()]
    with ServerProcess("--rate", "0", command=limited) as server:
        where = server.ws_url + target("den", "alice"), server.ws_url + target("den", "bob")
        alice, bob = Chat(where[0]), Chat(where[1])
        alice.expect("joined", username="bob")
        before = cpu_seconds(server.pid)
        started = time.monotonic()
        with hanging(server.port, min(400, hard - 100)):
            await_true(lambda: "accept_failed" in server.stderr, "the descriptors are out")
            said = 0
            while time.monotonic() < started + 4:
                for chat in (alice, bob):
                    chat.say(f"still here {said}")
                    assert [each.texts(1)[0] for each in (alice, bob)] == [f"still here {said}"] * 2
                    said += 1
                time.sleep(0.1)
            used = cpu_seconds(server.pid) - before
            assert used < 2, "it doesn't spin"
            assert server.stderr.count("accept_failed") <= 2 * (time.monotonic() - started) + 2
        await_true(lambda: ask_patiently(server.port), "others come in again", pause=0.2)
        carol = Chat(server.ws_url + target("den", "carol"))
        for chat in (alice, bob):
            chat.expect("joined", username="carol")
            chat.close()
        carol.close()
        assert server.stop() == 0
        assert "connection_failed" not in server.stderr
        assert "Traceback" not in server.stderr


def ask_patiently(port: int) -> bool:
    """The server answers a new connection."""
    raw = Raw(port)
    try:
        raw.socket.settimeout(1)
        raw.send(head("GET /healthz HTTP/1.1", HOST))
        return raw.read_answer().status == 200
    except (OSError, AssertionError):
        return False
    finally:
        raw.close()
