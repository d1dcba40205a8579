"""A server that does as a test says, at the other end of a page's WebSocket.

1. The page connects as ever: its question before the handshake goes to the real server, its WebSocket ends
   here.
2. Messages, edits, deletions and moderation get the next id and are told back, as the protocol has it. Where
   the script has an answer, it is given instead. Whatever is asked is kept in `sent`.
3. A reconnecting page is sent what it misses: everything after its `since`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.support.browser import PATIENCE, Visitor, says

if TYPE_CHECKING:
    from playwright.sync_api import WebSocketRoute

TS = 1_764_000_000_000
"""The time of the first entry, in milliseconds since 1970 UTC; each later one comes a second later."""

Frame = dict[str, Any]


class Scripted:
    """The room `general` for one page, whose person is alice."""

    def __init__(self, visitor: Visitor, **answers: Frame | None) -> None:
        """`answers` are frames by the name of the command; None leaves it without an answer."""
        self.visitor = visitor
        self.answers = answers
        self.sent: list[Frame] = []
        self.log: list[Frame] = []
        self.sockets = 0
        self._socket: WebSocketRoute | None = None
        visitor.page.route_web_socket("**/*", self._accept)

    # What a test does

    def connect(self) -> Scripted:
        """Connect, and wait until the page is in the room."""
        self.visitor.enter("alice")
        says(self.visitor, "Connected to #general as alice.")
        return self

    def tell(self, event: str, data: Frame, **more: Any) -> int:
        """Append an entry to the log, and send it. Returns its id."""
        number = len(self.log) + 1
        entry = {
            "event": event,
            "data": data,
            "room": "general",
            "id": number,
            "ts": TS + 1000 * number,
            **more,
        }
        self.log.append(entry)
        self.send(entry)
        return number

    def say(self, username: str, text: str, **more: Any) -> int:
        """Append a message. Returns its id."""
        return self.tell("message", {"username": username, "text": text}, **more)

    def send(self, frame: Frame) -> None:
        """Send a frame that isn't stored."""
        if self._socket is not None:
            self._socket.send(json.dumps(frame))

    def close(self, code: int, reason: str) -> None:
        """End the connection, as the page hears of it; Playwright's own close is an error in the page."""
        self._socket = None
        self.visitor.page.evaluate("([code, reason]) => lost(code, reason)", [code, reason])

    def of(self, event: str) -> list[Frame]:
        """The data of all commands of this name that came."""
        return [frame.get("data", {}) for frame in self.sent if frame["event"] == event]

    def await_sent(self, event: str, count: int = 1) -> list[Frame]:
        """Wait for so many commands of this name; their data."""
        for _ in range(PATIENCE // 20):
            if len(self.of(event)) >= count:
                break
            self.visitor.page.wait_for_timeout(20)
        assert len(self.of(event)) == count, self.sent
        return self.of(event)

    # What the page hears

    def _accept(self, socket: WebSocketRoute) -> None:
        self._socket = socket
        self.sockets += 1
        asked = parse_qs(urlsplit(socket.url).query)
        since = int(asked.get("since", ["0"])[0])
        replay = self.log[since:]
        welcome: Frame = {"event": "welcome", "data": {"message": "Welcome!", "members": ["bob"]}}
        welcome |= {"room": "general", "username": "alice", "epoch": "e", "last_id": len(self.log)}
        welcome |= {"replay": len(replay), "limits": {"text": 4000, "frame": 65536}}
        self.send(welcome | ({"recovered": True} if "since" in asked else {}))
        for entry in replay:
            self.send(entry)
        socket.on_message(lambda text: self._hear(json.loads(text)))

    def _hear(self, frame: Frame) -> None:
        self.sent.append(frame)
        event, data, cid = frame["event"], frame.get("data", {}), frame.get("cid")
        if event in self.answers:
            answer = self.answers[event]
            if answer is not None:
                self.send({**answer, "cid": cid})
        elif event == "message":
            self.say("alice", data["text"], cid=cid)
        elif event in {"edit", "delete"}:
            done = {"edit": "edited", "delete": "deleted"}[event]
            author = self.log[data["id"] - 1]["data"]["username"]
            self.tell(done, {**data, "username": author, "by": "alice"}, cid=cid)
        elif event == "moderate":
            until = {"until": self._next_ts() + 1000 * data["seconds"]} if "seconds" in data else {}
            given = {key: value for key, value in data.items() if key != "seconds"}
            self.tell("moderated", {**given, "by": "alice", **until}, cid=cid)

    def _next_ts(self) -> int:
        return TS + 1000 * (len(self.log) + 1)


def refused(code: str, message: str, **more: Any) -> Frame:
    """The answer to a command that fails."""
    return {"event": "error", "data": {"message": message}, "code": code, **more}
