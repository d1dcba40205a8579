"""The part of our protocol that the measurements use, for the servers in Python: what is told when.

The token, welcome, joined, left, message with id and ts. It checks and encodes as much as ours does for them.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKENS = frozenset(("dev-token", "token-alice", "token-bob", "token-carol"))
MAX_TEXT = 4000
Frame = Mapping[str, object]


def encode(frame: Frame) -> str:
    """Compact JSON, as ours sends it."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def read_query(path: str) -> dict[str, str]:
    """The parameters of the handshake."""
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}


class Room:
    """Members by connection, and the last id given; `broadcast` sends a text to the connections given."""

    def __init__(self, name: str, broadcast: Callable[[Collection[Any], str], None]) -> None:
        self.name = name
        self.members: dict[Any, str] = {}
        self._last_id = 0
        self._broadcast = broadcast

    def enter(self, connection: Any, username: str) -> str:
        """Tell who is here, and let this one in; returns its welcome."""
        self._announce("joined", username)
        welcome = {
            "event": "welcome",
            "data": {
                "message": f"Welcome to #{self.name}, {username}!",
                "members": sorted(self.members.values()),
            },
            "room": self.name,
            "username": username,
            "epoch": "-",
            "last_id": self._last_id,
            "replay": 0,
        }
        self.members[connection] = username
        return encode(welcome)

    def leave(self, connection: Any) -> None:
        """Let this one go, and tell who is left."""
        username = self.members.pop(connection)
        self._announce("left", username)

    def handle(self, username: str, raw: str | bytes) -> str | None:
        """Carry out one command; return the error that answers it, if any."""
        try:
            command = json.loads(raw)
        except ValueError:
            return encode({"event": "error", "data": {"message": "Invalid JSON"}, "code": "bad_json"})
        if not isinstance(command, dict) or command.get("event") != "message":
            return encode({"event": "error", "data": {"message": "Unknown event"}, "code": "bad_event"})
        data = command.get("data", {})
        text = data.get("text", "") if isinstance(data, dict) else None
        if not isinstance(text, str) or len(text := text.strip()) > MAX_TEXT:
            return encode({"event": "error", "data": {"message": "Bad data"}, "code": "bad_data"})
        if text:
            self._last_id += 1
            frame = {
                "event": "message",
                "data": {"username": username, "text": text},
                "room": self.name,
                "id": self._last_id,
                "ts": time.time_ns() // 1_000_000,
            }
            self._broadcast(self.members, encode(frame))
        return None

    def _announce(self, event: str, username: str) -> None:
        if self.members:
            frame = {"event": event, "data": {"username": username}, "room": self.name}
            self._broadcast(self.members, encode(frame))
