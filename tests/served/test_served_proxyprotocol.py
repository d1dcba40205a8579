"""The built server behind proxies that say for whom they ask, each as docs/security.md shows it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.proxies import CERTIFICATE, PAGE, Proxy, executable, free_port, running
from tests.support.proxyprotocol import haproxy, hitch, stunnel
from tests.support.raw import Answer, Raw, exchange, handshake, head
from tests.support.scene import Served, await_true, check_clean, refused_start

SECRET = "a-secret-that-nobody-may-read"
ALICE, BOB = "127.0.0.2", "127.0.0.3"
"""Loopback has more than one address; the proxy itself is at 127.0.0.1."""
HOST = ("Host", "localhost")
EXPECTED = ("--trusted-proxy", "127.0.0.1", "--proxy-protocol")


class Raws(Raw):
    """A client of bytes over a socket that is connected already."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._buffer = bytearray()


def call(proxy: Proxy, address: str, request: bytes) -> Answer:
    with closing(Raws(proxy.connect(address))) as raw:
        raw.send(request)
        return raw.read_answer()


@pytest.fixture
def open_server(pyz: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Servers with one token; at the end they live, know no fault, and no token is in their logs."""
    (tmp_path / "tokens.toml").write_text(f'[[token]]\ntoken = "{SECRET}"\n')
    opened: list[Served] = []

    def open_one(*options: str, listeners: int = 1) -> Served:
        options = (
            "--tokens",
            str(tmp_path / "tokens.toml"),
            "--log-format",
            "json",
            "--db",
            "none",
            *options,
        )
        server = stack.enter_context(Served("--host", "127.0.0.1", *options))
        server.await_listening(listeners)
        opened.append(server)
        return server

    with ExitStack() as stack:
        yield open_one
        for server in opened:
            check_clean(server, SECRET)
            assert server.stop() == 0


def peers(server: Served, event: str, number: int) -> list[str]:
    """Who is named in the first events of this kind; waits until there are so many."""

    def found() -> list[str]:
        lines = [json.loads(line) for line in server.stderr.splitlines()]
        return [line["peer"] for line in lines if line["event"] == event]

    await_true(lambda: len(found()) >= number, lambda: server.stderr)
    return found()[:number]


# Proxies that pass bytes on

Passing = Callable[[Path, int], AbstractContextManager[Proxy]]
PASSING: dict[str, Passing] = {
    "HAProxy, version 1": lambda folder, port: haproxy(folder, port, "send-proxy"),
    "HAProxy, version 2": lambda folder, port: haproxy(folder, port, "send-proxy-v2"),
    "HAProxy, as shown": lambda folder, port: haproxy(
        folder, port, "send-proxy-v2-ssl check-send-proxy check"
    ),
    "HAProxy with a checksum": lambda folder, port: haproxy(
        folder, port, "send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,crc32c,unique-id"
    ),
    "hitch": hitch,
    "stunnel": stunnel,
}


@pytest.mark.parametrize("kind", PASSING)
def test_the_client_is_whom_the_proxy_names_and_not_whom_he_names_himself(
    kind: str, open_server: Callable[..., Served], tmp_path: Path
) -> None:
    server = open_server(*EXPECTED, "--max-per-ip", "2", "--rate", "0")
    with PASSING[kind](tmp_path, server.port) as proxy:
        where = proxy.url + target("den", "alice", SECRET)
        alice = [Chat(where, ssl=proxy.trust, source_address=(ALICE, 0)) for _ in range(2)]
        assert peers(server, "JOIN", 2) == [ALICE, ALICE]
        knock = handshake(f"/?token={SECRET}")
        for claimed in (BOB, "127.0.0.1", "203.0.113.5", "", "unknown"):
            request = handshake(f"/?token={SECRET}", ("X-Forwarded-For", claimed))
            assert call(proxy, ALICE, request).status == 429, claimed
        assert call(proxy, ALICE, knock).status == 429
        assert call(proxy, BOB, knock).status == 101
        for number in range(50):
            alice[0].say(f"{number} " + "x" * 3000)
        assert [text.split()[0] for text in alice[1].texts(50)] == [str(number) for number in range(50)]
        for chat in alice:
            chat.close()
        peers(server, "LEAVE", 3)
        assert "untrusted_proxy" not in server.stderr
        assert "proxy_header_refused" not in server.stderr


def test_that_the_client_came_by_tls_is_told_and_makes_the_own_origin(
    open_server: Callable[..., Served], tmp_path: Path
) -> None:
    server = open_server(*EXPECTED, "--origin", "https://elsewhere.example")
    for how, own in (("send-proxy-v2-ssl", 101), ("send-proxy-v2", 403)):
        (folder := tmp_path / how).mkdir()
        with haproxy(folder, server.port, how) as proxy:
            for origin, status in (
                (proxy.origin, own),
                ("https://evil.example", 403),
                ("https://elsewhere.example", 101),
            ):
                request = handshake(f"/?token={SECRET}", ("Origin", origin))
                request = request.replace(b"Host: localhost", f"Host: localhost:{proxy.port}".encode())
                assert call(proxy, ALICE, request).status == status, (how, origin)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
def test_the_header_comes_before_the_tls_that_the_server_ends(
    how: str, open_server: Callable[..., Served], tmp_path: Path
) -> None:
    server = open_server(*EXPECTED, "--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE))
    with haproxy(tmp_path, server.port, how, through=True) as proxy:
        assert call(proxy, ALICE, handshake(f"/?token={SECRET}")).status == 101
        assert peers(server, "JOIN", 1) == [ALICE]
        request = handshake(f"/?token={SECRET}", ("Origin", proxy.origin))
        assert call(proxy, ALICE, request).status == 101


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
def test_the_header_by_a_unix_socket(how: str, open_server: Callable[..., Served], tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server = open_server("--unix", path, "--trusted-proxy", "unix", "--proxy-protocol", listeners=2)
    with haproxy(tmp_path, path, how) as proxy:
        assert call(proxy, ALICE, handshake(f"/?token={SECRET}")).status == 101
        assert peers(server, "JOIN", 1) == [ALICE]
    # Who comes by TCP isn't trusted here, and speaks as ever.
    assert exchange(server.port, head("GET /healthz HTTP/1.1", HOST)).status == 200
    assert exchange(server.port, LINE + head("GET /healthz HTTP/1.1", HOST)).status == 400


# By hand

LINE = b"PROXY TCP4 203.0.113.5 127.0.0.1 5 6\r\n"


@pytest.mark.usefixtures("measured")
def test_what_comes_without_a_header_from_who_has_to_send_one_is_refused(
    open_server: Callable[..., Served],
) -> None:
    server = open_server(*EXPECTED)
    for request in (
        head("GET /healthz HTTP/1.1", HOST),
        b"PROXY TCP4 1.1.1.1\r\n",
        b"\x16\x03\x01" + bytes(50),
    ):
        answer = exchange(server.port, request)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert "PROXY protocol" in answer.text
    assert peers(server, "proxy_header_refused", 1) == ["127.0.0.1"]
    with closing(Raw(server.port)) as silent, closing(Raw(server.port)) as slow:
        slow.send(LINE[:-1])
        assert slow.read_answer().status == 408
        assert silent.read_end() == b""
    assert exchange(server.port, LINE + handshake(f"/?token={SECRET}")).status == 101
    assert peers(server, "JOIN", 1) == ["203.0.113.5"]
    assert server.stderr.count('"proxy_header_refused"') == 1, "it is told once"


def test_who_is_not_trusted_sends_no_header(open_server: Callable[..., Served]) -> None:
    server = open_server("--trusted-proxy", "192.0.2.1", "--proxy-protocol")
    assert exchange(server.port, head("GET /healthz HTTP/1.1", HOST)).status == 200
    assert exchange(server.port, LINE + head("GET /healthz HTTP/1.1", HOST)).status == 400
    assert exchange(server.port, handshake(f"/?token={SECRET}")).status == 101
    assert peers(server, "JOIN", 1) == ["127.0.0.1"]
    assert "203.0.113.5" not in server.stderr


def test_a_header_of_two_bytes_at_a_time_and_one_together_with_all_that_follows(
    open_server: Callable[..., Served],
) -> None:
    server = open_server(*EXPECTED)
    request = handshake(f"/?token={SECRET}")
    with closing(Raw(server.port)) as slow, closing(Raw(server.port)) as quick:
        for at in range(0, len(LINE), 2):
            slow.send(LINE[at : at + 2])
        slow.send(request)
        quick.send(LINE + request)
        assert slow.read_answer().status == quick.read_answer().status == 101
    assert peers(server, "JOIN", 2) == ["203.0.113.5"] * 2


def test_a_header_of_a_proxy_behind_the_one_that_is_named_counts(open_server: Callable[..., Served]) -> None:
    """A balancer that passes bytes on, before proxies that write X-Forwarded-For."""
    server = open_server(*EXPECTED, "--trusted-proxy", "203.0.113.0/24")
    named = handshake(f"/?token={SECRET}", ("X-Forwarded-For", "198.51.100.7"))
    assert exchange(server.port, LINE + named).status == 101
    assert peers(server, "JOIN", 1) == ["198.51.100.7"]


@pytest.mark.usefixtures("measured")
def test_the_option_needs_a_proxy_to_be_trusted(pyz: Path) -> None:
    assert "--trusted-proxy" in refused_start("--proxy-protocol")


# Proxies that speak HTTP: what the page says of the header


def says(proxy: str, pattern: str) -> str:
    """The line that the page's table gives for the proxy."""
    (row,) = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| {proxy} |")]
    found = re.search(pattern, row)
    assert found, row
    return found[0]


def haproxy_http(folder: Path, server: int) -> AbstractContextManager[Proxy]:
    port = free_port()
    line = says("HAProxy, `mode http`", r"http-request set-header X-Forwarded-For %\[src\]")
    (folder / "haproxy.cfg").write_text(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"listen chatroom\n bind 127.0.0.1:{port} ssl crt {CERTIFICATE}\n {line}\n"
        f" option httpchk\n server chatroom 127.0.0.1:{server} check inter 200ms\n"
    )
    return running([executable("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"], Proxy(port, folder))


def apache(folder: Path, server: int) -> AbstractContextManager[Proxy]:
    port = free_port()
    assert says("Apache", "leave `ProxyAddHeaders` on")
    modules = "mpm_event authz_core proxy proxy_http proxy_wstunnel rewrite ssl socache_shmcb"
    loaded = "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules.split()
    )
    (folder / "apache.conf").write_text(
        f"ServerRoot {folder}\nServerName localhost\nPidFile {folder}/pid\n"
        f"ErrorLog {folder}/error.log\n{loaded}"
        f"Listen 127.0.0.1:{port}\nSSLEngine on\nSSLCertificateFile {CERTIFICATE}\n"
        f"SSLCertificateKeyFile {CERTIFICATE}\n"
        f"ProxyPass / http://127.0.0.1:{server}/ upgrade=websocket\n"
    )
    (folder / "mutex").mkdir()
    command = [
        executable("apache2"),
        "-DFOREGROUND",
        "-C",
        f"DefaultRuntimeDir {folder}",
        "-f",
        f"{folder}/apache.conf",
    ]
    return running(command, Proxy(port, folder))


SPEAKING = {"HAProxy": haproxy_http, "Apache": apache}


@pytest.mark.parametrize("kind", SPEAKING)
def test_the_address_that_the_proxy_sees_is_the_one_that_counts(
    kind: str, open_server: Callable[..., Served], tmp_path: Path
) -> None:
    server = open_server("--trusted-proxy", "127.0.0.1", "--max-per-ip", "2")
    with SPEAKING[kind](tmp_path, server.port) as proxy:
        where = proxy.url + target("den", "alice", SECRET)
        alice = [Chat(where, ssl=proxy.trust, source_address=(ALICE, 0)) for _ in range(2)]
        assert peers(server, "JOIN", 2) == [ALICE, ALICE]
        for claimed in (BOB, "127.0.0.1", "203.0.113.5", "203.0.113.5, 127.0.0.1", "unknown"):
            request = handshake(f"/?token={SECRET}", ("X-Forwarded-For", claimed))
            assert call(proxy, ALICE, request).status == 429, claimed
        assert call(proxy, BOB, handshake(f"/?token={SECRET}")).status == 101
        for chat in alice:
            chat.close()


@pytest.mark.usefixtures("measured")
def test_a_proxy_that_was_forgotten_is_told_once(open_server: Callable[..., Served], tmp_path: Path) -> None:
    server = open_server()
    with haproxy_http(tmp_path, server.port) as proxy:
        for _ in range(3):
            assert call(proxy, ALICE, head("GET /healthz HTTP/1.1", HOST)).status == 200
        assert call(proxy, ALICE, handshake(f"/?token={SECRET}")).status == 101
    assert peers(server, "JOIN", 1) == peers(server, "untrusted_proxy", 1) == ["127.0.0.1"]
    assert server.stderr.count('"untrusted_proxy"') == 1
