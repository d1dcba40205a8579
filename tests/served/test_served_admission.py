"""The built server's door: tokens and how they are presented, rights, origins, and how many may come in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.raw import ask, get, handshake, knock
from tests.support.scene import Scene, Served, await_true, served

TOKENS = """
[[token]]
token = "alice-secret"
username = "alice"

[[token]]
token = "guest-secret"
rooms = { general = "rw", "ops-*" = "r", "ops-secret*" = "", "write-*" = "w" }
"""
SECRETS = ("alice-secret", "guest-secret", "wrong-secret")

Header = tuple[str, str]


@pytest.fixture(scope="module")
def server(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    tokens.write_text(TOKENS)
    options = (
        "--tokens",
        str(tokens),
        "--insecure-dev-tokens",
        "--origin",
        "https://chat.example",
        "--rate",
        "0",
    )
    with served(*options, "--origin", "null", secrets=SECRETS) as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


# Three ways to present a token


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", (("Authorization", "Bearer alice-secret"),), 101),
        ("", (("Authorization", "bearer   alice-secret "),), 101),
        ("", (("Sec-WebSocket-Protocol", "chatroom.v1, bearer.alice-secret"),), 101),
        ("", (("Sec-WebSocket-Protocol", "bearer.alice-secret,chatroom.v1"),), 101),
        (
            "",
            (("Sec-WebSocket-Protocol", "chatroom.v1"), ("Sec-WebSocket-Protocol", "bearer.alice-secret")),
            101,
        ),
        ("?token=alice-secret", (("Sec-WebSocket-Protocol", "chatroom.v1"),), 101),
        ("?token=alice-secret", (("Sec-WebSocket-Protocol", "other, chatroom.v1, more"),), 101),
        ("?token=alice-secret", (("Sec-WebSocket-Protocol", "other"),), 101),
        ("?token=alice-secret", (("Authorization", "Bearer alice-secret"),), 101),
        ("?token=alice-secret", (("Authorization", "Basic YTpi"),), 101),
        (
            "?token=alice-secret",
            (
                ("Authorization", "Bearer alice-secret"),
                ("Sec-WebSocket-Protocol", "chatroom.v1, bearer.alice-secret"),
            ),
            101,
        ),
        ("?token=alice-secret", (("Authorization", "Bearer guest-secret"),), 400),
        ("?token=alice-secret", (("Authorization", "Bearer wrong-secret"),), 400),
        ("?token=alice-secret", (("Sec-WebSocket-Protocol", "chatroom.v1, bearer.guest-secret"),), 400),
        ("", (("Authorization", "Bearer alice-secret"), ("Authorization", "Bearer alice-secret")), 400),
        ("", (("Authorization", "Bearer wrong-secret"),), 401),
        ("", (("Authorization", "Bearer"),), 401),
        ("", (("Authorization", "alice-secret"),), 401),
        ("", (("Authorization", "Bearer alice secret"),), 401),
        ("", (("Sec-WebSocket-Protocol", "bearer.alice-secret"),), 401),
        ("", (("Sec-WebSocket-Protocol", "chatroom.v1, bearer.wrong-secret"),), 401),
        ("", (("Sec-WebSocket-Protocol", "chatroom.v1"),), 401),
        ("", (("Cookie", "token=alice-secret"),), 401),
    ],
)
def test_presenting_a_token(scene: Scene, query: str, headers: tuple[Header, ...], status: int) -> None:
    visitor = scene.visitor()
    visitor.send(handshake("/" + query, *headers))
    answer = visitor.read_answer()
    assert answer.status == status, answer
    if status != 101:
        return
    offered = any("chatroom.v1" in value for name, value in headers if name == "Sec-WebSocket-Protocol")
    assert answer.headers.get("sec-websocket-protocol") == ("chatroom.v1" if offered else None)
    assert "sec-websocket-extensions" not in answer.headers
    assert visitor.read_text()["username"] == "alice"


def test_a_library_offers_a_subprotocol_and_compression(scene: Scene) -> None:
    chat = scene.join("alice", token="", subprotocols=["chatroom.v1", "bearer.alice-secret"])
    assert chat.socket.subprotocol == "chatroom.v1"
    assert chat.socket.protocol.extensions == []
    with pytest.raises(InvalidStatus) as refused:
        scene.join("alice", token="wrong-secret")
    assert refused.value.response.status_code == 401


# Rights


def test_rights_in_the_rooms(scene: Scene) -> None:
    chat = scene.join("guest", "ops-1", token="guest-secret")
    for event, data in (("message", {"text": "x"}), ("typing", {"active": True})):
        answer = chat.ask(event, **data)
        assert (answer["event"], answer["code"]) == ("error", "forbidden")
    assert chat.ask("history")["event"] == "history"
    assert chat.ask("members")["data"]["members"] == ["guest"]
    for room in ("den", "ops-secret", "write-1"):
        answer = chat.ask("switch_room", room=room)
        assert (answer["event"], answer["code"]) == ("error", "forbidden")
    assert chat.ask("members")["room"] == "ops-1"
    assert chat.ask("switch_room", room="ops-1")["event"] == "ack"
    assert chat.ask("switch_room", room="general")["event"] == "switched"
    chat.settle()
    chat.say("hello", "c1")
    assert chat.receive()["cid"] == "c1"
    assert chat.ask("auth", token="alice-secret")["code"] == "forbidden"
    assert chat.ask("auth", token="guest-secret")["event"] == "ack"


# Origin


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("https://chat.example", 101),
        ("https://CHAT.example:443", 101),
        ("http://localhost", 101),
        ("null", 101),
        ("https://localhost", 403),
        ("http://chat.example", 403),
        ("https://chat.example:8443", 403),
        ("https://chat.example.evil.example", 403),
        ("https://evil.example/https://chat.example", 403),
        ("https://chat.example@evil.example", 403),
        ("file://", 403),
        ("", 403),
        ("\xff", 403),
    ],
)
def test_origins(scene: Scene, origin: str | None, status: int) -> None:
    headers = () if origin is None else (("Origin", origin),)
    visitor = scene.visitor()
    visitor.send(handshake("/?token=dev-token", *headers))
    assert visitor.read_answer().status == status
    mirror = ask(scene.server.port, "/?token=dev-token", *headers)
    assert mirror.status == (200 if status == 101 else status)


def test_two_origins(scene: Scene) -> None:
    headers = (("Origin", "https://chat.example"), ("Origin", "https://chat.example"))
    assert knock(scene.server.port, "/?token=dev-token", *headers).status == 400


# Counts


def test_connections_per_username(pyz: Path) -> None:
    with served("--max-per-user", "2", "--rate", "0") as server, Scene(server) as scene:
        first = scene.join("alice")
        scene.join("alice", "elsewhere")
        answer = knock(server.port, "/?token=dev-token&username=alice")
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 0
        mirror = ask(server.port, "/?token=dev-token&username=alice")
        assert mirror.status == 429
        assert mirror.headers["access-control-expose-headers"].lower() == "retry-after"
        assert ask(server.port, "/?token=dev-token&username=Alice").status == 200
        assert ask(server.port, "/?token=wrong&username=alice").status == 401
        first.close()
        again = "/?token=dev-token&username=alice"
        await_true(lambda: ask(server.port, again).status == 200, "a place is free")
        scene.join("alice")


def test_connections_in_all(pyz: Path) -> None:
    options = ("--max-connections", "4", "--max-per-user", "1", "--rate", "0")
    with served(*options) as server, Scene(server) as scene:
        scene.join("alice")
        bob_again = "/?token=dev-token&username=bob"
        assert ask(server.port, bob_again).status == 200
        bob = scene.join("bob")
        for target in ("/?token=dev-token&username=carol", "/?token=dev-token&username=dave"):
            answer = knock(server.port, target)
            assert (answer.status, ask(server.port, target).status) == (503, 503)
            assert int(answer.headers["retry-after"]) > 0
        assert knock(server.port, bob_again).status == 429
        assert knock(server.port, "/?token=wrong").status == 401
        assert get(server.port, "/healthz").status == 200
        bob.close()
        await_true(lambda: ask(server.port, bob_again).status == 200, "a place is free")
