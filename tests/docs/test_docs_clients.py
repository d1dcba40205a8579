"""The two clients in docs/protocol.md, on networks that break and by servers that stop."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.support.client import Chat, target
from tests.support.pages import ROOT, blocks
from tests.support.proxies import CERTIFICATE, free_port, nginx
from tests.support.relay import Relay
from tests.support.scene import Scene, Served, await_true, served
from tests.support.wscat import wscat_path

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text("utf-8")


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served() as server:
        yield server


OBEY = {
    "python": """await chat.say("hello")

    async def obey():
        loop, lines = asyncio.get_running_loop(), asyncio.StreamReader(1 << 24)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), __import__("sys").stdin)
        async for line in lines:
            method, argument = json.loads(line)
            await getattr(chat, method)(argument)

    obeying = asyncio.create_task(obey())
""",
    "js": """chat.say("hello");
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [method, argument] = JSON.parse(line);
  chat[method](argument);
});
process.stdin.unref();  // a client that has stopped ends
""",
}
"""What has a client do more than the page's own last lines."""


def python_client(source: str, folder: Path) -> list[str]:
    path = folder / "client.py"
    path.write_text(source.replace('await chat.say("hello")\n', OBEY["python"]), "utf-8")
    return [sys.executable, str(path)]


def javascript_client(source: str, folder: Path) -> list[str]:
    """Node has a WebSocket of its own from 22 on; an older one gets that of wscat."""
    modules = Path(wscat_path()).parents[1]
    path = folder / "client.cjs"
    library = f"globalThis.WebSocket ??= require({json.dumps(str(modules / 'ws'))});\n"
    path.write_text(library + source.replace('chat.say("hello");\n', OBEY["js"]), "utf-8")
    node = shutil.which("node")
    assert node is not None
    return [node, str(path)]


MAKERS = {"python": python_client, "js": javascript_client}
BRISK = {"Math.random()": "Math.random() / 5", "random.uniform(": "0.2 * random.uniform("}
"""A client with shorter pauses."""

QUICK = BRISK | {"SILENCE = 20_000;": "SILENCE = 500;", "SILENCE = 20 ": "SILENCE = 0.5 "}
"""A client with less patience."""


