"""A client of the built server.

1. It is the `websockets` library, so that what is ours is judged by what isn't; `tests.support.raw` has
   the bytes.
2. Nothing here sleeps. "Nothing more came" is proven by a ping of the protocol: `settle` returns what came
   before its pong.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from itertools import count
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

PATIENCE = 20.0
"""Seconds; longer than anything takes on a busy machine."""

Frame = dict[str, Any]
_DEFAULTS = {
    "proxy": None,
    "ping_interval": None,
    "open_timeout": PATIENCE,
    "close_timeout": PATIENCE,
    "max_queue": None,  # what a test doesn't read must not stand in the way of the closing handshake
}


def target(room: str, username: str, token: str = "token-alice", **more: str | int) -> str:
    """The path and query of a handshake."""
    return "/?" + urlencode({"token": token, "username": username, "room": room, **more})


class Chat:
    """One client in a room. `welcome` is its first frame."""

    def __init__(self, url: str, **options: Any) -> None:
        options = _DEFAULTS | options
        path = options.pop("path", None)
        self._cids = count(1)
        with ExitStack() as stack:
            opening = connect(url, **options) if path is None else unix_connect(path, url, **options)
            self.socket: ClientConnection = stack.enter_context(opening)
            self.raw_welcome = self.receive_text()
            self.welcome: Frame = json.loads(self.raw_welcome)
            assert self.welcome["event"] == "welcome", self.raw_welcome
            self._stack = stack.pop_all()

    def send(self, event: str, cid: str | None = None, **data: Any) -> None:
        """Send a command."""
        self.send_text(json.dumps({"event": event, "data": data} | ({} if cid is None else {"cid": cid})))

    def send_text(self, text: str) -> None:
        """Send a text frame, whatever is in it."""
        self.socket.send(text)

    def say(self, text: str, cid: str | None = None) -> None:
        """Send a message."""
        self.send("message", cid, text=text)

    def receive_text(self) -> str:
        """The next frame as it came."""
        text = self.socket.recv(timeout=PATIENCE)
        assert isinstance(text, str)
        return text

    def receive(self) -> Frame:
        """The next frame."""
        frame = json.loads(self.receive_text())
        assert list(frame)[:2] == ["event", "data"], frame
        assert isinstance(frame, dict)
        return frame

    def expect(self, event: str, **data: Any) -> Frame:
        """The next frame, which must be this event with these members of its data."""
        frame = self.receive()
        found = {key: frame["data"].get(key) for key in data}
        assert (frame["event"], found) == (event, data), frame
        return frame

    def ask(self, event: str, **data: Any) -> Frame:
        """Send a command with a cid; the one answer to it. Nothing may come before the answer."""
        cid = f"ask-{next(self._cids)}"
        self.send(event, cid, **data)
        frame = self.receive()
        assert frame.get("cid") == cid, frame
        return frame

    def settle(self) -> list[Frame]:
        """What has come by now: all frames before the pong to a ping sent now."""
        cid = f"settle-{next(self._cids)}"
        self.send("ping", cid)
        frames = []
        while (frame := self.receive()).get("cid") != cid:
            frames.append(frame)
        assert frame["event"] == "pong", frame
        return frames

    def messages(self, number: int) -> list[Frame]:
        """The next messages; other frames between them are skipped."""
        frames: list[Frame] = []
        while len(frames) < number:
            frame = self.receive()
            if frame["event"] == "message":
                frames.append(frame)
        return frames

    def texts(self, number: int) -> list[str]:
        """The texts of the next `number` frames, all of them messages."""
        return [self.expect("message")["data"]["text"] for _ in range(number)]

    def closing(self) -> tuple[int, str]:
        """Read until the server closes: its code and reason."""
        with suppress(ConnectionClosed):
            while True:
                self.receive_text()
        received = self.socket.protocol.close_rcvd
        assert received is not None, "the connection was dropped"
        return received.code, received.reason

    def close(self, code: int = 1000) -> None:
        """Leave."""
        self.socket.close(code)
        self._stack.close()

    def vanish(self) -> None:
        """Be gone, without a close frame."""
        self.socket.close_socket()
        self._stack.close()
