"""The built server and plain HTTP: what it answers, what it doesn't, and what keeps a connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ROOT
from tests.support.raw import UPGRADE, ask, exchange, get, handshake, head
from tests.support.scene import Scene, Served, gauges, served

HOST = ("Host", "localhost")
GOOD = "/?token=dev-token"
PATHS = ("/", "/handshake" + GOOD[1:], "/healthz", "/readyz", "/metrics")


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


# What is there


def test_the_page(scene: Scene) -> None:
    answer = get(scene.server.port, "/")
    assert answer.status == 200
    assert answer.body == (ROOT / "client.html").read_bytes()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    assert "frame-ancestors 'none'" in policy
    assert get(scene.server.port, "/?token=wrong&room=%20").body == answer.body


def test_health_and_readiness(scene: Scene) -> None:
    assert get(scene.server.port, "/healthz").text.strip() == "ok"
    answer = get(scene.server.port, "/readyz")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


def test_metrics_count_what_happens(scene: Scene) -> None:
    before = gauges(scene.server)
    alice, _ = scene.pair()
    alice.say("hello")
    alice.texts(1)
    ask(scene.server.port, "/?token=wrong")
    after = gauges(scene.server)
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in after}
    assert grown["chatroom_connections"] == 2
    assert grown["chatroom_rooms"] == 1
    assert grown["chatroom_messages_total"] == 1
    assert grown["chatroom_deliveries_total"] == 2
    assert grown["chatroom_commit_seconds_count"] >= 1
    assert grown['chatroom_refusals_total{status="401"}'] == 1
    assert after["chatroom_lagging_members"] == 0
    assert after["chatroom_tasks"] > 0


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(scene: Scene, path: str) -> None:
    visitor = scene.visitor()
    visitor.send(head(f"HEAD {path} HTTP/1.1", HOST))
    answer = visitor.read_answer(bodiless=True)
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 0
    visitor.send(head("GET /healthz HTTP/1.1", HOST))
    assert visitor.read_answer().text.strip() == "ok", "a body came with HEAD"


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_every_answer_is_safe(scene: Scene, path: str) -> None:
    answer = get(scene.server.port, path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_preflight(scene: Scene) -> None:
    for target in ("/handshake", "/handshake?token=wrong"):
        request = head(
            f"OPTIONS {target} HTTP/1.1",
            HOST,
            ("Origin", "https://elsewhere.example"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization"),
        )
        answer = exchange(scene.server.port, request)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"].lower() == "authorization"
        assert "GET" in answer.headers["access-control-allow-methods"]


def test_the_mirror_takes_a_token_by_header(scene: Scene) -> None:
    answer = ask(
        scene.server.port, "/", ("Authorization", "Bearer dev-token"), ("Origin", "https://x.example")
    )
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-origin" not in get(scene.server.port, "/healthz").headers


# What is not


@pytest.mark.parametrize(
    "path", ["/nowhere", "/handshake/", "//", "/index.html", "/HEALTHZ", "/%2e%2e/etc/passwd"]
)
def test_other_paths(scene: Scene, path: str) -> None:
    assert get(scene.server.port, path).status == 404
    assert exchange(scene.server.port, head(f"POST {path} HTTP/1.1", HOST)).status == 404
    assert exchange(scene.server.port, handshake(path + GOOD[1:])).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get"])
@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_other_methods(scene: Scene, method: str, path: str) -> None:
    answer = exchange(scene.server.port, head(f"{method} {path} HTTP/1.1", HOST))
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_balancers_probe_by_options(scene: Scene, path: str, version: str) -> None:
    answer = exchange(scene.server.port, head(f"OPTIONS {path} HTTP/{version}", HOST), bodiless=True)
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "access-control-allow-origin" not in answer.headers


def test_a_target_may_be_absolute(scene: Scene) -> None:
    port = scene.server.port
    assert exchange(port, head(f"GET http://localhost:{port}/healthz HTTP/1.1", HOST)).text == "ok\n"
    assert exchange(port, head("GET http://elsewhere.example HTTP/1.1", HOST)).status == 200
    assert exchange(port, head("GET http://localhost/nowhere HTTP/1.1", HOST)).status == 404
    assert exchange(port, handshake(f"http://localhost:{port}{GOOD}")).status == 101
    assert exchange(port, handshake(f"http://localhost:{port}/?token=wrong")).status == 401


def test_a_handshake_is_a_get(scene: Scene) -> None:
    for method in ("HEAD", "POST"):
        request = head(f"{method} {GOOD} HTTP/1.1", *UPGRADE)
        assert exchange(scene.server.port, request, bodiless=True).status == 405


# Keeping a connection


def test_requests_follow_each_other(scene: Scene) -> None:
    visitor = scene.visitor()
    for path, status in (
        ("/healthz", 200),
        ("/nowhere", 404),
        ("/handshake", 401),
        ("/readyz", 200),
        ("/", 200),
    ) * 3:
        visitor.send(head(f"GET {path} HTTP/1.1", HOST))
        assert visitor.read_answer().status == status
    visitor.upgrade(GOOD)
    assert visitor.read_text()["event"] == "welcome"


def test_requests_in_one_write(scene: Scene) -> None:
    visitor = scene.visitor()
    visitor.send(head("GET /healthz HTTP/1.1", HOST) * 20, handshake(GOOD))
    for _ in range(20):
        assert visitor.read_answer().text.strip() == "ok"
    assert visitor.read_answer().status == 101
    assert visitor.read_text()["event"] == "welcome"


@pytest.mark.parametrize(
    ("line", "headers"),
    [("GET /healthz HTTP/1.1", (HOST, ("Connection", "close"))), ("GET /healthz HTTP/1.0", ())],
)
def test_connections_that_are_not_kept(scene: Scene, line: str, headers: tuple[tuple[str, str], ...]) -> None:
    visitor = scene.visitor()
    visitor.send(head(line, *headers))
    assert visitor.read_answer().text.strip() == "ok"
    assert visitor.read_end() == b""


def test_no_body_is_taken_for_a_request(scene: Scene) -> None:
    smuggled = head("GET /healthz HTTP/1.1", HOST)
    for headers in ((("Content-Length", str(len(smuggled))),), (("Transfer-Encoding", "chunked"),)):
        visitor = scene.visitor()
        visitor.send(head("POST /healthz HTTP/1.1", HOST, *headers), smuggled)
        assert visitor.read_answer().status == 405
        assert visitor.read_end() == b""
