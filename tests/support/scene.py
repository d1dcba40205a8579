"""The built server on a stage: how long it is served, who is in its rooms, and what must be true at the end.

    with served("--rate", "0") as server, Scene(server) as scene:
        alice, bob = scene.pair()
        alice.say("hi")
        bob.expect("message", text="hi")

1. A scene has a room of its own. In another one there is a pair of bystanders: when a scene ends, they must
   still talk, the process must live, and its standard error must know no fault of ours and no token.
2. When the last scene has ended and all have left, the gauges must return, and the server must stop.
3. Waiting is for a condition, with a deadline.
"""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.client import PATIENCE, Chat, target
from tests.support.process import ServerProcess, clean_environment, python_command
from tests.support.raw import Raw, get

_numbers = count(1)
_METRICS_PAUSE = 0.06
"""Seconds; who asks more often gets older metrics."""


def await_true(
    condition: Callable[[], object],
    what: str | Callable[[], str],
    patience: float = PATIENCE,
    pause: float = 0.01,
) -> None:
    """Wait until `condition` holds; asked again and again, because processes have no events to wait for."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(pause)


class Scene:
    """Where a test's clients meet; see rule 3."""

    def __init__(self, server: Served, token: str = "token-alice") -> None:
        number = next(_numbers)
        self.server = server
        self.token = token
        self.room = f"room-{number}"
        self.over = False
        """Set it where the server was ended by the test: what is true at the end is the test's to see."""
        self._stack = ExitStack()

    def join(self, username: str, room: str | None = None, **options: Any) -> Chat:
        """Let somebody in; `since` and `epoch` resume, other options go to `websockets`."""
        query = {key: options.pop(key) for key in ("since", "epoch", "token") if key in options}
        where = target(room or self.room, username, **({"token": self.token} | query))
        chat = Chat(self.server.ws_url + where, **options)
        self._stack.callback(chat.vanish)
        return chat

    def at_end(self, do: Callable[[], object]) -> None:
        """Call it when the scene is over."""
        self._stack.callback(do)

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

    def __enter__(self) -> Self:
        self.server.check_bystanders()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None and not self.over:
                self.server.check_bystanders()
                check_clean(self.server)


class Served(ServerProcess):
    """A server with two bystanders, who talk in a room of their own from the first scene to the end."""

    @functools.cached_property
    def _pair(self) -> list[Chat]:
        pair = [Chat(self.ws_url + target("bystanders", name)) for name in ("ann", "ben")]
        pair[0].expect("joined", username="ben")
        return pair

    def await_listening(self, number: int) -> list[str]:
        """Where it says it listens, when so many lines have come."""
        await_true(lambda: len(self.listening) >= number, "all listeners are named")
        return self.listening

    def check_bystanders(self) -> None:
        """They talk."""
        for speaker in self._pair:
            text = f"still here {next(_numbers)}"
            speaker.say(text)
            for listener in self._pair:
                assert [text] == listener.texts(1)

    def dismiss_bystanders(self) -> None:
        """They leave."""
        for chat in self.__dict__.pop("_pair", []):
            chat.close()


def check_clean(server: ServerProcess, *secrets: str) -> None:
    """The process lives, and its standard error shows neither a fault of ours nor a token."""
    assert server.process.poll() is None, server.stderr
    check_stderr(server.stderr, *secrets)


def check_stderr(said: str, *secrets: str) -> None:
    """No traceback, no fault that was caught at the barrier, no token."""
    for word in ("Traceback", "connection_failed", "broker_failed", "token-alice", "dev-token", *secrets):
        assert word not in said, said


@contextmanager
def served(*arguments: str, cwd: Path | None = None, secrets: tuple[str, ...] = ()) -> Iterator[Served]:
    """A server for scenes; what must be true when they are over is rule 2."""
    with Served(*arguments, cwd=cwd) as server:
        try:
            yield server
        finally:
            server.dismiss_bystanders()
        check_clean(server, *secrets)
        await_empty(server)
        assert server.stop() == 0
        check_stderr(server.stderr, *secrets)


def refused_start(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """The one line that a server says which can't start."""
    done = subprocess.run(
        [*python_command(), *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=cwd,
        env=clean_environment(env),
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def snapshot(server: ServerProcess) -> dict[str, float]:
    """The metrics of a moment ago by name, with their labels as they stand in the text."""
    lines = get(server.port, "/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def gauges(server: ServerProcess) -> dict[str, float]:
    """The metrics of now: they count a refusal of just before."""
    refused = 'chatroom_refusals_total{status="404"}'
    known = snapshot(server).get(refused, 0)
    get(server.port, "/nowhere")
    now: dict[str, float] = {}

    def fresh() -> bool:
        nonlocal now
        now = snapshot(server)
        return now.get(refused, 0) > known

    await_true(fresh, "the metrics are made anew", pause=_METRICS_PAUSE)
    return now


def await_empty(server: ServerProcess, connections: int = 0) -> None:
    """Wait until so many connections are left, and of the others nothing."""
    now: dict[str, float] = {}

    def empty() -> bool:
        nonlocal now
        now = snapshot(server)
        if now["chatroom_connections"] != connections or now["chatroom_lagging_members"]:
            return False
        # The handshake counted is the one that asks for these numbers.
        return now["chatroom_handshakes"] == 1 and (connections > 0 or now["chatroom_rooms"] == 0)

    await_true(empty, lambda: f"the gauges return: {now}", pause=_METRICS_PAUSE)
