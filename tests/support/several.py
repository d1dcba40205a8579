"""Built servers on one store, their clients, and their answers and metrics.

    with several(store.url, store.url) as (one, two):
        alice, bob = come(one, "den", "alice"), come(two, "den", "bob")

1. Questions are asked first and answered later, so that all that wait for the store wait at the same time.
2. An answer that takes longer than is promised fails the test.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.support.client import Chat, Frame, target
from tests.support.process import clean_environment
from tests.support.raw import CLOSE, Raw, get, handshake
from tests.support.scene import Served, await_true

PROMISED = 3.5
"""Seconds until an answer that waits for the store: 3, and half of one for a busy machine."""
LEASE = 20.0
"""Seconds that a node lives without the store."""
PRESENCE = ("joined", "left", "members")


@contextmanager
def several(*urls: str, options: Sequence[str] = ()) -> Iterator[list[Served]]:
    """A server at each of these URLs of stores; all are started at once, and none is measured."""
    environment = clean_environment(measured=False)
    nodes = [
        Served("--redis", url, "--node", f"n{number}", "--rate", "0", *options, env=environment)
        for number, url in enumerate(urls, 1)
    ]
    with ExitStack() as stack, ThreadPoolExecutor(len(nodes)) as pool:
        for started in [pool.submit(stack.enter_context, node) for node in nodes]:
            started.result()
        yield nodes


def come(node: Served, room: str, username: str, **more: str | int) -> Chat:
    """A client in a room."""
    return Chat(node.ws_url + target(room, username, "token-alice", **more))


def reasons(node: Served) -> tuple[int, list[str]]:
    """The status and the reasons in `/readyz`."""
    answer = get(node.port, "/readyz")
    return answer.status, json.loads(answer.body).get("reasons", [])


def await_ready(*nodes: Served) -> None:
    """Wait until these servers are ready."""
    for node in nodes:
        await_true(lambda node=node: reasons(node)[0] == 200, lambda node=node: node.stderr)  # type: ignore[misc]


def logged(node: Served, *events: str) -> list[dict[str, Any]]:
    """The lines of these events in its log, which is whole when the node has ended."""
    assert node.process.poll() is not None
    lines = [json.loads(line) for line in node.stderr.splitlines()]
    return [line for line in lines if line["event"] in events]


class Question:
    """A command that was sent."""

    def __init__(self, chat: Chat, event: str, cid: str, **data: Any) -> None:
        self._chat = chat
        self._cid = cid
        self._asked = time.monotonic()
        chat.send(event, cid, **data)

    def answer(self, within: float = PROMISED) -> Frame:
        """The frame with its cid; others before it are skipped."""
        while (frame := self._chat.receive()).get("cid") != self._cid:
            pass
        assert time.monotonic() - self._asked < within, frame
        return frame

    def code(self) -> str:
        """The code of the error that it is answered, or the event that is its answer."""
        frame = self.answer()
        return str(frame.get("code", frame["event"]))


class Arrival:
    """A handshake that was sent."""

    def __init__(self, node: Served, room: str, username: str, **more: str | int) -> None:
        self._raw = Raw(node.port)
        self._asked = time.monotonic()
        self._raw.send(handshake(target(room, username, "token-alice", **more)))

    def end(self) -> str | int:
        """`welcome`, or the code by which it was closed."""
        try:
            assert self._raw.read_answer().status == 101
            found = self._raw.read_frame()
            assert time.monotonic() - self._asked < PROMISED, found
            assert found is not None, "the connection was dropped"
            opcode, payload = found
            return (
                int.from_bytes(payload[:2], "big") if opcode == CLOSE else str(json.loads(payload)["event"])
            )
        finally:
            self._raw.close()


def say_until_stored(chat: Chat, text: str, cid: str) -> int:
    """As a client does: the same again, until it is stored. Returns the id."""
    while True:
        frame = Question(chat, "message", cid, text=text).answer()
        if frame["event"] == "message":
            number: int = frame["id"]
            return number
        if frame["event"] == "ack":
            assert frame["data"]["duplicate"]
            known: int = frame["data"]["id"]
            return known
        assert frame["code"] == "unavailable", frame
        time.sleep(0.05)


def listed(chat: Chat) -> list[str]:
    """The names in the room, in the server's answer."""
    names: list[str] = Question(chat, "members", f"who-{time.monotonic()}").answer()["data"]["members"]
    return names


def until_listed(chat: Chat, *names: str) -> None:
    """Wait until just these are in its room."""
    await_true(lambda: listed(chat) == sorted(names), lambda: str(listed(chat)))
