"""A big room of the built server, with the log on disk, in which many have stopped reading."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.client import Chat
from tests.support.raw import Raw
from tests.support.scene import Scene, served, snapshot

MEMBERS, STALLED, MESSAGES = 300, 60, 300
TEXT = "\U0001f600" * 3900
"""So many of these are more than any socket takes whose reader has stopped."""
GROWTH = 16e6
"""Bytes: less than a tenth of what the stalled are owed."""


@contextmanager
def reading(sockets: list[socket.socket]) -> Iterator[None]:
    """Read and forget what comes, as long as this lasts."""
    over = threading.Event()
    chosen = selectors.DefaultSelector()
    for each in sockets:
        each.setblocking(False)
        chosen.register(each, selectors.EVENT_READ)

    def read() -> None:
        while not over.is_set():
            for key, _ in chosen.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                sock.recv(1 << 20)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
        chosen.close()


def talk(speaker: Chat, listener: Chat, times: int) -> tuple[float, int]:
    """Say so much; how long the slowest but two of a hundred took to be heard, and the last id."""
    took = []
    for _ in range(times):
        start = time.monotonic()
        speaker.say(TEXT)
        last = listener.messages(1)[0]["id"]
        took.append(time.monotonic() - start)
        speaker.messages(1)
    return sorted(took)[-1 - times // 50], last


def ids_up_to(raw: Raw, last: int) -> list[int]:
    ids: list[int] = []
    while not ids or ids[-1] < last:
        found = raw.read_text()
        if found["event"] == "message":
            ids.append(found["id"])
    return ids


def test_readers_who_have_stopped_cost_nothing_and_get_everything_when_they_go_on(
    pyz: Path, tmp_path: Path
) -> None:
    options = (
        "--rate",
        "0",
        "--db",
        str(tmp_path / "log.db"),
        "--send-timeout",
        "60s",
        "--ping-timeout",
        "5m",
    )
    with served(*options, "--log-level", "warning") as server, Scene(server) as scene:
        others = [scene.raw(f"other{number}").socket for number in range(MEMBERS - STALLED)]
        with reading(others):
            alice, bob = scene.join("alice"), scene.join("bob")
            usual, _ = talk(alice, bob, MESSAGES)
            stalled = [scene.raw(f"stalled{n}", receive_buffer=4096) for n in range(STALLED)]
            before = snapshot(server)["process_resident_memory_bytes"]
            slow, last = talk(alice, bob, MESSAGES)
            state = snapshot(server)
        assert state["chatroom_lagging_members"] >= STALLED
        assert state["process_resident_memory_bytes"] - before < GROWTH < STALLED * MESSAGES * len(TEXT) / 4
        assert slow < 5 * usual + 0.1
        for raw in stalled:
            ids = ids_up_to(raw, last)
            assert ids == list(range(ids[0], last + 1))
            assert ids[0] <= last - MESSAGES + 1
