"""The built server behind real nginx and Caddy, as docs/security.md configures them."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.client import Chat, target
from tests.support.commands import Command, run
from tests.support.proxies import CERTIFICATE, Proxy, caddy, nginx
from tests.support.raw import UPGRADE, Answer, Raw, handshake, head
from tests.support.scene import Served, await_true, check_stderr

SECRET = "a-secret-that-nobody-may-read"
WRONG = "a-wrong-one-that-nobody-may-read"
STOWAWAY = "one-that-a-proxy-may-quote-as-a-malformed-header"
TOKENS = f'[[token]]\ntoken = "{SECRET}"\n[[token]]\ntoken = "{STOWAWAY}"\n'
HOST = ("Host", "localhost")
ALICE, BOB = "127.0.0.2", "127.0.0.3"
"""Loopback has more than one address; the proxy itself is at 127.0.0.1."""


class Raws(Raw):
    """A client of bytes over a socket that is connected already."""

    def __init__(self, connected: ssl.SSLSocket) -> None:
        self.socket = connected
        self._buffer = bytearray()


@dataclass
class House:
    """A proxy with the server behind it."""

    server: Served
    proxy: Proxy
    chats: list[Chat] = field(default_factory=list)

    def join(self, username: str, address: str = "127.0.0.1", **options: Any) -> Chat:
        where = self.proxy.url + target("den", username, SECRET)
        chat = Chat(where, ssl=self.proxy.trust, source_address=(address, 0), **options)
        self.chats.append(chat)
        return chat

    def call(self, address: str, request: bytes) -> Answer:
        raw = Raws(self.proxy.connect(address))
        try:
            raw.send(request)
            return raw.read_answer()
        finally:
            raw.close()

    def knock(self, address: str, path: str = f"/?token={SECRET}", *headers: tuple[str, str]) -> int:
        return self.call(address, handshake(path, *headers)).status

    def peers(self, event: str, number: int) -> list[str]:
        """Who is named in the first events of this kind; waits until there are so many."""

        def found() -> list[str]:
            lines = [json.loads(line) for line in self.server.stderr.splitlines()]
            return [line["peer"] for line in lines if line["event"] == event]

        await_true(lambda: len(found()) >= number, lambda: self.server.stderr)
        return found()[:number]


Behind = Callable[..., House]
KINDS = {"nginx": nginx, "nginx by a Unix socket": nginx, "caddy": caddy}


@pytest.fixture(params=KINDS)
def behind(request: pytest.FixtureRequest, pyz: Path, tmp_path: Path) -> Iterator[Behind]:
    """Open a house of each kind; at the end the server lives and nothing secret was written."""
    kind: str = request.param
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(TOKENS)
    by_path = "Unix" in kind
    opened: list[AbstractContextManager[Any]] = []
    houses: list[House] = []

    def open_house(*options: str, **changes: str) -> House:
        folder = tmp_path / f"proxy-{len(houses)}"
        folder.mkdir()
        path = str(folder / "s")
        where = ("--unix", path, "--trusted-proxy", "unix") if by_path else ("--trusted-proxy", "127.0.0.1")
        server = Served("--tokens", str(tokens), "--log-format", "json", "--db", "none", *where, *options)
        server.start()
        opened.append(server)
        server.await_listening(2 if by_path else 1)
        proxy = KINDS[kind](folder, path if by_path else server.port, changes)
        houses.append(House(server, proxy.__enter__()))
        opened.append(proxy)
        return houses[-1]

    try:
        yield open_house
        for house in houses:
            for chat in house.chats:
                chat.vanish()
            check_stderr(house.server.stderr, SECRET, WRONG)
            for secret in (SECRET, WRONG):
                assert secret not in house.proxy.logs
    finally:
        for each in reversed(opened):
            each.__exit__(None, None, None)


def test_people_talk_through_it(behind: Behind) -> None:
    house = behind("--rate", "0")
    alice, bob = house.join("alice"), house.join("bob")
    alice.expect("joined", username="bob")
    for number in range(100):
        alice.say(f"{number} " + "x" * 3000)
    for chat in (alice, bob):
        assert [text.split()[0] for text in chat.texts(100)] == [str(number) for number in range(100)]
    page = house.call(ALICE, head("GET / HTTP/1.1", ("Host", "localhost")))
    assert page.status == 200
    assert "script-src" in page.headers["content-security-policy"]
    alice.close()
    bob.expect("left", username="alice")


def test_the_same_file_is_a_client_through_it(behind: Behind, tmp_path: Path) -> None:
    url, env = behind("--rate", "0").proxy.url, {"CHATROOM_TOKEN": SECRET}
    where = (url, "--room", "den", "--ca", str(CERTIFICATE))
    given = "".join(f"{number}\n" for number in range(200))
    with Command(tmp_path, "tail", *where, "--all", env=env) as tail:
        done = run(tmp_path, "say", *where, "--username", "ci", "--lines", given=given, env=env)
        assert done == (0, "stored 200 messages, the last as 200 in den\n", "")
        assert [tail.line().rsplit(maxsplit=1)[1] for _ in range(200)] == given.split()
    untrusted = run(tmp_path, "say", url, given="hi", env=env)
    assert untrusted.code == 1
    assert "its certificate isn't trusted" in untrusted.err


def test_the_clients_own_address_is_the_one_that_counts(behind: Behind) -> None:
    house = behind("--max-per-ip", "2")
    house.join("alice", ALICE)
    house.join("alice", ALICE)
    house.join("bob", BOB)
    assert house.peers("JOIN", 3) == [ALICE, ALICE, BOB]
    assert house.knock(ALICE) == 429
    for claimed in (BOB, "127.0.0.1", "203.0.113.5", "203.0.113.5, 127.0.0.1", "unknown", "", ","):
        assert house.knock(ALICE, f"/?token={SECRET}", ("X-Forwarded-For", claimed)) == 429, claimed
    # A client that has the proxy take out what it put in (hop-by-hop headers) would be nobody.
    for names in ("X-Forwarded-For", "close, X-Forwarded-For, X-Forwarded-Proto"):
        assert house.knock(ALICE, f"/?token={SECRET}", ("Connection", names)) in {400, 429}
    ask = head(f"GET /handshake?token={SECRET} HTTP/1.1", HOST, ("Connection", "keep-alive, X-Forwarded-For"))
    assert house.call(ALICE, ask).status == 429
    assert house.call(BOB, ask).status == 200
    assert house.knock(BOB) == 101


def test_wrong_tokens_are_counted_for_whoever_tries_them(behind: Behind) -> None:
    house = behind()
    ask = head(f"GET /handshake?token={WRONG} HTTP/1.1", ("Host", "localhost"))
    assert {house.call(ALICE, ask).status for _ in range(10)} == {401}
    assert {house.knock(ALICE, f"/?token={WRONG}") for _ in range(10)} == {401}
    answer = house.call(ALICE, handshake(f"/?token={WRONG}"))
    assert answer.status == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert house.knock(ALICE) == house.knock(BOB) == 101
    assert house.knock(BOB, f"/?token={WRONG}") == 401
    assert house.peers("refused", 1) == [ALICE]


def test_a_long_token_and_other_programs_cookies_come_through(behind: Behind) -> None:
    house = behind()
    long = "t" * 8192
    cookies = ("Cookie", "c" * 15_000)
    bearer = ("Authorization", f"Bearer {long}")
    offered = ("Sec-WebSocket-Protocol", f"chatroom.v1, bearer.{long}")
    assert house.knock(ALICE, f"/?token={long}", cookies) == 401
    assert house.knock(ALICE, "/", cookies, bearer) == 401
    assert house.knock(ALICE, "/", cookies, offered) == 401
    assert house.knock(ALICE, f"/?token={SECRET}", cookies) == 101
    assert long not in house.proxy.logs


def test_clients_who_share_a_connection_to_the_server_stay_apart(behind: Behind) -> None:
    """The proxy keeps its connections to the server, and each request says whose it is."""
    house = behind()
    for address in (ALICE, BOB, ALICE):
        assert house.call(address, head("GET /nowhere HTTP/1.1", ("Host", "localhost"))).status == 404
        time.sleep(0.15)  # so that each refusal is logged: ten a second are
    assert house.peers("refused", 3) == [ALICE, BOB, ALICE]


def test_nothing_is_smuggled_through_it(behind: Behind) -> None:
    """No part of a request is taken for another one, be it the sender's next or somebody else's."""
    house = behind()
    inner = handshake(f"/?token={STOWAWAY}&username=stowaway")
    size = str(len(inner))
    chunk = f"{len(inner):x}\r\n".encode()
    upgrade = (*UPGRADE[:-1], ("Sec-WebSocket-Version", "777"))
    for attack in (
        head("POST / HTTP/1.1", HOST, ("Content-Length", size)) + inner,
        head("GET / HTTP/1.1", HOST, ("Content-Length", size)) + inner,
        head("GET /handshake HTTP/1.1", HOST, ("Content-Length", size)) + inner,
        head("GET / HTTP/1.1", HOST, ("Content-Length", f"+{size}")) + inner,
        head("GET / HTTP/1.1", HOST, ("Content-Length", "0"), ("Content-Length", size)) + inner,
        head("GET / HTTP/1.1", HOST, ("Content-Length", size), ("Transfer-Encoding", "chunked")) + inner,
        head("GET / HTTP/1.1", HOST, ("Transfer-Encoding", "chunked")) + b"0\r\n\r\n"[:3] + inner,
        head("GET / HTTP/1.1", HOST, ("Transfer-Encoding", "chunked")) + chunk + inner + b"\r\n0\r\n\r\n",
        head("GET / HTTP/1.1", HOST, ("Transfer-Encoding", " chunked"), ("Content-Length", size)) + inner,
        head("GET / HTTP/1.1", HOST, ("Transfer-Encoding", "xchunked"), ("Content-Length", size)) + inner,
        head("GET / HTTP/1.1", HOST, ("Content-Length ", size)) + inner,
        head("GET / HTTP/1.1", HOST, ("X", "a\rContent-Length: " + size)) + inner,
        head("GET / HTTP/1.1", HOST, ("X", "a\nContent-Length: " + size)) + inner,
        head("GET / HTTP/1.1", HOST, ("Expect", "100-continue"), ("Content-Length", size)) + inner,
        head("GET / HTTP/1.1", HOST, ("Connection", "Content-Length"), ("Content-Length", size)) + inner,
        head("GET / HTTP/1.1", *upgrade, ("Content-Length", size)) + inner,
        head(f"GET /?token={SECRET} HTTP/1.1", *upgrade[1:], ("Host", "a"), ("Content-Length", size)) + inner,
    ):
        with closing(Raws(house.proxy.connect(ALICE))) as raw:
            raw.send(attack)
            # The body may be cut short: the proxy ends it where it finds the request's own malformed.
            assert raw.read_answer(bodiless=True).status != 101, attack
            for _ in range(3):
                answer = house.call(BOB, head("GET /healthz HTTP/1.1", HOST))
                assert (answer.status, answer.body) == (200, b"ok\n"), attack
    assert house.knock(ALICE, f"/?token={STOWAWAY}&username=witness") == 101
    await_true(lambda: "witness" in house.server.stderr, "it would have been seen")
    assert "stowaway" not in house.server.stderr


def test_the_servers_own_origin_is_the_proxys(behind: Behind) -> None:
    house = behind("--origin", "https://elsewhere.example")

    def origin(text: str, *more: tuple[str, str]) -> int:
        request = handshake(f"/?token={SECRET}", ("Origin", text), *more)
        host = f"Host: localhost:{house.proxy.port}".encode()
        return house.call(ALICE, request.replace(b"Host: localhost", host)).status

    assert origin(house.proxy.origin) == 101
    assert origin("https://elsewhere.example") == 101
    assert origin(house.proxy.origin.replace("https", "http")) == 403
    assert origin("https://localhost") == 403
    assert origin("https://evil.example") == 403
    assert origin("https://evil.example", ("X-Forwarded-Host", "evil.example")) == 403


def test_an_idle_connection_is_kept_open_by_pings(behind: Behind, request: pytest.FixtureRequest) -> None:
    """nginx gives up an upstream that says nothing for `proxy_read_timeout`; our pings say something.

    A time-out just above the interval is enough, whenever the last word was said.
    """
    short = {"proxy_read_timeout 60s": "proxy_read_timeout 3s"} if "nginx" in request.node.name else {}
    lost = behind("--ping-interval", "20s", **short).join("alice")
    kept = behind("--ping-interval", "2s", **short).join("alice")
    kept.say("the last word")
    kept.messages(1)
    with pytest.raises(TimeoutError):
        kept.socket.recv(timeout=4)
    if short:
        with pytest.raises(ConnectionClosed):
            lost.socket.recv(timeout=10)
    else:
        with pytest.raises(TimeoutError):
            lost.socket.recv(timeout=1)
    assert kept.ask("ping")["event"] == "pong"


def test_a_stop_is_told_through_it_and_no_token_is_quoted_when_nobody_answers(behind: Behind) -> None:
    house = behind()
    alice = house.join("alice")
    house.server.signal(15)
    assert alice.closing()[0] == 1012
    assert house.server.wait() == 0
    offered = ("Sec-WebSocket-Protocol", f"chatroom.v1, bearer.{SECRET}")
    assert house.knock(ALICE, "/", offered) == 502
    assert house.knock(ALICE) == 502
    assert house.knock(ALICE, "/", ("Authorization", f"Bearer {SECRET}")) == 502
    assert house.knock(ALICE, "/", ("Chatroom-Token", SECRET)) == 502
    await_true(lambda: house.proxy.logs.count("502") >= 4, lambda: house.proxy.logs)
