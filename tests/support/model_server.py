"""A chatroom server in a few lines, for clients to be tested against: what is promised, and every fault.

It isn't the server: it is written from docs/protocol.md alone. Frames travel through two queues, and whoever
drives it decides when one arrives, and when a connection is cut with what is still in them.
"""

import json
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

REPLAYED = 3
RECOVERED = 6
"""How many records are replayed at first, and on resume at most."""
PAGE = 2
"""Messages on a page of history: few, so that there are many pages."""


@dataclass
class Log:
    """The log of a room: its records from `first` on."""

    epoch: str
    first: int = 1
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.first + len(self.records) - 1

    def after(self, number: int) -> list[dict[str, Any]]:
        return [record for record in self.records if record["id"] > number]


class ModelServer:
    """All rooms, and who is connected."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.connections: list[ModelConnection] = []
        self.unavailable: str | None = None
        """`before` or `after` the commit, while the store fails."""
        self.forbidden: set[str] = set()
        self._epochs = count()
        self._epoch = f"e{next(self._epochs)}"

    def log(self, room: str) -> Log:
        return self.logs.setdefault(room, Log(self._epoch))

    def store(self, room: str, event: str, data: dict[str, Any], cid: str | None = None) -> dict[str, Any]:
        """Append a record, and show it to the members of the room."""
        log = self.log(room)
        record: dict[str, Any] = {"event": event, "data": data, "room": room, "id": log.last + 1, "ts": 1}
        if cid is not None:
            record["cid"] = cid
        log.records.append(record)
        for connection in self.connections:
            if connection.room == room:
                connection.tell(record)
        return record

    def trim(self, room: str, keep: int) -> None:
        """Only the last `keep` records stay."""
        log = self.log(room)
        gone = max(0, len(log.records) - keep)
        del log.records[:gone]
        log.first += gone

    def replace(self) -> None:
        """The store is replaced by an empty one: every connection ends by 1012."""
        self._epoch = f"e{next(self._epochs)}"
        self.logs.clear()
        for connection in list(self.connections):
            connection.close(1012, "the room's history was replaced")


class ModelConnection:
    """One connection of `username`. Frames wait in the two queues."""

    def __init__(self, server: ModelServer, room: str, username: str, since: tuple[str, int] | None) -> None:
        self.server = server
        self.username = username
        self.room = room.lower()
        self.to_client: deque[str] = deque()
        self.to_server: deque[str] = deque()
        self.closing: tuple[int, str] | None = None
        """The close frame behind what is in the queue."""
        stand, replay = self._stand(self.room, since)
        self.tell({"event": "welcome", "data": {"message": "", "members": []}, "room": self.room,
                   "username": username, **stand, "limits": {"frame": 2000, "unanswered": 32}})  # fmt: skip
        self._replay(replay)
        server.connections.append(self)

    def tell(self, frame: dict[str, Any]) -> None:
        if self.closing is None:
            self.to_client.append(json.dumps(frame))

    def close(self, code: int, reason: str) -> None:
        """No frame is read or sent any more; those on their way arrive."""
        if self.closing is None:
            self.closing = (code, reason)
            self.server.connections.remove(self)

    def cut(self) -> None:
        """The network fails: what is on its way is lost."""
        self.close(1006, "")
        self.to_client.clear()

    def serve_one(self) -> None:
        """Carry out the next command that has arrived."""
        frame = json.loads(self.to_server.popleft())
        if self.closing is not None:
            return
        event, data, cid = frame["event"], frame.get("data", {}), frame.get("cid")
        match event:
            case "message":
                self._message(data, cid)
            case "switch_room":
                self._switch(data, cid)
            case "history":
                self._history(data, cid)
            case "ping":
                self.tell({"event": "pong", "data": {}})
            case _:
                raise AssertionError(f"no such command: {event}")

    def _message(self, data: dict[str, Any], cid: str) -> None:
        for record in self.server.log(self.room).records:
            if record["event"] == "message" and (record.get("cid"), record["data"]["username"]) == (
                cid,
                self.username,
            ):
                self.tell({"event": "ack", "data": {"id": record["id"], "duplicate": True}, "cid": cid})
                return
        if self.server.unavailable != "before":
            if "refused" in data["text"]:
                self._error("forbidden", cid)
                return
            if self.server.unavailable is None:
                self.server.store(self.room, "message", {"username": self.username, **data}, cid)
                return
            self.server.store(self.room, "message", {"username": self.username, **data}, cid)
        self._error("unavailable", cid)

    def _switch(self, data: dict[str, Any], cid: str) -> None:
        room = data["room"].lower()
        if room == self.room:
            self.tell({"event": "ack", "data": {}, "cid": cid})
        elif room in self.server.forbidden:
            self._error("forbidden", cid)
        elif self.server.unavailable:
            self._error("unavailable", cid)
        else:
            self.room = room
            since = (data["epoch"], data["since"]) if "since" in data else None
            stand, replay = self._stand(room, since)
            self.tell({"event": "switched", "data": {"room": room}, "members": [], **stand, "cid": cid})
            self._replay(replay)

    def _history(self, data: dict[str, Any], cid: str) -> None:
        if self.server.unavailable:
            self._error("unavailable", cid)
            return
        found = [
            {"id": record["id"], "ts": 1, **record["data"]}
            for record in self.server.log(self.room).after(data["after"])
            if record["event"] == "message"
        ]
        page = {"messages": found[:PAGE], "more": len(found) > PAGE}
        self.tell({"event": "history", "data": page, "room": self.room, "cid": cid})

    def _error(self, code: str, cid: str) -> None:
        self.tell({"event": "error", "data": {"message": code}, "code": code, "cid": cid})

    def _stand(self, room: str, since: tuple[str, int] | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        log = self.server.log(room)
        stand: dict[str, Any] = {"epoch": log.epoch, "last_id": log.last}
        replay = log.records[-REPLAYED:]
        if since is not None:
            epoch, number = since
            missed = log.after(number)
            recovered = (
                epoch == log.epoch and number <= log.last and len(missed) == log.last - number <= RECOVERED
            )
            stand["recovered"] = recovered
            replay = missed if recovered else replay
        return {**stand, "replay": len(replay)}, replay

    def _replay(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.tell(record)