class Running:
    """A client from the page, and the frames that it has shown."""

    def __init__(
        self,
        kind: str,
        url: str,
        folder: Path,
        room: str = "general",
        token: str = "token-alice",
        changes: dict[str, str] | None = None,
    ) -> None:
        (source,) = blocks(DOCUMENT, kind)
        for here, there in {
            "http://localhost:3000": url,
            "token-alice": token,
            'username: "alice"': f'username: "alice", room: "{room}"',
            'username="alice"': f'username="alice", room="{room}"',
            **(changes or BRISK),
        }.items():
            source = source.replace(here, there)
        command = MAKERS[kind](source, folder)
        self._shown = (folder / "shown").open("w+b")
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment |= {"NODE_EXTRA_CA_CERTS": str(CERTIFICATE), "SSL_CERT_FILE": str(CERTIFICATE)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._shown, stderr=subprocess.STDOUT, env=environment
        )

    def do(self, method: str, argument: str) -> None:
        """Have it say something, or go to another room."""
        self._input.write(json.dumps([method, argument]).encode() + b"\n")
        self._input.flush()

    @property
    def _input(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def text(self) -> str:
        """All that it printed."""
        return Path(self._shown.name).read_text("utf-8")

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The frames in it; the last line may not be whole yet."""
        return [json.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("}\n")]

    @property
    def texts(self) -> list[str]:
        """Of the messages, in the order in which it showed them."""
        return [frame["data"]["text"] for frame in self.frames if frame["event"] == "message"]

    def wait_for(self, event: str, times: int, **data: Any) -> list[dict[str, Any]]:
        """Wait until so many frames of this event have been shown; all frames."""

        def shown() -> bool:
            assert self.process.poll() is None, self.text
            found = [frame for frame in self.frames if frame["event"] == event]
            return len([frame for frame in found if data.items() <= frame["data"].items()]) >= times

        await_true(shown, lambda: f"{event} {data}: {self.text[-2000:]}", patience=60)
        return self.frames

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            self._input.close()
        self._shown.close()


@contextmanager
def client(kind: str, url: str, folder: Path, **options: Any) -> Iterator[Running]:
    """A client of the page for as long as it is needed."""
    running = Running(kind, url, folder, **options)
    try:
        yield running
    finally:
        running.close()


both = pytest.mark.parametrize("kind", sorted(MAKERS))


# A network that breaks


@both
def test_a_client_of_the_page_says_and_hears_everything_once(
    kind: str, server: Served, tmp_path: Path
) -> None:
    with Scene(server) as scene, Relay(server.port, fatal=b'"event":"message"') as relay:
        bob = scene.join("bob")
        with client(kind, relay.url, tmp_path, room=scene.room) as alice:
            # Its message is stored, and the network breaks before it learns of that.
            assert bob.messages(1)[0]["data"] == {"username": "alice", "text": "hello"}
            alice.wait_for("ack", 1, duplicate=True)
            assert relay.has_cut
            alice.wait_for("message", 1, text="hello")
            # It misses something, or doesn't.
            relay.cut()
            bob.say("while you were away")
            alice.wait_for("welcome", 3)
            bob.say("are you back?")
            alice.wait_for("message", 1, text="are you back?")
            # Nothing is said between two breaks: what it knows then is from its welcome alone.
            for welcomes in (4, 5):
                relay.cut()
                alice.wait_for("welcome", welcomes)
            bob.say("good")
            frames = alice.wait_for("message", 1, text="good")
        assert [frame["data"]["text"] for frame in bob.messages(2)] == [
            "while you were away",
            "are you back?",
        ]
        assert [frame["id"] for frame in frames if frame["event"] == "message"] == [1, 2, 3, 4]
        resumed = [frame.get("recovered") for frame in frames if frame["event"] == "welcome"]
        assert resumed == [None, True, True, True, True]


@both
def test_a_client_of_the_page_gives_up_where_it_is_not_let_in(
    kind: str, server: Served, tmp_path: Path
) -> None:
    with (
        Scene(server) as scene,
        Relay(server.port) as relay,
        client(kind, relay.url, tmp_path, room=scene.room, token="guess") as alice,
    ):
        alice.process.wait(20)
        assert "401" in alice.text


@both
def test_it_notices_a_connection_that_nobody_answers(kind: str, server: Served, tmp_path: Path) -> None:
    """The network carries nothing any more, and nobody says so: all it can know is silence."""
    with (
        Scene(server) as scene,
        Relay(server.port) as relay,
        client(kind, relay.url, tmp_path, room=scene.room, changes=QUICK) as alice,
    ):
        alice.wait_for("message", 1, text="hello")
        alice.wait_for("pong", 2)  # while it is quiet, an answer is enough
        assert len([frame for frame in alice.frames if frame["event"] == "welcome"]) == 1
        relay.stall()
        for number in range(30):
            alice.do("say", f"{number} " + "x" * 3000)
        alice.wait_for("welcome", 2)
        alice.wait_for("message", 31)
        assert [text.split()[0] for text in alice.texts] == ["hello", *map(str, range(30))]


@both
def test_a_text_that_is_too_large_is_dropped_and_nothing_else(
    kind: str, server: Served, tmp_path: Path
) -> None:
    with Scene(server) as scene, Relay(server.port) as relay:
        with client(kind, relay.url, tmp_path, room=scene.room) as alice:
            for text in ("before", "x" * 70_000, "between", "y" * 3_000_000, "z" * 5_000, "after"):
                alice.do("say", text)
            alice.wait_for("message", 1, text="after")
            frames = alice.frames
        lost = [frame["data"] for frame in frames if frame["event"] == "unsent"]
        assert [(data["text"][0], data["message"]) for data in lost] == [
            ("x", "too large"),
            ("y", "too large"),
        ]
        assert [frame["code"] for frame in frames if frame["event"] == "error"] == ["too_long"]
        bob = scene.join("bob")
        assert sorted(frame["data"]["text"] for frame in bob.messages(4)) == sorted(
            ["hello", "before", "between", "after"]
        )


# A restart


@both
def test_it_comes_back_after_a_restart_behind_nginx(kind: str, pyz: Path, tmp_path: Path) -> None:
    """nginx answers 502 meanwhile, and what was said meanwhile is said in its room, once."""
    port = free_port()
    arguments = ("--port", str(port), "--rate", "0", "--trusted-proxy", "127.0.0.1")
    (tmp_path / "proxy").mkdir()
    with nginx(tmp_path / "proxy", port) as proxy:
        url = f"https://localhost:{proxy.port}"
        with (
            Served(*arguments, cwd=tmp_path) as first,
            client(kind, url, tmp_path, room="den") as alice,
        ):
            alice.wait_for("message", 1, text="hello")
            alice.do("switch", "ops")
            alice.do("say", "in ops")
            alice.wait_for("message", 1, text="in ops")
            alice.do("switch", "den")
            alice.wait_for("switched", 2)
            assert first.stop() == 0
            await_true(lambda: proxy.logs.count(" 502 ") >= 2, lambda: proxy.logs, patience=60)
            for number in range(30):
                alice.do("say", f"while it is down {number}")
            alice.do("switch", "ops")
            alice.do("say", "in ops again")
            with Served(*arguments, cwd=tmp_path) as second:
                alice.wait_for("message", 1, text="in ops again")
                frames = alice.frames
                den = Chat(second.ws_url + target("den", "bob"))
                ops = Chat(second.ws_url + target("ops", "bob"))
                assert [frame["data"]["text"] for frame in den.messages(31)] == [
                    "hello",
                    *(f"while it is down {number}" for number in range(30)),
                ]
                assert [frame["data"]["text"] for frame in ops.messages(2)] == ["in ops", "in ops again"]
                den.close()
                ops.close()
        assert not [frame for frame in frames if frame["event"] in ("stopped", "unsent", "error")]
        assert [frame.get("recovered") for frame in frames if frame["event"] == "welcome"] == [None, True]
        shown = [(frame["room"], frame["id"]) for frame in frames if frame["event"] == "message"]
        assert shown == [("den", 1), ("ops", 1), *(("den", number) for number in range(2, 32)), ("ops", 2)]


# Answers of others

Script = Callable[[ServerConnection], None]
PROTOCOL = "chatroom.v1"


class Stage:
    """A server that does what a test's script says, and refuses as often as told before that."""

    def __init__(self, script: Script, refusals: list[tuple[int, dict[str, str]]]) -> None:
        self._script, self._refusals = script, refusals
        self.asked: list[float] = []
        self._lock = threading.Lock()

    def process_request(self, _connection: ServerConnection, request: Request) -> Response | None:
        """A refusal, or the answer to /handshake."""
        with self._lock:
            self.asked.append(time.monotonic())
            if self._refusals:
                status, headers = self._refusals.pop(0)
                return Response(status, "No", Headers({"Connection": "close", **headers}), b"no\n")
        if request.path.startswith("/handshake"):
            return Response(200, "OK", Headers({"Connection": "close"}), b"{}")
        return None

    def handle(self, connection: ServerConnection) -> None:
        """One connection."""
        with suppress(ConnectionClosed):
            self._script(connection)


@contextmanager
def stage(script: Script, *refusals: tuple[int, dict[str, str]]) -> Iterator[tuple[str, Stage]]:
    """A stage, and its address."""
    played = Stage(script, list(refusals))
    with serve(
        played.handle,
        "127.0.0.1",
        0,
        process_request=played.process_request,
        select_subprotocol=lambda _, offered: PROTOCOL if PROTOCOL in offered else None,  # type: ignore[arg-type,return-value]
    ) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.socket.getsockname()[1]}", played
        running.shutdown()
        thread.join()


