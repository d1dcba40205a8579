"""The built server on a stage: how long it is served, who is in its rooms, and what must be true at the end.

    with served("--rate", "0") as server, Scene(server) as scene:
        alice, bob = scene.pair()
        alice.say("hi")
        bob.expect("message", text="hi")

1. A scene has a room of its own and a pair of bystanders in another one. When it ends, the bystanders must
   still talk, the process must live, and its standard error must know no fault of ours and no token.
2. Waiting is for a condition, with a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.client import PATIENCE, Chat, target
from tests.support.process import ServerProcess
from tests.support.raw import Raw, get

_numbers = count(1)


def await_true(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until `condition` holds; asked again and again, because processes have no events to wait for."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


class Scene:
    """Where a test's clients meet; see rule 3."""

    def __init__(self, server: ServerProcess, token: str = "token-alice") -> None:
        number = next(_numbers)
        self.server = server
        self.token = token
        self.room = f"room-{number}"
        self._names = f"-by-{number}"
        self._stack = ExitStack()

    def name(self, name: str) -> str:
        """A username that no other scene has, so that paces and counts are its own."""
        return name + self._names

    def join(self, username: str, room: str | None = None, **options: Any) -> Chat:
        """Let somebody in; `since` and `epoch` resume, other options go to `websockets`."""
        query = {key: options.pop(key) for key in ("since", "epoch", "token") if key in options}
        where = target(room or self.room, username, **({"token": self.token} | query))
        chat = Chat(self.server.ws_url + where, **options)
        self._stack.callback(chat.close)
        return chat

    def pair(self) -> tuple[Chat, Chat]:
        """alice and bob, who know of each other."""
        alice = self.join("alice")
        bob = self.join("bob")
        alice.expect("joined", username="bob")
        return alice, bob

    def raw(self, username: str = "mallory", room: str | None = None, **options: Any) -> Raw:
        """A client of bytes that has been let in and has read its welcome."""
        raw = self.visitor(**options)
        raw.upgrade(target(room or self.room, username, self.token))
        raw.read_text()
        return raw

    def visitor(self, **options: Any) -> Raw:
        """A bare connection."""
        raw = Raw(self.server.port, **options)
        self._stack.callback(raw.close)
        return raw

    def check_bystanders(self) -> None:
        """They talk."""
        for speaker in self._bystanders:
            text = f"still here {next(_numbers)}"
            speaker.say(text)
            for listener in self._bystanders:
                assert [text] == listener.texts(1)

    def __enter__(self) -> Self:
        with self._stack:
            room = "by" + self._names
            self._bystanders = [self.join(name, room) for name in (self.name("ann"), self.name("ben"))]
            self._bystanders[0].expect("joined", username=self.name("ben"))
            self.check_bystanders()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                self.check_bystanders()
                check_clean(self.server)


def check_clean(server: ServerProcess, *secrets: str) -> None:
    """The process lives, and its standard error shows neither a fault of ours nor a token."""
    assert server.process.poll() is None, server.stderr
    check_stderr(server.stderr, *secrets)


def check_stderr(said: str, *secrets: str) -> None:
    """No traceback, no fault that was caught at the barrier, no token."""
    for word in ("Traceback", "connection_failed", "broker_failed", "token-alice", "dev-token", *secrets):
        assert word not in said, said


@contextmanager
def served(
    *arguments: str, cwd: Path | None = None, secrets: tuple[str, ...] = ()
) -> Iterator[ServerProcess]:
    """A server that must still live at the end, and then stop as it should."""
    with ServerProcess(*arguments, cwd=cwd) as server:
        yield server
        check_clean(server, *secrets)
        assert server.stop() == 0
        check_stderr(server.stderr, *secrets)


def gauges(server: ServerProcess) -> dict[str, float]:
    """The metrics by name, with their labels as they stand in the text."""
    lines = get(server.port, "/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def await_empty(server: ServerProcess, connections: int = 0) -> None:
    """Wait until so many connections are left, and nothing of any other."""

    def empty() -> bool:
        now = gauges(server)
        # The handshake counted is the one that asks for these numbers.
        return now["chatroom_connections"] == connections and now["chatroom_handshakes"] <= 1

    await_true(empty, "the gauges return")
