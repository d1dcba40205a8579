"""The built server's door: who is let in, who is refused, with what words, and which reason comes first."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.raw import KEY, UPGRADE, ask, command, exchange, handshake, head, knock
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


# What each parameter may be: the target, the status, and for 200 the username and the room
PARAMETERS: list[tuple[str, int, str, str]] = [
    ("?token=token-alice", 200, "anonymous", "general"),
    ("?token=alice-secret", 200, "alice", "general"),
    ("?token=alice-secret&username=alice&room=den", 200, "alice", "den"),
    ("?token=alice-secret&username=", 200, "alice", "general"),
    ("?token=guest-secret&username=bob", 200, "bob", "general"),
    ("?token=guest-secret&room=ops-1", 200, "anonymous", "ops-1"),
    ("?room=x&username=y&token=dev-token", 200, "y", "x"),
    ("?token=token-bob&username=e%CC%81", 200, "\u00e9", "general"),
    ("?token=token-bob&username=" + "u" * 32, 200, "u" * 32, "general"),
    ("?token=token-bob&room=" + "r" * 64, 200, "anonymous", "r" * 64),
    ("?token=token-bob&unknown=1&unknown=2&%ff=%ff&flag&&=", 200, "anonymous", "general"),
    ("?token=token-bob&unknown=%zz", 200, "anonymous", "general"),
    ("?t%6Fken=token%2Dbob&ro%6Fm=den", 200, "anonymous", "den"),
    ("?token=token-bob&room=&username=&since=&epoch=", 200, "anonymous", "general"),
    ("?token=token-bob&token=", 200, "anonymous", "general"),
    ("?token=token-bob&since=0&epoch=x", 200, "anonymous", "general"),
    ("?token=token-bob&since=007&epoch=x", 200, "anonymous", "general"),
    (f"?token=token-bob&since={10**30}&epoch=x", 200, "anonymous", "general"),
    ("?token=token-bob&epoch=x", 200, "anonymous", "general"),
    # 401
    ("", 401, "", ""),
    ("?", 401, "", ""),
    ("?token=", 401, "", ""),
    ("?token=wrong-secret", 401, "", ""),
    ("?token=TOKEN-ALICE", 401, "", ""),
    ("?token=token-alice%00", 401, "", ""),
    ("?token=token-alice%20", 401, "", ""),
    ("?token=token-alice%0d%0aX:%20y", 401, "", ""),
    ("?token=%ff", 401, "", ""),
    ("?token=%zz", 401, "", ""),
    ("?token=%", 401, "", ""),
    ("?token=t+o", 401, "", ""),
    ("?token=%F0%9F%98%80", 401, "", ""),
    ("?Token=token-alice", 401, "", ""),
    ("?token=" + "x" * 4000, 401, "", ""),
    # 403
    ("?token=alice-secret&username=bob", 403, "", ""),
    ("?token=alice-secret&username=Alice", 403, "", ""),
    ("?token=guest-secret&room=den", 403, "", ""),
    ("?token=guest-secret&room=ops-secret", 403, "", ""),
    ("?token=guest-secret&room=ops", 403, "", ""),
    ("?token=guest-secret&room=write-1", 403, "", ""),
    ("?token=guest-secret&room=GENERAL", 403, "", ""),
    # 400
    ("?token=token-bob&username=" + "u" * 33, 400, "", ""),
    ("?token=token-bob&room=" + "r" * 65, 400, "", ""),
    ("?token=token-bob&room=a+b", 200, "anonymous", "a+b"),
    ("?token=token-bob&room=a%20b", 400, "", ""),
    ("?token=token-bob&username=%20", 400, "", ""),
    ("?token=token-bob&username=a%00b", 400, "", ""),
    ("?token=token-bob&username=a%E2%80%8Bb", 400, "", ""),
    ("?token=token-bob&username=%E2%80%AEbob", 400, "", ""),
    ("?token=token-bob&username=%F0%9F%98%80", 400, "", ""),
    ("?token=token-bob&username=%ff", 400, "", ""),
    ("?token=token-bob&room=%ED%A0%80", 400, "", ""),
    ("?token=token-bob&room=%C0%AF", 400, "", ""),
    ("?token=token-bob&room=%zz", 400, "", ""),
    ("?token=token-bob&room=%e", 400, "", ""),
    ("?token=token-bob&since=1", 400, "", ""),
    ("?token=token-bob&since=1&epoch=", 400, "", ""),
    ("?token=token-bob&since=-1&epoch=x", 400, "", ""),
    ("?token=token-bob&since=1.0&epoch=x", 400, "", ""),
    ("?token=token-bob&since=%2B1&epoch=x", 400, "", ""),
    ("?token=token-bob&since=%D9%A1&epoch=x", 400, "", ""),
    ("?token=token-bob&since=1_0&epoch=x", 400, "", ""),
    ("?token=token-bob&since=0x1&epoch=x", 400, "", ""),
    ("?token=token-bob&since=%201&epoch=x", 400, "", ""),
    ("?token=token-bob&since=1&epoch=%ff", 400, "", ""),
    ("?token=token-bob&room=a&room=a", 400, "", ""),
    ("?token=token-bob&room=a&r%6fom=b", 400, "", ""),
    ("?token=token-bob&token=token-bob", 400, "", ""),
    ("?token=token-bob&username=a&username=b", 400, "", ""),
    ("?token=token-bob&since=1&since=1&epoch=x", 400, "", ""),
    ("?token=token-bob&since=1&epoch=x&epoch=x", 400, "", ""),
]


def test_parameters_and_the_mirror(scene: Scene) -> None:
    """`GET /handshake` answers what the handshake would: body, status, everything."""
    for query, status, username, room in PARAMETERS:
        answer = ask(scene.server.port, "/" + query)
        assert answer.status == status, (query, answer)
        assert answer.headers["access-control-allow-origin"] == "*"
        if status == 200:
            assert json.loads(answer.body) == {"username": username, "room": room}, query
            assert answer.headers["content-type"] == "application/json"
            visitor = scene.visitor()
            visitor.upgrade("/" + query)
            welcome = visitor.read_text()
            assert (welcome["username"], welcome["room"]) == (username, room)
            visitor.reset()
        else:
            refused = knock(scene.server.port, "/" + query)
            assert (refused.status, refused.body) == (status, answer.body), query


def test_refusals_are_one_line_of_text(scene: Scene) -> None:
    for query, status, _, _ in PARAMETERS:
        if status == 200:
            continue
        answer = knock(scene.server.port, "/" + query)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "close" in answer.headers["connection"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert 0 < len(answer.text.strip().splitlines()[0]) < 200
        assert len(answer.text.strip().splitlines()) == 1
        for secret in SECRETS:
            assert secret not in answer.text
        if status == 401:
            assert answer.text.strip() == "Unauthorized"


# Which refusal comes first


EVIL = ("Origin", "https://evil.example")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        # path and method, form, twice, Origin, 401, names, rights
        (handshake("/nowhere?token=x&token=x", EVIL, ("Upgrade", "websocket")), 404),
        (head("POST /?token=x&token=x HTTP/1.1", *UPGRADE, EVIL, ("Upgrade", "websocket")), 405),
        (handshake("/?token=x&token=x", EVIL, ("Upgrade", "websocket")), 400),
        (head("GET /?token=x&token=x HTTP/1.0", *UPGRADE, EVIL), 505),
        (head("GET /?room=x&room=x HTTP/1.1", *UPGRADE[:-1], ("Sec-WebSocket-Version", "8"), EVIL), 426),
        (handshake("/?room=x&room=x", EVIL), 400),
        (handshake("/?room=%20", EVIL), 403),
        (handshake("/?room=%20&since=x"), 401),
        (handshake("/?token=guest-secret&room=%20&username=%20"), 400),
        (handshake("/?token=guest-secret&room=den&since=x"), 400),
        (handshake("/?token=alice-secret&room=%20&username=bob"), 400),
        (handshake("/?token=alice-secret&username=bob"), 403),
    ],
)
def test_the_first_reason_wins(scene: Scene, request_bytes: bytes, status: int) -> None:
    answer = exchange(scene.server.port, request_bytes)
    assert answer.status == status, answer
    if status == 400 and b"room=x&room=x" in request_bytes:
        assert "twice" in answer.text


# Frames glued to the handshake


@pytest.mark.parametrize("cut", [0, 1, 50, None])
def test_frames_behind_the_handshake_are_not_lost(scene: Scene, cut: int | None) -> None:
    room = quote(scene.room)
    glued = handshake(f"/?token=dev-token&username=eve&room={room}") + b"".join(
        command("message", text=str(number)) for number in range(5)
    )
    visitor = scene.visitor()
    if cut is None:
        for byte in glued:
            visitor.send(bytes([byte]))
    else:
        visitor.send(glued[: len(glued) - cut])
        visitor.send(glued[len(glued) - cut :])
    assert visitor.read_answer().status == 101
    assert visitor.read_text()["event"] == "welcome"
    assert [visitor.read_text()["data"]["text"] for _ in range(5)] == ["0", "1", "2", "3", "4"]


def test_the_key_is_hashed_as_it_came(scene: Scene) -> None:
    answer = scene.visitor().upgrade("/?token=dev-token&username=keyholder")
    assert answer.headers["upgrade"].lower() == "websocket"
    await_true(lambda: "keyholder" in scene.server.stderr, "it is logged")
    assert KEY not in scene.server.stderr
