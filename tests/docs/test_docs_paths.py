"""The built server under a path of a site, behind real proxies with what docs/operations.md shows."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Visitor
from tests.support.client import Chat
from tests.support.pages import ROOT, blocks, section
from tests.support.proxies import Proxy, executable, free_port, running
from tests.support.raw import Answer, Raw, handshake, head, knock
from tests.support.scene import Scene, Served, await_true, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text("utf-8")
ALICE = "127.0.0.2"
MODULES = Path("/usr/lib/apache2/modules")


@dataclass(frozen=True)
class Front:
    """A running proxy before a server."""

    server: Served
    port: int

    def call(self, request: bytes) -> Answer:
        """What it answers somebody at ALICE."""
        raw = Raw(self.port)
        raw.socket.close()
        raw.socket = socket.create_connection(("127.0.0.1", self.port), 20, (ALICE, 0))
        try:
            raw.send(request)
            return raw.read_answer()
        finally:
            raw.close()

    def get(self, path: str, *headers: tuple[str, str]) -> Answer:
        return self.call(head(f"GET {path} HTTP/1.1", ("Host", f"localhost:{self.port}"), *headers))


def shown(kind: str, changes: dict[str, str]) -> str:
    """The block of this kind, fitted to this machine."""
    (text,) = blocks(section(OPERATIONS, "Under a path"), kind)
    for old, new in changes.items():
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int, server: int, text: str | None = None) -> list[str]:
    (page,) = blocks(SECURITY, "nginx")
    (upgrade,) = re.findall(r"^map .*?^}", page, re.MULTILINE | re.DOTALL)
    site = text or shown("nginx", {"127.0.0.1:3000": f"127.0.0.1:{server}"})
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off;\nuser root;\npid {folder}/pid;\nerror_log {folder}/main.log;\nevents {{}}\nhttp {{\n"
        f"{temporary}{upgrade}\naccess_log {folder}/access.log;\n"
        f"server {{\nlisten 127.0.0.1:{port};\n{site}\n}}\n}}\n"
    )
    return [executable("nginx"), "-e", f"{folder}/main.log", "-p", str(folder), "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, port: int, server: int) -> list[str]:
    site = shown("caddy", {"127.0.0.1:3000": f"127.0.0.1:{server}"})
    names = f"http://localhost:{port}, http://127.0.0.1:{port}"
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{names} {{\n\tbind 127.0.0.1\n{site}}}\n")
    return [executable("caddy"), "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


def haproxy(folder: Path, port: int, server: int) -> list[str]:
    bind = "bind :443 ssl crt /etc/ssl/chat.example/both.pem"
    changes = {bind: f"bind 127.0.0.1:{port}", "127.0.0.1:3000": f"127.0.0.1:{server}"}
    (folder / "haproxy.cfg").write_text(shown("haproxy", changes))
    return [executable("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"]


def apache(folder: Path, port: int, server: int) -> list[str]:
    needed = ("mpm_event", "alias", "proxy", "proxy_http", "headers", "authz_core")
    modules = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in needed)
    site = shown("apache", {"127.0.0.1:3000": f"127.0.0.1:{server}"})
    (folder / "apache.conf").write_text(
        f"ServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/pid\nErrorLog {folder}/error.log\n"
        f"{modules}<VirtualHost *:{port}>\n{site}</VirtualHost>\n"
    )
    return [executable("apache2"), "-D", "FOREGROUND", "-d", str(folder), "-f", f"{folder}/apache.conf"]


PROXIES: dict[str, Callable[[Path, int, int], list[str]]] = {
    "nginx": nginx,
    "caddy": caddy,
    "haproxy": haproxy,
    "apache": apache,
}


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    options = (
        "--trusted-proxy",
        "127.0.0.1",
        "--origin",
        "https://elsewhere.example",
        "--log-format",
        "json",
    )
    with served(*options) as running_server:
        yield running_server


@contextmanager
def front(command: list[str], folder: Path, port: int, server: Served) -> Iterator[Front]:
    with running(command, Proxy(port, folder)):
        yield Front(server, port)


@pytest.fixture(params=PROXIES)
def behind(request: pytest.FixtureRequest, server: Served, tmp_path: Path) -> Iterator[Front]:
    port = free_port()
    opened: AbstractContextManager[Front]
    opened = front(PROXIES[request.param](tmp_path, port, server.port), tmp_path, port, server)
    with opened as running_front:
        yield running_front


def test_people_talk_under_the_path(behind: Front, server: Served) -> None:
    with Scene(server) as scene:
        where = f"ws://127.0.0.1:{behind.port}/chat/?token=token-alice&room={scene.room}"
        alice = Chat(f"{where}&username=alice", source_address=(ALICE, 0))
        bob = scene.join("bob")
        alice.expect("joined", username="bob")
        alice.say("from far away")
        assert bob.texts(1) == alice.texts(1) == ["from far away"]
        alice.close()
        bob.expect("left", username="alice")

        def peers() -> list[str]:
            lines = [json.loads(line) for line in server.stderr.splitlines()]
            return [line["peer"] for line in lines if line["event"] == "JOIN" and line["room"] == scene.room]

        await_true(lambda: len(peers()) == 2, lambda: server.stderr)
        assert peers() == [ALICE, "127.0.0.1"]


def test_the_page_is_under_the_path_and_without_the_slash_leads_there(behind: Front) -> None:
    page = behind.get("/chat/")
    assert page.status == 200
    assert "script-src" in page.headers["content-security-policy"]
    bare = behind.get("/chat")
    assert bare.status == 308
    assert bare.headers["location"] in {"/chat/", f"http://localhost:{behind.port}/chat/"}
    assert behind.get("/chat/healthz").body == b"ok\n"
    asked = behind.get("/chat/handshake?token=token-alice&username=alice")
    assert (asked.status, json.loads(asked.body)) == (200, {"username": "alice", "room": "general"})


def test_the_page_finds_its_server_under_the_path(behind: Front, browser: Browser, server: Served) -> None:
    """A person who types the address without the slash."""
    with Scene(server) as scene:
        visitor = Visitor(browser, f"http://localhost:{behind.port}/chat")
        visitor.forgive(f"request to http://localhost:{behind.port}/chat")
        visitor.page.goto(f"http://localhost:{behind.port}/chat")
        visitor.connect("alice", scene.room)
        visitor.say("hello")
        visitor.text("hello").wait_for()
        visitor.close()


def test_what_only_begins_like_the_path_is_somebody_elses(behind: Front, server: Served) -> None:
    def log_up_to(name: str) -> str:
        assert knock(server.port, f"/?token=token-alice&username={name}").status == 101
        await_true(lambda: name in server.stderr, lambda: server.stderr)
        return server.stderr

    before = log_up_to(f"before-{behind.port}")
    for path in ("/chatter", "/chatter/handshake", "/handshake", "/"):
        assert behind.get(path).body != b"ok\n"
        assert b"script-src" not in behind.get(path).body
    assert "refused" not in log_up_to(f"after-{behind.port}").removeprefix(before)


def test_the_client_and_its_origin_are_told(behind: Front, server: Served) -> None:
    def origin(text: str, *more: tuple[str, str]) -> int:
        request = handshake("/chat/?token=token-alice", ("Origin", text), *more)
        return behind.call(
            request.replace(b"Host: localhost", f"Host: localhost:{behind.port}".encode())
        ).status

    assert origin(f"http://localhost:{behind.port}") == 101
    assert origin(f"https://localhost:{behind.port}") == 403
    assert origin("http://evil.example", ("X-Forwarded-Host", "evil.example")) == 403
    claim = ("X-Forwarded-For", "203.0.113.9")
    assert behind.call(handshake("/chat/?token=token-alice&username=claims", claim)).status == 101

    def peers() -> list[str]:
        lines = [json.loads(line) for line in server.stderr.splitlines()]
        return [line["peer"] for line in lines if line["event"] == "JOIN" and line["username"] == "claims"]

    await_true(peers, lambda: server.stderr)
    assert set(peers()) == {ALICE}


def test_one_slash_of_nginx_is_one_too_few(server: Served, tmp_path: Path) -> None:
    """The trap that the page warns of."""
    port = free_port()
    text = shown(
        "nginx", {"127.0.0.1:3000": f"127.0.0.1:{server.port}", "location /chat/ {": "location /chat {"}
    )
    with front(nginx(tmp_path, port, server.port, text), tmp_path, port, server) as wrong:
        assert wrong.get("/chat/handshake?token=token-alice").status == 404


def test_the_timeouts_are_longer_than_the_silence_of_the_server() -> None:
    text = section(OPERATIONS, "Under a path")
    seconds = [
        int(found) for found in re.findall(r"(?:timeout[ =]|(?:tunnel|server|client) )(\d+)s?\b", text)
    ]
    assert len(seconds) >= 4