def say(connection: ServerConnection, event: str, data: dict[str, Any], **more: Any) -> None:
    connection.send(json.dumps({"event": event, "data": data, **more}))


def welcome(connection: ServerConnection, room: str = "general") -> None:
    data = {"message": "hi", "members": []}
    more = {"room": room, "username": "alice", "epoch": "e", "last_id": 0, "replay": 0}
    say(connection, "welcome", data, **more)


def await_end(connection: ServerConnection) -> None:
    for _ in connection:
        pass


@both
def test_it_waits_as_long_as_it_is_told_to(kind: str, tmp_path: Path) -> None:
    refusals = [(502, {}), (504, {}), (500, {}), (429, {"Retry-After": "1"}), (503, {"Retry-After": "2"})]

    def script(connection: ServerConnection) -> None:
        welcome(connection)
        await_end(connection)

    refusals.append((503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}))
    changes = {"Math.random()": "0", "random.uniform(": "min("}
    with stage(script, *refusals) as (url, played), client(kind, url, tmp_path, changes=changes) as alice:
        alice.wait_for("welcome", 1)
    between = [after - before for before, after in pairwise(played.asked)]
    assert between[3] >= 1
    assert between[4] >= 2


@both
def test_a_welcome_alone_makes_no_good_connection(kind: str, tmp_path: Path) -> None:
    """A server that ends it right behind the welcome is asked more and more rarely."""

    def script(connection: ServerConnection) -> None:
        welcome(connection)

    # The pause is random; its most is shown in its place.
    changes = {
        "Math.random() *": "",
        "random.uniform(0, min(30, 2 ** min(self.failures, 5)))": PAUSE_OF_PYTHON,
    }
    with stage(script) as (url, played), client(kind, url, tmp_path, changes=changes) as alice:
        alice.wait_for("welcome", 4)
    times = played.asked[:: 2 if kind == "js" else 1]
    between = [after - before for before, after in pairwise(times)]
    assert between[0] >= 1
    assert between[1] >= 2
    assert between[2] >= 4


