"""A crowd of clients that talk, switch rooms, reconnect, resume and retry by themselves, and record it all.

1. A client sends a message without an answer again, with the same `cid`, whenever it is back in that room;
   it never gives up.
2. Chance comes from one generator, so a seed repeats the wishes of the clients.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from tests.support.client import target
from tests.support.history import Checker, Content, Entered, Said, Saw, Told

ROOMS = ("general", "ops", "lounge")
MOST_PENDING = 8
MOST_OWN = 10
"""A client changes its last messages only."""
HANDSHAKE_SECONDS = 10


def content_of(frame: dict[str, Any]) -> Content:
    """What a stored record says."""
    data, cid = frame["data"], frame.get("cid", "")
    match frame["event"]:
        case "edited":
            return Content(data["by"], cid, data["text"], data["id"])
        case "deleted":
            return Content(data["by"], cid, "", data["id"], deletes=True)
    return message_of(frame, data)


def message_of(message: dict[str, Any], data: dict[str, Any]) -> Content:
    """What a message says, in a frame or in a page of history."""
    changed = message.get("deleted") or message.get("edited") or 0
    return Content(data["username"], message.get("cid", ""), data["text"], changed=changed)


@asynccontextmanager
async def connected(port: int, where: str) -> AsyncIterator[WebSocketConnection]:
    """A connection that is simply dropped at the end. What goes wrong comes in a group."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        with trio.fail_after(HANDSHAKE_SECONDS):  # the library waits without end if the peer hangs up in it
            socket = await wrap_client_stream(nursery, stream, "localhost", where, message_queue_size=64)
        yield socket
        nursery.cancel_scope.cancel()


@dataclass
class Place:
    """How far a client has got in a room."""

    since: int | None = None
    epoch: str | None = None


@dataclass
class Crowd:
    """What all clients share: among others the ports of the nodes, of which each connection takes one.

    `changes` is how many of the things that clients say are edits and deletions of their own messages, from 0
    to 1. `epochs` are those that were ever told of each room.
    """

    ports: Sequence[int]
    checker: Checker
    chance: random.Random
    changes: float = 0.0
    talking: bool = True
    settled: int = 0  # messages whose senders know their ids
    changed: int = 0  # edits and deletions likewise
    subscriptions: count[int] = field(default_factory=lambda: count(1))
    clients: list[Talker] = field(default_factory=list)
    epochs: dict[str, set[str]] = field(default_factory=lambda: {room: set() for room in ROOMS})

    def add(self, size: int) -> None:
        self.clients = [Talker(self, f"user{number}") for number in range(size)]

    @property
    def pending(self) -> int:
        """Messages whose fate their senders don't know."""
        return sum(len(client.pending) for client in self.clients)


