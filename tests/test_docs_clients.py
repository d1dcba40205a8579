"""The two clients in docs/protocol.md, as they stand there, on a network that breaks."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import ROOT, blocks
from tests.support.relay import Relay
from tests.support.scene import Scene, Served, await_true, served
from tests.support.wscat import wscat_path

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text("utf-8")


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served() as server:
        yield server


def python_client(source: str, folder: Path) -> list[str]:
    path = folder / "client.py"
    path.write_text(source, "utf-8")
    return [sys.executable, str(path)]


def javascript_client(source: str, folder: Path) -> list[str]:
    """Node has a WebSocket of its own from 22 on; an older one gets that of wscat."""
    modules = Path(wscat_path()).parents[1]
    path = folder / "client.cjs"
    path.write_text(
        f"globalThis.WebSocket ??= require({json.dumps(str(modules / 'ws'))});\n{source}", "utf-8"
    )
    node = shutil.which("node")
    assert node is not None
    return [node, str(path)]


MAKERS = {"python": python_client, "js": javascript_client}


class Running:
    """A client from the page, and the frames that it has shown."""

    def __init__(self, kind: str, relay: Relay, room: str, folder: Path, token: str = "token-alice") -> None:
        (source,) = blocks(DOCUMENT, kind)
        for here, there in (
            ("localhost:3000", f"127.0.0.1:{relay.port}"),
            ("token-alice", token),
            ('username: "alice"', f'username: "alice", room: "{room}"'),
            ('username="alice"', f'username="alice", room="{room}"'),
        ):
            source = source.replace(here, there)
        command = MAKERS[kind](source, folder)
        self._shown = (folder / "shown").open("w+b")
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self.process = subprocess.Popen(
            command, stdout=self._shown, stderr=subprocess.STDOUT, env=environment
        )

    @property
    def text(self) -> str:
        """All that it printed."""
        return Path(self._shown.name).read_text("utf-8")

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The frames in it; the last line may not be whole yet."""
        return [json.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("}\n")]

    def wait_for(self, event: str, times: int, **data: Any) -> list[dict[str, Any]]:
        """Wait until so many frames of this event have been shown; all frames."""

        def shown() -> bool:
            assert self.process.poll() is None, self.text
            found = [frame for frame in self.frames if frame["event"] == event]
            return len([frame for frame in found if data.items() <= frame["data"].items()]) >= times

        await_true(shown, f"{event} {data}")
        return self.frames

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._shown.close()


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_client_of_the_page_says_and_hears_everything_once(
    kind: str, server: Served, tmp_path: Path
) -> None:
    with Scene(server) as scene, Relay(server.port, fatal=b'"event":"message"') as relay:
        bob = scene.join("bob")
        client = Running(kind, relay, scene.room, tmp_path)
        try:
            # Its message is stored, and the network breaks before it learns of that.
            assert bob.messages(1)[0]["data"] == {"username": "alice", "text": "hello"}
            client.wait_for("ack", 1, duplicate=True)
            assert relay.has_cut
            client.wait_for("message", 1, text="hello")
            # It misses something, or doesn't.
            relay.cut()
            bob.say("while you were away")
            client.wait_for("welcome", 3)
            bob.say("are you back?")
            client.wait_for("message", 1, text="are you back?")
            # Nothing is said between two breaks: what it knows then is from its welcome alone.
            for welcomes in (4, 5):
                relay.cut()
                client.wait_for("welcome", welcomes)
            bob.say("good")
            frames = client.wait_for("message", 1, text="good")
        finally:
            client.close()
        assert [frame["data"]["text"] for frame in bob.messages(2)] == [
            "while you were away",
            "are you back?",
        ]
        assert [frame["id"] for frame in frames if frame["event"] == "message"] == [1, 2, 3, 4]
        resumed = [frame.get("recovered") for frame in frames if frame["event"] == "welcome"]
        assert resumed == [None, True, True, True, True]


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_client_of_the_page_gives_up_where_it_is_not_let_in(
    kind: str, server: Served, tmp_path: Path
) -> None:
    with Scene(server) as scene, Relay(server.port, fatal=b"nothing") as relay:
        client = Running(kind, relay, scene.room, tmp_path, token="guess")
        try:
            client.process.wait(20)
            assert "401" in client.text
        finally:
            client.close()
