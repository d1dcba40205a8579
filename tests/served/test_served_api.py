"""The built server, for scripts and backends: requests about rooms, by curl and by bytes, and streams."""

import contextlib
import json
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventsource import EventSource
from tests.support.process import ServerProcess
from tests.support.proxies import plain_nginx
from tests.support.raw import Answer, Raw, exchange, head, seed
from tests.support.scene import Scene, Served, await_true, served

TOKENS = """
[[token]]
token = "token-alice"

[[token]]
token = "keeper"
username = "carol"
rooms = { "*" = "rwm" }

[[token]]
token = "poster"
username = "ci"
rooms = { "room-*" = "w" }
"""
AUTH = ("Authorization", "Bearer token-alice")


@pytest.fixture(scope="module")
def server(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(TOKENS)
    with served("--rate", "0", "--tokens", str(file), secrets=("keeper", "poster")) as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def request(
    method: str, path: str, body: bytes | None = None, *headers: tuple[str, str], token: str = "token-alice"
) -> bytes:
    size = () if body is None else (("Content-Length", str(len(body))),)
    lines = (("Host", "localhost"), ("Authorization", f"Bearer {token}"), *size, *headers)
    return head(f"{method} {path} HTTP/1.1", *lines) + (body or b"")


def ask(
    port: int, method: str, path: str, body: bytes | None = None, *headers: tuple[str, str], **options: Any
) -> Answer:
    return exchange(port, request(method, path, body, *headers, **options), bodiless=method == "HEAD")


def post(port: int, room: str, text: str, key: str | None = None, **options: Any) -> dict[str, Any]:
    headers = () if key is None else (("Idempotency-Key", key),)
    answer = ask(port, "POST", f"/rooms/{room}/messages", text.encode(), *headers, **options)
    assert answer.status in (200, 201), answer
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def curl(*arguments: str) -> tuple[str, int]:
    """What curl prints, and the status."""
    path = shutil.which("curl")
    if path is None:
        pytest.skip("there is no curl")
    command = [path, "-sS", "--max-time", "10", "-w", "\n%{http_code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr
    text, _, status = done.stdout.rpartition("\n")
    return text, int(status)


# By curl


def test_curl_says_something_in_a_room(scene: Scene) -> None:
    alice, bob = scene.pair()
    url = f"{scene.server.url}/rooms/{scene.room}/messages"
    auth = ("-H", "Authorization: Bearer token-alice")
    text, status = curl(*auth, "-d", "deploy done", f"{url}?username=jenkins")
    assert status == 201
    answer = json.loads(text)
    frame = bob.expect("message")
    assert frame["data"] == {"username": "jenkins", "text": "deploy done"}
    assert (answer["id"], answer["ts"], answer["room"]) == (frame["id"], frame["ts"], frame["room"])
    assert alice.texts(1) == ["deploy done"]
    as_json = ("-H", "Content-Type: application/json", "-d", '{"text":"hi","cid":"c1"}')
    first, again = curl(*auth, *as_json, url), curl(*auth, *as_json, url)
    assert [first[1], again[1]] == [201, 200]
    assert json.loads(again[0]) == json.loads(first[0]) | {"duplicate": True}
    chunked = ("-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", "--data-binary", "in chunks")
    assert curl(*auth, *chunked, url)[1] == 201
    number = json.loads(first[0])["id"]
    assert curl(*auth, "-X", "PATCH", "-d", "hi!", f"{url}/{number}")[1] == 200
    assert curl(*auth, "-X", "DELETE", f"{url}/{number}")[1] == 200
    page = json.loads(curl(*auth, f"{url}?limit=3")[0])
    assert [each["text"] for each in page["messages"]] == ["deploy done", "", "in chunks"]
    members = json.loads(curl(*auth, f"{scene.server.url}/rooms/{scene.room}/members")[0])
    assert members == {"members": ["alice", "bob"]}
    rooms = json.loads(curl(*auth, f"{scene.server.url}/rooms?limit=1")[0])
    assert rooms["rooms"][0]["room"] == scene.room


def test_a_kept_connection_of_curl_posts_twice(scene: Scene) -> None:
    url = f"{scene.server.url}/rooms/{scene.room}/messages"
    said, _ = curl("-v", "-H", "Authorization: Bearer token-alice", "-d", "twice", url, url)
    assert said.count('"username":"anonymous"') == 2


# What is answered


def test_many_requests_go_over_one_connection(scene: Scene) -> None:
    raw = scene.visitor()
    path = f"/rooms/{scene.room}/messages"
    for number in range(20):
        raw.send(request("POST", path, b"x", ("Idempotency-Key", f"k{number // 2}")))
        answer = raw.read_answer()
        assert answer.status == (200 if number % 2 else 201)
        assert json.loads(answer.body)["id"] == number // 2 + 1
    raw.send(request("POST", path, b"a"), request("GET", f"{path}?limit=1"), request("HEAD", path))
    assert raw.read_answer().status == 201
    assert json.loads(raw.read_answer().body)["messages"][0]["text"] == "a"
    assert raw.read_answer(bodiless=True).status == 200


def test_rights_and_names_are_those_of_the_token(scene: Scene) -> None:
    path = f"/rooms/{scene.room}/messages"
    assert post(scene.server.port, scene.room, "x", token="poster")["username"] == "ci"
    assert ask(scene.server.port, "GET", path, token="poster").status == 403
    assert ask(scene.server.port, "POST", f"{path}?username=bob", b"x", token="poster").status == 403
    assert ask(scene.server.port, "POST", "/rooms/elsewhere/messages", b"x", token="poster").status == 403
    answer = ask(scene.server.port, "POST", path, b"x", token="wrong")
    assert (answer.status, answer.text, answer.headers["www-authenticate"]) == (401, "Unauthorized", "Bearer")
    by_query = head(f"GET {path}?token=token-alice HTTP/1.1", ("Host", "localhost"))
    assert exchange(scene.server.port, by_query).status == 200
    own = head(f"GET {path} HTTP/1.1", ("Host", "localhost"), ("Chatroom-Token", "token-alice"))
    assert exchange(scene.server.port, own).status == 200


def test_moderators_moderate_and_bans_hold(scene: Scene) -> None:
    port, room = scene.server.port, scene.room
    bob = scene.join("bob")
    reader = stream(scene, "bob")
    reader.connect()
    media = ("Content-Type", "application/json")
    ban = json.dumps({"action": "ban", "username": "bob", "seconds": 600}).encode()
    assert ask(port, "POST", f"/rooms/{room}/moderation", ban, media).status == 403
    answer = ask(port, "POST", f"/rooms/{room}/moderation", ban, media, token="keeper")
    assert (answer.status, json.loads(answer.body)["event"]) == (200, "moderated")
    assert bob.closing() == (4510, "banned")
    assert reader.read_end() == b""
    assert "banned" in reader.comments[-1]
    refused = ask(port, "POST", f"/rooms/{room}/messages?username=bob", b"x")
    assert (refused.status, refused.text) == (403, "Banned from this room")
    assert 590 <= int(refused.headers["retry-after"]) <= 600
    assert stream(scene, "bob").read_end() == b"Banned from this room"


HOSTILE = {
    "a path that is none": ("GET", "/rooms/x", None, (), 404),
    "a method that is none": ("PUT", "/rooms/x/messages", b"x", (), 405),
    "an unknown method": ("BREW", "/rooms/x/messages", None, (), 405),
    "a room that is none": ("GET", "/rooms/a%20b/messages", None, (), 400),
    "a room that is no text": ("GET", "/rooms/%FF/messages", None, (), 400),
    "a long room": ("GET", f"/rooms/{'x' * 65}/messages", None, (), 400),
    "no text": ("POST", "/rooms/x/messages", b"", (), 400),
    "no UTF-8": ("POST", "/rooms/x/messages", b"\xff\xfe", (), 400),
    "no JSON": ("POST", "/rooms/x/messages", b"{", (("Content-Type", "application/json"),), 400),
    "other JSON": ("POST", "/rooms/x/messages", b"[]", (("Content-Type", "application/json"),), 400),
    "long text": ("POST", "/rooms/x/messages", b"x" * 4001, (), 413),
    "a large body": ("POST", "/rooms/x/messages", b"x" * 70_000, (), 413),
    "a compressed body": ("POST", "/rooms/x/messages", b"x", (("Content-Encoding", "br"),), 415),
    "an expectation": ("POST", "/rooms/x/messages", b"x", (("Expect", "more"),), 417),
    "an empty key": ("POST", "/rooms/x/messages", b"x", (("Idempotency-Key", ""),), 400),
    "a message that isn't there": ("DELETE", "/rooms/x/messages/7", None, (), 404),
    "a huge number": ("DELETE", f"/rooms/x/messages/{'9' * 5000}", None, (), 404),
    "a number that is none": ("GET", "/rooms/x/messages?limit=-1", None, (), 400),
    "no page": ("GET", "/rooms/x/messages?limit=0", None, (), 400),
    "half a resume": ("GET", "/rooms/x/events?since=1", None, (), 400),
    "another last event": ("GET", "/rooms/x/events", None, (("Last-Event-ID", "7"),), 400),
    "a handshake": ("GET", "/rooms/x/events", None, (("Upgrade", "websocket"),), 404),
}


@pytest.mark.parametrize(("method", "path", "body", "headers", "status"), HOSTILE.values(), ids=HOSTILE)
def test_every_request_gets_one_clear_line(
    scene: Scene,
    method: str,
    path: str,
    body: bytes | None,
    headers: tuple[tuple[str, str], ...],
    status: int,
) -> None:
    answer = ask(scene.server.port, method, path, body, *headers)
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.text.strip()
    assert len(answer.text.splitlines()) == 1


def test_random_requests_are_answered_or_ended(scene: Scene) -> None:
    chance = random.Random(seed())
    parts = [
        *(b"POST /rooms/x/messages HTTP/1.1\r\n", b"GET /rooms/x/messages HTTP/1.1\r\n", b"Host: a\r\n"),
        *(b"Authorization: Bearer token-alice\r\n", b"Content-Length: 5\r\n", b"Content-Length: 1x\r\n"),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Type: application/json\r\n",
            b"Expect: 100-continue\r\n",
        ),
        *(b"\r\n", b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"\x00", b'{"text":"x"}', b"ffffffff\r\n"),
    ]
    for _ in range(150):
        raw = Raw(scene.server.port)
        try:
            raw.send(b"".join(chance.choices(parts, k=chance.randint(1, 14))))
            raw.half_close()
            said = raw.read_end()
        finally:
            raw.close()
        assert not said or said.startswith(b"HTTP/1.1 "), said


def test_a_slow_body_ends_in_time(scene: Scene) -> None:
    raw = scene.visitor()
    began = time.monotonic()
    raw.send(request("POST", f"/rooms/{scene.room}/messages", b"hello")[:-1])
    answer = raw.read_answer()
    assert (answer.status, answer.text) == (408, "The body took too long")
    assert 4.5 < time.monotonic() - began < 10


def test_a_page_of_another_origin_may_ask(scene: Scene) -> None:
    asked = (("Origin", "https://elsewhere.example"), ("Access-Control-Request-Method", "PATCH"))
    answer = ask(scene.server.port, "OPTIONS", f"/rooms/{scene.room}/messages/1", None, *asked)
    assert answer.status == 204
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "Idempotency-Key" in answer.headers["access-control-allow-headers"]
    assert "Content-Type" in answer.headers["access-control-allow-headers"]


def test_the_pace_is_that_of_sockets(pyz: Path) -> None:
    with served("--rate", "1", "--burst", "3") as server, Scene(server) as scene:
        path = f"/rooms/{scene.room}/messages?username=alice"
        alice = scene.join("alice")
        alice.say("one")
        alice.texts(1)
        answers = [ask(server.port, "POST", path, b"x") for _ in range(4)]
        assert [answer.status for answer in answers] == [201, 201, 429, 429]
        assert answers[-1].headers["retry-after"] == "1"


# Streams


def stream(scene: Scene, name: str = "reader", port: int | None = None) -> EventSource:
    reader = EventSource(port or scene.server.port, f"/rooms/{scene.room}/events?username={name}", AUTH)
    scene.at_end(reader.close)
    return reader


def test_a_stream_tells_what_is_said(scene: Scene) -> None:
    reader = stream(scene)
    reader.connect()
    assert b"\r\nContent-Type: text/event-stream\r\n" in reader.answer_head
    alice, _ = scene.pair()
    alice.say("hello")
    post(scene.server.port, scene.room, "deploy done")
    reader.read_until(lambda: len(reader.texts) == 2)
    assert reader.texts == ["hello", "deploy done"]
    assert [frame["event"] for frame in reader.frames] == ["welcome", "message", "message"]
    assert [frame["event"] for frame in alice.settle()] == ["message", "message"]
    reader.close()
    await_true(lambda: "stream_end" in scene.server.stderr, "the reader's leave is noticed")


def test_streams_count_towards_the_connections_of_a_name(pyz: Path) -> None:
    with served("--rate", "0", "--max-per-user", "2") as server, Scene(server) as scene:
        readers = [stream(scene, "alice") for _ in range(3)]
        for reader in readers:
            reader.connect()
        assert [reader.status for reader in readers] == [200, 200, 429]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_reader_and_a_poster_miss_nothing_over_a_restart(
    pyz: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--port", str(port), "--db", str(tmp_path / "chat.db"), "--rate", "0")
    reader = EventSource(port, "/rooms/ops/events", ("Authorization", "Bearer dev-token"))
    wanted: list[str] = []

    def post_surely(text: str) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                post(port, "ops", text, key=text, token="dev-token")
            except (OSError, AssertionError):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                wanted.append(text)
                return

    for life in range(3):
        with ServerProcess(*options) as server:
            for turn in range(5):
                post_surely(f"m{life}-{turn}")
                if turn % 2:
                    reader.read_until(lambda: len(reader.texts) == len(wanted))
            server.signal(number)
            server.wait()
    with ServerProcess(*options) as server:
        post_surely("last")
        reader.read_until(lambda: len(reader.texts) == len(wanted))
        reader.close()
        assert server.stop() == 0
    assert reader.texts == wanted
    assert reader.ids == list(range(1, len(wanted) + 1))
    assert all(frame.get("recovered", True) for frame in reader.frames if frame["event"] == "welcome")
    assert (reader.retry_ms is not None) == (number == signal.SIGTERM)


def test_a_stop_answers_what_was_taken(pyz: Path, tmp_path: Path) -> None:
    with ServerProcess("--db", str(tmp_path / "chat.db"), "--rate", "0") as server:
        raws = [Raw(server.port) for _ in range(20)]
        for at, raw in enumerate(raws):
            raw.send(request("POST", "/rooms/ops/messages", f"m{at}".encode(), token="dev-token"))
        server.signal(signal.SIGTERM)
        answers = []
        for raw in raws:
            with contextlib.suppress(ConnectionResetError, AssertionError):  # it was still to be accepted
                answers.append(raw.read_answer())
            raw.close()
        assert server.wait() == 0
        assert {answer.status for answer in answers} <= {201, 503}
    stored = {json.loads(answer.body)["id"] for answer in answers if answer.status == 201}
    with ServerProcess("--db", str(tmp_path / "chat.db")) as server:
        page = json.loads(ask(server.port, "GET", "/rooms/ops/messages", token="dev-token").body)
        assert {message["id"] for message in page["messages"]} == stored


NGINX = """
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://127.0.0.1:{server};
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Connection "";
    }}
}}
"""


def test_posts_and_streams_through_nginx(scene: Scene, tmp_path: Path) -> None:
    with plain_nginx(tmp_path, NGINX, server=scene.server.port) as proxy:
        reader = stream(scene, port=proxy.port)
        reader.connect()
        for number in range(3):
            post(proxy.port, scene.room, f"m{number}")
            reader.read_until(lambda: len(reader.texts) == number + 1)  # noqa: B023
        assert reader.texts == ["m0", "m1", "m2"]
        slash = ask(proxy.port, "POST", "/rooms/room-a%2Fb/messages", b"x", token="poster")
        assert json.loads(slash.body)["room"] == "room-a/b"
        reader.close()
