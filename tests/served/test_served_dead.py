"""The built server and clients that are reset wherever a connection can wait: nothing of them is left.

Each kind of frame is sent alone, twice and in a flood of 150, before the welcome and behind it, with an empty
and with a full socket, plain and by TLS; then the client is reset, at once or when all that was sent waits.
"""

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.support.client import target
from tests.support.disk import Disk
from tests.support.process import ROOT
from tests.support.raw import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Answer,
    Raw,
    close,
    command,
    frame,
    handshake,
    head,
)
from tests.support.scene import Served, await_true, check_clean, check_stderr

CERTIFICATE = ROOT / "tests" / "support" / "localhost.pem"
FRAMES = {
    "nothing": b"",
    "ping": frame(b"?", PING),
    "pong": frame(b"?", PONG),
    "close": close(1000, "bye"),
    "empty close": frame(b"", CLOSE),
    "wrong close": close(999),
    "message": command("message", "c", text="hello"),
    "long message": command("message", text="x" * 3900),
    "switch": command("switch_room", "c", room="elsewhere"),
    "history": command("history", "c", limit=100),
    "members": command("members", "c"),
    "typing": command("typing", active=True),
    "application ping": command("ping", "c"),
    "auth": command("auth", "c", token="dev-token"),
    "nonsense": frame("nonsense"),
    "unknown event": command("dance"),
    "binary": frame(b"x", BINARY),
    "no text": frame(b"\xff"),
    "unmasked": frame(b"x", mask=None),
    "too long": frame(b"", length=1 << 20),
    "fragment": frame(b"x", first=TEXT),
    "fragmented": frame(b"x", first=TEXT) + frame(b"?", PING) + frame(b"x", first=0x80),
    "no beginning": frame(b"x", first=0),
    "half a frame": frame(b"x" * 1000)[:500],
    "ping and message": frame(b"?", PING) + command("message", text="hello"),
    "message and close": command("message", text="hello") + close(1000),
}
TIMES = (1, 2, 150)
MOMENTS = ("with the handshake", "at once", "later", "unread")
FULL = "full"
"""The room whose replay is more than a socket takes that isn't read."""
INTERVAL, TIMEOUT = 1, 1


class ServerHarness:
    """A server, by TLS or without, and what is seen of it from outside."""

    def __init__(self, server: Served, *, secure: bool) -> None:
        self.server = server
        self._context = ssl.create_default_context(cafile=str(CERTIFICATE)) if secure else None
        if self._context is not None:
            self._context.check_hostname = False

    def raw(self, *, receive_buffer: int | None = None) -> Raw:
        raw = Raw(self.server.port, receive_buffer=receive_buffer)
        if self._context is not None:
            raw.socket = self._context.wrap_socket(raw.socket)
        return raw

    def get(self, path: str) -> Answer:
        raw = self.raw()
        try:
            raw.send(head(f"GET {path} HTTP/1.1", ("Host", "localhost")))
            return raw.read_answer()
        finally:
            raw.close()

    def gauges(self) -> dict[str, int]:
        lines = self.get("/metrics").text.splitlines()
        wanted = ("connections", "presences", "lagging_members", "rooms")
        found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: int(float(found[f"chatroom_{name}"])) for name in wanted}

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.server.pid}/fd"))

    def enter(self, name: str, room: str, **options: int) -> Raw:
        raw = self.raw(**options)
        raw.upgrade(target(room, name))
        return raw

    def fill(self) -> None:
        """Say more in the full room than a socket takes; three names, as each has its pace."""
        for name in "abc":
            speaker = self.enter(name, FULL)
            speaker.send(*[command("message", "c", text="\U0001f600" * 3900)] * 20, close(1000))
            speaker.read_closing()
            speaker.close()

    def client(self, name: str, kind: str, times: int, moment: str) -> Raw:
        """One who has said it all; still there."""
        said = FRAMES[kind] * times
        if moment == "with the handshake":
            raw = self.raw()
            raw.send(handshake(target("r", name)) + said)
        elif moment == "unread":
            raw = self.enter(name, FULL, receive_buffer=4096)
            raw.send(said)
        else:
            raw = self.enter(name, "r")
            raw.read_text()
            raw.send(said)
        return raw

    def await_nobody(self, descriptors: int) -> None:
        """Wait until all that the server shows is as if nobody had come."""
        now: dict[str, int] = {}
        since = time.monotonic()

        def nobody() -> bool:
            now.update(self.gauges())
            return not any(now.values()) and self.descriptors() <= descriptors

        await_true(nobody, lambda: f"{now}, {self.descriptors()} descriptors of {descriptors}", pause=0.1)
        print(f"nothing is left after {time.monotonic() - since:.1f} s")


@contextmanager
def harness(*options: str, secure: bool, env: dict[str, str] | None = None) -> Iterator[ServerHarness]:
    by_tls = ("--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE)) if secure else ()
    keepalive = ("--ping-interval", f"{INTERVAL}s", "--ping-timeout", f"{TIMEOUT}s", "--log-level", "warning")
    with Served(*keepalive, *by_tls, *options, env=env) as server:
        yield ServerHarness(server, secure=secure)
        check_clean(server)
        assert server.stop() == 0
        check_stderr(server.stderr)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def house(request: pytest.FixtureRequest, pyz: Path) -> Iterator[ServerHarness]:
    with harness("--db", "none", "--max-per-ip", "1000", secure=request.param) as house:
        house.fill()
        yield house


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_reset_wherever_a_connection_waits_leaves_nothing(house: ServerHarness, moment: str) -> None:
    house.gauges()
    before = house.descriptors()
    clients = []
    for number, (kind, times) in enumerate(product(FRAMES, TIMES)):
        client = house.client(f"user{number}", kind, times, moment)
        if moment in ("with the handshake", "at once"):
            client.reset()
        else:
            clients.append(client)
    if clients:
        time.sleep(0.3)  # so that what waits for its turn in the pace waits
    for client in clients:
        client.reset()
    house.await_nobody(before)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_reset_while_the_disk_hangs_leaves_no_connection(pyz: Path, tmp_path: Path, secure: bool) -> None:
    """Their tasks wait for the broker, and nothing is read or written; their names go when it goes on."""
    disk = Disk(tmp_path)
    with harness("--rate", "0", secure=secure, env=disk.environment) as house:
        first = house.client("first", "message and close", 1, "later")  # so that all files are open
        first.read_closing()
        first.close()
        house.gauges()
        before = house.descriptors()
        kinds = ("message", "members", "switch", "ping and message")
        clients = [house.client(f"user{number}", "nothing", 1, "later") for number in range(len(kinds))]
        with disk.stalled():
            for client, kind in zip(clients, kinds, strict=True):
                client.send(command("message", text="held"), FRAMES[kind] * 150)
            time.sleep(0.3)  # until all of it waits
            for client in clients:
                client.reset()
            await_true(lambda: not house.gauges()["connections"], "the connections are over", pause=0.1)
            await_true(lambda: house.descriptors() <= before, "their descriptors are free")
        house.await_nobody(before)