class Talker:
    """One client."""

    def __init__(self, crowd: Crowd, username: str) -> None:
        self.crowd = crowd
        self.username = username
        self.pending: dict[str, tuple[str, Content]] = {}  # by cid: in which room
        self._own: dict[str, list[int]] = {}  # the last messages that it has said, by log
        self.connections = 0
        self._numbers = count(1)
        self.room = crowd.chance.choice(ROOMS)
        self._places = {room: Place() for room in ROOMS}
        self._subscription = 0
        self.port = 0
        self._log = ""  # the room and its epoch, as the checker knows them
        self._switching = False

    @property
    def state(self) -> str:
        """Where the client is, and what it waits for."""
        waiting = {cid: room for cid, (room, _) in self.pending.items()}
        switching = ", switching" if self._switching else ""
        return f"{self.username} in {self.room} on {self.port}{switching}: {waiting}"

    async def run(self) -> None:
        """Be there until cancelled."""
        while True:
            place = self._places[self.room]
            if place.since is None or place.epoch is None:
                where = target(self.room, self.username)
            else:
                where = target(self.room, self.username, since=place.since, epoch=place.epoch)
            self.port = self.crowd.chance.choice(self.crowd.ports)
            try:
                async with connected(self.port, where) as socket:
                    self.connections += 1
                    await self._be_there(socket)
            except* (ConnectionClosed, HandshakeError, OSError, trio.TooSlowError):
                pass
            await trio.sleep(self.crowd.chance.uniform(0.01, 0.05))

    async def _be_there(self, socket: WebSocketConnection) -> None:
        self._switching = False
        async with trio.open_nursery() as nursery:
            entered = trio.Event()
            nursery.start_soon(self._talk, socket, entered)
            try:
                while True:
                    await self._handle(json.loads(await socket.get_message()), socket)
                    entered.set()
            except ConnectionClosed:
                nursery.cancel_scope.cancel()

    async def _talk(self, socket: WebSocketConnection, entered: trio.Event) -> None:
        chance = self.crowd.chance
        await entered.wait()
        with suppress(ConnectionClosed):
            while True:
                await trio.sleep(chance.uniform(0, 0.02))
                if self._switching:
                    continue
                waiting = [cid for cid, (room, _) in self.pending.items() if room == self.room]
                if not self.crowd.talking:
                    elsewhere = [room for room, _ in self.pending.values() if room != self.room]
                    if not waiting and elsewhere:
                        await self._switch(socket, elsewhere[0])
                elif chance.random() < 0.02:
                    await self._switch(socket, chance.choice([room for room in ROOMS if room != self.room]))
                elif len(waiting) < MOST_PENDING:
                    cid = f"{self.username}-{next(self._numbers)}"
                    self.pending[cid] = (self.room, self._new_content(cid))
                    await self._say(socket, cid)

    def _new_content(self, cid: str) -> Content:
        """Something to say: a message, or a change of one of the last ones."""
        chance, text = self.crowd.chance, f"{self.crowd.chance.random()} from {self.username}"
        own = self._own.get(self._log)
        if not own or not self.crowd.changes or chance.random() >= self.crowd.changes:
            return Content(self.username, cid, text)
        deletes = chance.random() < 0.3
        return Content(self.username, cid, "" if deletes else text, chance.choice(own), deletes)

    async def _say_again(self, socket: WebSocketConnection) -> None:
        for cid, (room, _) in list(self.pending.items()):
            if room == self.room and not self._switching and cid in self.pending:
                await self._say(socket, cid)

    async def _say(self, socket: WebSocketConnection, cid: str) -> None:
        room, content = self.pending[cid]
        self.crowd.checker.apply(Said(room, content))
        event, data = "message", dict[str, Any]()
        if content.about:
            event, data = "delete" if content.deletes else "edit", {"id": content.about}
        if not content.deletes:
            data["text"] = content.text
        await socket.send_message(json.dumps({"event": event, "data": data, "cid": cid}))

    async def _switch(self, socket: WebSocketConnection, room: str) -> None:
        self._switching = True
        place = self._places[room]
        data: dict[str, Any] = {"room": room}
        if place.since is not None:
            data |= {"since": place.since, "epoch": place.epoch}
        await socket.send_message(json.dumps({"event": "switch_room", "data": data}))

    async def _handle(self, frame: dict[str, Any], socket: WebSocketConnection) -> None:
        match frame["event"]:
            case "welcome" | "switched":
                self._enter(frame)
                await self._say_again(socket)
            case "message" | "edited" | "deleted":
                self._see(frame)
            case "ack":
                self._settle(frame["cid"], frame["data"].get("id"))  # without one: it was deleted already
            case "error" if "cid" not in frame:
                self._switching = False  # it was refused, and may be tried again
                await self._say_again(socket)
            case "error" if frame["code"] == "unavailable":
                # A switch under way would take it along; and an earlier try may have been shown after all.
                if not self._switching and frame["cid"] in self.pending:
                    await self._say(socket, frame["cid"])
            case "error":
                self._settle(frame["cid"], None)

    def _enter(self, frame: dict[str, Any]) -> None:
        self.room = frame.get("room") or frame["data"]["room"]
        self._switching = False
        self._subscription = next(self.crowd.subscriptions)
        place = self._places[self.room]
        self.crowd.epochs[self.room].add(frame["epoch"])
        same = place.epoch == frame["epoch"]
        if not same and place.since is not None:
            assert frame["recovered"] is False
        self._log = f"{self.room}@{frame['epoch']}"
        self.crowd.checker.apply(
            Entered(
                self._subscription,
                self._log,
                frame["epoch"],
                frame["last_id"],
                frame["replay"],
                place.since if same else None,
                frame.get("recovered") if same else None,
            )
        )
        place.epoch = frame["epoch"]
        place.since = frame["last_id"] - frame["replay"]

    def _see(self, frame: dict[str, Any]) -> None:
        content = content_of(frame)
        log = f"{frame['room']}@{self._places[frame['room']].epoch}"
        self.crowd.checker.apply(Saw(self._subscription, log, frame["id"], content))
        self._places[frame["room"]].since = frame["id"]
        if content.username == self.username and content.cid in self.pending:
            self._settle(content.cid, frame["id"])
        if content.username == self.username and not content.about:
            own = self._own.setdefault(log, [])
            if frame["id"] not in own:
                self._own[log] = [*own[1 - MOST_OWN :], frame["id"]]

    def _settle(self, cid: str, number: int | None) -> None:
        if cid in self.pending:
            room, content = self.pending.pop(cid)
            log = f"{room}@{self._places[room].epoch}"
            self.crowd.checker.apply(Told(log, self.username, cid, number))
            self.crowd.settled += number is not None and not content.about
            self.crowd.changed += number is not None and content.about > 0


async def read_log(port: int, room: str, after: int = 0) -> tuple[str, list[tuple[int, Content]]]:
    """The name of a room's log, and all that is kept of it, page by page; only ids above `after`."""
    found: list[tuple[int, Content]] = []
    async with connected(port, target(room, "reader")) as socket:
        epoch = json.loads(await socket.get_message())["epoch"]
        more = True
        while more:
            after = found[-1][0] if found else after
            data = {"after": after, "limit": 200}
            await socket.send_message(json.dumps({"event": "history", "data": data, "cid": "h"}))
            while (frame := json.loads(await socket.get_message()))["event"] != "history":
                pass
            page = frame["data"]
            found += [(each["id"], message_of(each, each)) for each in page["messages"]]
            more = page["more"]
    return f"{room}@{epoch}", found