@both
def test_a_server_without_a_welcome_is_asked_more_and_more_rarely(kind: str, tmp_path: Path) -> None:
    """Such as a proxy that lets /handshake through, and no WebSocket."""

    def script(connection: ServerConnection) -> None:
        connection.close(1011)

    changes = {
        "Math.random() *": "",
        "random.uniform(0, min(30, 2 ** min(self.failures, 5)))": PAUSE_OF_PYTHON,
    }
    turns = 2 if kind == "js" else 1  # it asks /handshake first
    with stage(script) as (url, played), client(kind, url, tmp_path, changes=changes):
        await_true(lambda: len(played.asked) > 3 * turns, lambda: str(played.asked), patience=60)
    between = [after - before for before, after in pairwise(played.asked[::turns])]
    assert between[0] >= 1
    assert between[1] >= 2
    assert between[2] >= 4


PAUSE_OF_PYTHON = "min(30, 2 ** min(self.failures, 5))"


@both
def test_twenty_messages_at_most_are_unanswered(kind: str, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def script(connection: ServerConnection) -> None:
        start.wait(20)
        welcome(connection)
        cids = [json.loads(connection.recv())["cid"] for _ in range(20)]
        with suppress(TimeoutError):
            seen.append([str(connection.recv(timeout=1))])
        for number in range(31):
            data = {"username": "alice", "text": str(number)}
            say(connection, "message", data, room="general", id=number + 1, ts=1, cid=cids[number])
            if number < 11:
                cids.append(json.loads(connection.recv())["cid"])
        await_end(connection)

    start = threading.Event()
    with stage(script) as (url, _), client(kind, url, tmp_path) as alice:
        for number in range(30):
            alice.do("say", str(number))
        time.sleep(0.2)  # it has read that
        start.set()
        alice.wait_for("message", 31)
    assert seen == []


@both
def test_nothing_is_sent_between_switch_room_and_its_answer(kind: str, tmp_path: Path) -> None:
    got: list[dict[str, Any]] = []
    early: list[Any] = []

    def script(connection: ServerConnection) -> None:
        def take() -> dict[str, Any]:
            frame: dict[str, Any] = json.loads(connection.recv())
            got.append({"event": frame["event"], **frame["data"]})
            return frame

        def echo(frame: dict[str, Any], room: str, number: int) -> None:
            data = {"username": "alice", **frame["data"]}
            say(connection, "message", data, room=room, id=number, ts=1, cid=frame["cid"])

        def nothing_more() -> None:
            with suppress(TimeoutError):
                early.append(connection.recv(timeout=1))

        welcome(connection)
        echo(take(), "general", 1)
        asked = take()
        nothing_more()
        say(connection, "error", {"message": "Try again"}, code="unavailable", retry=True, cid=asked["cid"])
        asked = take()
        nothing_more()
        more = {"members": [], "epoch": "e", "last_id": 7, "replay": 0, "cid": asked["cid"]}
        say(connection, "switched", {"room": "Ops"}, **more)
        refused = take()
        error = {"message": "Not known to be stored"}
        say(connection, "error", error, code="unavailable", retry=True, cid=refused["cid"])
        again = take()
        assert again == refused
        echo(again, "Ops", 8)
        asked = take()
        nothing_more()
        say(connection, "error", {"message": "Not allowed"}, code="forbidden", cid=asked["cid"])
        asked = take()
        more = {
            "members": [],
            "epoch": "e",
            "last_id": 1,
            "replay": 0,
            "recovered": True,
            "cid": asked["cid"],
        }
        say(connection, "switched", {"room": "general"}, **more)
        echo(take(), "general", 2)
        await_end(connection)

    with stage(script) as (url, _), client(kind, url, tmp_path) as alice:
        alice.wait_for("message", 1, text="hello")
        alice.do("switch", "ops")
        alice.do("say", "to ops")
        alice.wait_for("message", 1, text="to ops")
        alice.do("switch", "vault")
        alice.do("say", "to the vault")
        alice.wait_for("unsent", 1, room="vault", text="to the vault", message="Not allowed")
        alice.do("switch", "general")
        alice.do("say", "home")
        alice.wait_for("message", 1, text="home")
    assert early == []
    assert got == [
        {"event": "message", "text": "hello"},
        {"event": "switch_room", "room": "ops"},
        {"event": "switch_room", "room": "ops"},
        {"event": "message", "text": "to ops"},
        {"event": "message", "text": "to ops"},
        {"event": "switch_room", "room": "vault"},
        {"event": "switch_room", "room": "general", "since": 1, "epoch": "e"},
        {"event": "message", "text": "home"},
    ]
