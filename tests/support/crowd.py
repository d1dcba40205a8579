"""A crowd of clients that talk, switch rooms, reconnect, resume and retry by themselves, and record it all.

1. What a client has sent and got no answer to, it sends again with the same `cid`, whenever it is back in
   that room; it never gives up.
2. Chance comes from one generator, so that a seed repeats what the clients want to do.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
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


@asynccontextmanager
async def connected(port: int, where: str) -> AsyncIterator[WebSocketConnection]:
    """A connection that is simply dropped at the end. What goes wrong comes in a group."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, "localhost", where, message_queue_size=64)
        nursery.cancel_scope.cancel()


@dataclass
class Place:
    """How far a client has got in a room."""

    since: int | None = None
    epoch: str | None = None


@dataclass
class Crowd:
    """What all clients share."""

    port: int
    checker: Checker
    chance: random.Random
    talking: bool = True
    stays: count[int] = field(default_factory=lambda: count(1))
    clients: list[Talker] = field(default_factory=list)

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
        self.pending: dict[str, tuple[str, str]] = {}  # by cid: room and text
        self.connections = 0
        self._numbers = count(1)
        self._room = crowd.chance.choice(ROOMS)
        self._places = {room: Place() for room in ROOMS}
        self._stay = 0
        self._switching = False

    async def run(self) -> None:
        """Be there until cancelled."""
        while True:
            place = self._places[self._room]
            if place.since is None or place.epoch is None:
                where = target(self._room, self.username)
            else:
                where = target(self._room, self.username, since=place.since, epoch=place.epoch)
            try:
                async with connected(self.crowd.port, where) as socket:
                    self.connections += 1
                    await self._be_there(socket)
            except* (ConnectionClosed, HandshakeError, OSError):
                pass
            await trio.sleep(self.crowd.chance.uniform(0.01, 0.05))

    async def _be_there(self, socket: WebSocketConnection) -> None:
        self._switching = False
        async with trio.open_nursery() as nursery:
            entered = trio.Event()
            nursery.start_soon(self._talk, socket, entered)
            try:
                while True:
                    await self._take(json.loads(await socket.get_message()), socket)
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
                waiting = [cid for cid, (room, _) in self.pending.items() if room == self._room]
                if not self.crowd.talking:
                    elsewhere = [room for room, _ in self.pending.values() if room != self._room]
                    if not waiting and elsewhere:
                        await self._switch(socket, elsewhere[0])
                elif chance.random() < 0.02:
                    await self._switch(socket, chance.choice([room for room in ROOMS if room != self._room]))
                elif len(waiting) < MOST_PENDING:
                    cid = f"{self.username}-{next(self._numbers)}"
                    self.pending[cid] = (self._room, f"{chance.random()} from {self.username}")
                    await self._say(socket, cid)

    async def _say(self, socket: WebSocketConnection, cid: str) -> None:
        room, text = self.pending[cid]
        self.crowd.checker.take(Said(room, Content(self.username, cid, text)))
        await socket.send_message(json.dumps({"event": "message", "data": {"text": text}, "cid": cid}))

    async def _switch(self, socket: WebSocketConnection, room: str) -> None:
        self._switching = True
        place = self._places[room]
        data: dict[str, Any] = {"room": room}
        if place.since is not None:
            data |= {"since": place.since, "epoch": place.epoch}
        await socket.send_message(json.dumps({"event": "switch_room", "data": data}))

    async def _take(self, frame: dict[str, Any], socket: WebSocketConnection) -> None:
        match frame["event"]:
            case "welcome" | "switched":
                self._enter(frame)
                for cid, (room, _) in list(self.pending.items()):
                    if room == self._room:
                        await self._say(socket, cid)
            case "message":
                self._see(frame)
            case "ack":
                self._settle(frame["cid"], frame["data"]["id"])
            case "error" if frame["code"] == "unavailable":
                await self._say(socket, frame["cid"])
            case "error":
                self._settle(frame["cid"], None)

    def _enter(self, frame: dict[str, Any]) -> None:
        self._room = frame.get("room") or frame["data"]["room"]
        self._switching = False
        self._stay = next(self.crowd.stays)
        place = self._places[self._room]
        self.crowd.checker.take(
            Entered(
                self._stay,
                self._room,
                frame["epoch"],
                frame["last_id"],
                frame["replay"],
                place.since,
                frame.get("recovered"),
            )
        )
        place.epoch = frame["epoch"]
        place.since = frame["last_id"] - frame["replay"]

    def _see(self, frame: dict[str, Any]) -> None:
        data = frame["data"]
        content = Content(data["username"], frame.get("cid", ""), data["text"])
        self.crowd.checker.take(Saw(self._stay, frame["room"], frame["id"], content))
        self._places[frame["room"]].since = frame["id"]
        if content.username == self.username and content.cid in self.pending:
            self._settle(content.cid, frame["id"])

    def _settle(self, cid: str, number: int | None) -> None:
        if cid in self.pending:
            room, _ = self.pending.pop(cid)
            self.crowd.checker.take(Told(room, self.username, cid, number))


async def read_log(port: int, room: str) -> list[tuple[int, Content]]:
    """All that is kept of a room, page by page."""
    found: list[tuple[int, Content]] = []
    async with connected(port, target(room, "reader")) as socket:
        more = True
        while more:
            after = found[-1][0] if found else 0
            data = {"after": after, "limit": 200}
            await socket.send_message(json.dumps({"event": "history", "data": data, "cid": "h"}))
            while (frame := json.loads(await socket.get_message()))["event"] != "history":
                pass
            page = frame["data"]
            found += [
                (each["id"], Content(each["username"], each.get("cid", ""), each["text"]))
                for each in page["messages"]
            ]
            more = page["more"]
    return found
