"""The built server and clients that are silent, too quick or deaf: who is dropped, who paced, who neither."""

import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw import BINARY, CLOSE, PING, PONG, Raw, close, command, frame
from tests.support.scene import Scene, Served, await_empty, await_true, gauges, served, snapshot

RATE, BURST = 5, 20


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--ping-interval", "200ms", "--ping-timeout", "300ms") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


# Keepalive


def silent_until_dropped(raw: Raw) -> float:
    """Read and answer nothing until the end; how long that took."""
    begun = time.monotonic()
    opcodes = []
    try:
        while (found := raw.read_frame()) is not None:
            opcodes.append(found[0])
    except ConnectionResetError:
        pass
    assert PING in opcodes
    return time.monotonic() - begun


def test_a_silent_client_is_dropped(scene: Scene) -> None:
    bob = scene.join("bob")
    before = gauges(scene.server)
    raw = scene.raw("mallory")
    bob.expect("joined")
    assert 0.4 < silent_until_dropped(raw) < 10
    bob.expect("left", username="mallory")
    name = 'chatroom_drops_total{reason="silent"}'
    await_true(lambda: snapshot(scene.server).get(name, 0) == before.get(name, 0) + 1, "the drop is counted")


def test_any_sign_of_life_will_do(scene: Scene) -> None:
    raws = {life: scene.raw(life) for life in ("pong", "unasked", "message", "bytes")}
    trickle = iter(frame(b" " * 100 + b'{"event":"ping"}'))
    pings = dict.fromkeys(raws, 0)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        raws["unasked"].send(frame(b"other", PONG))
        raws["message"].send(command("ping"))
        raws["bytes"].send(bytes([next(trickle)]))
        for life, raw in raws.items():
            while select.select([raw.socket], [], [], 0.02)[0]:
                found = raw.read_frame()
                assert found is not None, f"dropped in spite of {life}"
                assert found[0] != CLOSE
                pings[life] += found[0] == PING
                if found[0] == PING and life == "pong":
                    raw.send(frame(found[1], PONG))
    assert pings["pong"] > 2
    assert scene.join("witness").welcome["data"]["members"] == sorted(raws)


def test_libraries_answer(scene: Scene) -> None:
    chats = [scene.join(f"user{number}") for number in range(3)]
    ends = time.monotonic() + 1.5
    await_true(lambda: time.monotonic() > ends, "time passes")
    for chat in chats:
        assert all(frame["event"] == "joined" for frame in chat.settle())


# Pace


def test_a_username_is_paced_over_all_its_tabs_and_loses_nothing(scene: Scene) -> None:
    """Forty at once from two tabs: twenty are let through, the others at five a second. The keepalive, which
    is quicker here, drops nobody meanwhile: the clock stands still while the server isn't reading."""
    listener = scene.join("listener")
    tabs = [scene.join("paced"), scene.join("paced")]
    listener.expect("joined")
    begun = time.monotonic()
    for number in range(20):
        for index, tab in enumerate(tabs):
            tab.say(f"{index} {number}")
    other = scene.join("other")
    listener.messages(BURST)
    burst_took = time.monotonic() - begun
    listener.messages(20)
    took = time.monotonic() - begun
    assert burst_took < 2
    assert 20 / RATE - 0.5 < took < 20 / RATE + 3
    texts = [item["text"] for item in listener.ask("history")["data"]["messages"]]
    assert len(texts) == 40
    for index in range(2):
        assert [t for t in texts if t.startswith(f"{index} ")] == [f"{index} {n}" for n in range(20)]
    other.say("not paced")
    listener.expect("message", text="not paced")
    assert sum(frame["event"] == "message" for frame in tabs[0].settle()) == 41


def test_tabs_that_close_are_gone_at_once_though_their_pace_is_used_up(pyz: Path) -> None:
    """At five a second what they have said would take a minute; so long they are neither open nor listed."""
    with served() as server, Scene(server) as scene:
        witness = scene.join("witness")
        tabs = [scene.raw("closing") for _ in range(20)]
        witness.expect("joined", username="closing")
        begun = time.monotonic()
        for tab in tabs:
            tab.send(*[command("message", text="last words")] * 16)
        for tab in tabs:
            tab.send(close(1000))
        for tab in tabs:
            assert tab.read_closing()[0] == 1000
            assert tab.read_end() == b""
        while witness.receive()["event"] != "left":
            assert time.monotonic() - begun < 15


def test_other_commands_have_a_pace_of_their_own(scene: Scene) -> None:
    chat = scene.join("hasty")
    begun = time.monotonic()
    for _ in range(400):
        chat.send("ping")
    for _ in range(400):
        chat.expect("pong")
    assert 0.8 < time.monotonic() - begun < 6


def test_pages_of_long_texts_weigh_more_than_pings(scene: Scene) -> None:
    for name in ("one", "two"):
        writer = scene.join(name)
        for number in range(20):
            assert writer.ask("message", text=f"{number:x<4000}")["event"] == "message"
    chat = scene.join("curious")
    chat.settle()
    begun = time.monotonic()
    for _ in range(400):
        chat.send("history", limit=200)
    weight, pages = 1.0, 0
    while weight < 600:  # 200 at once, and 200 a second
        page = chat.receive_text()
        weight += 1 + len(page) / (32 * 1024)
        pages += 1
    assert pages < 150
    assert time.monotonic() - begun > 1.8


# Clients that hardly ever read, or never


def test_a_close_frame_behind_much_that_a_slow_reader_has_yet_to_read_is_not_taken_back(pyz: Path) -> None:
    """The socket has taken megabytes before it; reading them takes longer than an answer is waited for."""
    with served("--rate", "0", "--db", "none", "--send-timeout", "60s") as server, Scene(server) as scene:
        speaker, slow = scene.join("speaker"), scene.raw("slow", receive_buffer=1 << 17)
        speaker.expect("joined")
        for _ in range(8):
            for _ in range(50):
                speaker.say("\U0001f600" * 3900)
            speaker.messages(50)
        slow.send(frame(b"x", BINARY))
        speaker.expect("left", username="slow")
        got = bytearray()
        while piece := slow.socket.recv(64 * 1024):
            got += piece
            time.sleep(0.05)
        assert len(got) > 1 << 20
        assert b"\x03\xebbinary messages" in got[-60:]


def test_one_that_never_reads_is_dropped_and_slows_nobody(pyz: Path) -> None:
    with served("--send-timeout", "1s", "--rate", "0") as server, Scene(server) as scene:
        speaker, listener = scene.pair()
        deaf = [scene.raw(f"deaf{number}", receive_buffer=4096) for number in range(3)]
        for chat in (speaker, listener):
            for number in range(3):
                chat.expect("joined", username=f"deaf{number}")
        text = "x" * 3900
        slowest = 0.0
        left: set[str] = set()
        ends = time.monotonic() + 20
        while len(left) < 3:
            assert time.monotonic() < ends
            begun = time.monotonic()
            speaker.say(text)
            for chat in (speaker, listener):
                while (found := chat.receive())["event"] != "message":
                    assert found["event"] == "left"
                    left.add(found["data"]["username"])
            slowest = max(slowest, time.monotonic() - begun)
            if snapshot(server)["chatroom_lagging_members"]:
                time.sleep(0.02)  # they lag already: no need to fill the log
        assert slowest < 0.9, "the room waited for one who doesn't read"
        for raw in deaf:
            raw.read_end()
        await_empty(server, 4)
        assert gauges(server)['chatroom_drops_total{reason="stalled"}'] == 3
