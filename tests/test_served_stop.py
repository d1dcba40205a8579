"""The built server told to stop: refuse, take no more, show what was taken, tell everyone, be gone."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.client import Chat
from tests.support.raw import CLOSE, Raw, ask, command, frame, get, handshake, knock
from tests.support.scene import Scene, Served, await_true, check_stderr, gauges, snapshot

MOST = 10.0
OPTIONS = ("--rate", "0")


@pytest.fixture
def scene(pyz: Path) -> Iterator[Scene]:
    """A server that the test itself ends."""
    with Served(*OPTIONS) as server, Scene(server) as scene:
        yield scene
        scene.over = True
        assert server.process.poll() is not None
        check_stderr(server.stderr)


def stop(server: Served, number: int = signal.SIGTERM) -> float:
    """Give the signal; when it was given."""
    server.signal(number)
    return time.monotonic()


def drained(chat: Chat) -> list[str]:
    """The texts that come until the end, which must be 1012 and say why."""
    texts = []
    with suppress(ConnectionClosed):
        while True:
            found = chat.receive()
            assert found["event"] == "message", f"{found}: nobody is told of those who leave at the end"
            texts.append(found["data"]["text"])
    code, reason = chat.closing()
    assert code == 1012
    assert "restart" in reason
    return texts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everyone_is_told_why(scene: Scene, number: int) -> None:
    people = [scene.join(f"user{index}", f"{scene.room}-{index % 3}") for index in range(12)]
    for chat in people:
        chat.settle()
    begun = stop(scene.server, number)
    for chat in people:
        assert drained(chat) == []
    assert scene.server.wait() == 0
    assert time.monotonic() - begun < 5


def test_an_empty_server_stops_at_once(scene: Scene) -> None:
    scene.server.dismiss_bystanders()
    begun = stop(scene.server)
    assert scene.server.wait() == 0
    assert time.monotonic() - begun < 2
    events = [line for line in scene.server.stderr.splitlines() if '"stop"' in line or '"draining"' in line]
    assert len(events) == 2


def test_what_was_taken_is_shown_to_all(scene: Scene) -> None:
    """Each sender's echoes are its first so many messages, and the witness has exactly the same."""
    witness = scene.join("witness")
    raws = [scene.raw(f"sender{index}") for index in range(15)]
    for _ in raws:
        witness.expect("joined")
    for index, raw in enumerate(raws):
        raw.send(*(command("message", text=f"{index} {number}") for number in range(200)))
    stop(scene.server)
    seen = drained(witness)
    assert scene.server.wait() == 0
    for index, raw in enumerate(raws):
        echoes = list(messages_until_closed(raw, f"{index} "))
        assert echoes == [f"{index} {number}" for number in range(len(echoes))]
        assert echoes == [text for text in seen if text.startswith(f"{index} ")]


def messages_until_closed(raw: Raw, prefix: str) -> Iterator[str]:
    while (found := raw.read_frame()) is not None:
        opcode, payload = found
        if opcode == CLOSE:
            assert int.from_bytes(payload[:2], "big") == 1012
            return
        value = json.loads(payload)
        if value["event"] == "message" and value["data"]["text"].startswith(prefix):
            yield value["data"]["text"]
    raise AssertionError("no close frame")


def test_during_a_drain(scene: Scene) -> None:
    """One who doesn't answer the close holds the drain; meanwhile the port answers, and lets nobody in."""
    server = scene.server
    raws = [scene.raw("stubborn"), scene.raw("half"), scene.visitor()]
    raws[1].send(frame(b"x" * 100)[:20])
    raws[2].send(handshake("/?token=dev-token")[:-2])
    kept = scene.visitor()
    begun = stop(server)
    assert raws[0].read_closing()[0] == 1012
    assert knock(server.port, "/?token=dev-token").status == 503
    answer = knock(server.port, "/nowhere?token=wrong&token=wrong")
    assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True)
    assert ask(server.port, "/?token=wrong").status == 503
    assert get(server.port, "/healthz").status == 200
    ready = get(server.port, "/readyz")
    assert (ready.status, "draining" in ready.text) == (503, True)
    assert get(server.port, "/").status == 200
    assert gauges(server)["chatroom_connections"] >= 1
    raws[2].send(b"\r\n")
    assert raws[2].read_answer().status == 503
    assert server.wait() == 0
    assert time.monotonic() - begun < MOST
    assert kept.read_end() == b""


def test_one_that_never_reads_holds_nothing(pyz: Path) -> None:
    with Served(*OPTIONS, "--drain", "1s") as server, Scene(server) as scene:
        speaker, listener = scene.pair()
        deaf = scene.raw("deaf", receive_buffer=4096)
        listener.expect("joined")
        speaker.expect("joined")

        def behind() -> bool:
            for _ in range(50):
                speaker.say("x" * 3900)
            speaker.texts(50)
            listener.texts(50)
            return snapshot(server)["chatroom_lagging_members"] > 0

        await_true(behind, "its socket is full", pause=0.06)
        begun = stop(server)
        assert drained(listener) == drained(speaker) == []
        assert server.wait() == 0
        assert time.monotonic() - begun < 5
        deaf.read_end()
        scene.over = True
        check_stderr(server.stderr)


def test_a_second_signal_ends_it_at_once(scene: Scene) -> None:
    stubborn = scene.raw("stubborn")
    begun = stop(scene.server)
    assert stubborn.read_closing()[0] == 1012
    scene.server.signal(signal.SIGTERM)
    assert scene.server.wait() == 1
    assert time.monotonic() - begun < 2


def test_stops_in_the_middle_of_everything(pyz: Path) -> None:
    """Handshakes, floods and switches are under way whenever the signal comes."""
    for patience in (0.0, 0.01, 0.05):
        with Served(*OPTIONS) as server:
            raws = [Raw(server.port) for _ in range(30)]
            for index, raw in enumerate(raws):
                commands = [command("message", text="x"), command("switch_room", room=f"r{index % 4}")] * 30
                raw.send(handshake(f"/?token=dev-token&username=u{index}"), *commands)
            ends = time.monotonic() + patience
            await_true(lambda ends=ends: time.monotonic() >= ends, "time passes")
            begun = stop(server)
            for raw in raws:
                raw.half_close()
            for raw in raws:
                raw.read_end()
                raw.close()
            assert server.wait() == 0
            assert time.monotonic() - begun < MOST
            check_stderr(server.stderr)
