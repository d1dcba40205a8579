"""A client's peer in memory: the model server behind a WebSocket, or whatever a test wants to say.

1. A `MemoryDialer` gives a client streams in memory. What answers on them is the `peer` of that moment.
2. Nothing here knows a clock: on a virtual one, minutes pass at once.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio
import trio.testing
import trio_websocket
from trio_websocket import ConnectionClosed

from chatroom.client.address import Place
from chatroom.client.dialer import Dialer
from tests.support.model_server import ModelConnection, ModelServer

CUT = (1006, "")
Peer = Callable[[trio.abc.Stream], Awaitable[None]]


class MemoryDialer(Dialer):
    """Opens streams in memory, and has `peer` at their other end."""

    def __init__(self, nursery: trio.Nursery, peer: Peer) -> None:
        super().__init__(Place("model", 3000), None)
        self.peer = peer
        self.opened = 0
        self.fails: list[Exception] = []
        """What the next ones raise instead."""
        self._nursery = nursery

    async def open(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.opened += 1
        if self.fails:
            raise self.fails.pop(0)
        ours, theirs = trio.testing.memory_stream_pair()
        self._last = ours
        self._nursery.start_soon(self._serve, self.peer, theirs)
        return ours

    def stall(self) -> None:
        """From now on, the peer of the last stream takes nothing."""
        self._last.send_stream.send_all_hook = trio.sleep_forever

    async def cut(self) -> None:
        """The last stream breaks, for its peer as well."""
        await self._last.aclose()

    async def _serve(self, peer: Peer, stream: trio.abc.Stream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await peer(stream)


class ServedConnection(ModelConnection):
    """A connection of the model on a WebSocket: what it tells is sent at once."""

    def __init__(self, served: ServedModel, websocket: Any, target: str) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        since = (query["epoch"], int(query["since"])) if "since" in query else None
        self.served = served
        self.websocket = websocket
        self.query = query
        self._work = trio.Event()
        super().__init__(served.model, query["room"], query.get("username", "alice"), since)

    def tell(self, frame: dict[str, Any]) -> None:
        super().tell(frame)
        self._work.set()

    def close(self, code: int, reason: str) -> None:
        super().close(code, reason)
        self._work.set()

    def serve_one(self) -> None:
        frame = json.loads(self.to_server[0])
        self.served.commands.append(frame)
        if frame["event"] in self.served.deaf_to:
            self.to_server.popleft()
        elif (answer := self.served.answers.get(frame["event"])) is not None:
            self.to_server.popleft()
            answer(self, frame)
        elif frame["event"] == "auth":
            self.to_server.popleft()
            self.tell({"event": "ack", "data": {"exp": 1}, "cid": frame["cid"]})
        else:
            super().serve_one()

    async def read(self) -> None:
        try:
            while True:
                message = await self.websocket.get_message()
                await trio.sleep(self.served.takes)
                self.to_server.append(message)
                self.serve_one()
        except ConnectionClosed:
            self.close(*CUT)

    async def vanish(self) -> None:
        """There is no connection any more, without a word."""
        self.close(*CUT)
        await self.websocket._stream.aclose()

    async def write(self) -> None:
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                while self.to_client:
                    await self.websocket.send_message(self.to_client.popleft())
                if self.closing == CUT:
                    return
                if self.closing is not None:
                    await self.websocket.aclose(*self.closing)
                    return
        except ConnectionClosed:
            self.close(*CUT)


class ServedModel:
    """The model server; as a peer it shakes hands and serves."""

    def __init__(self) -> None:
        self.model = ModelServer()
        self.targets: list[str] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.commands: list[dict[str, Any]] = []
        self.takes = 0.0
        """Seconds for each command."""
        self.deaf_to: set[str] = set()
        """Commands that get no answer."""
        self.answers: dict[str, Callable[[ServedConnection, dict[str, Any]], None]] = {}
        """What a test does at a command, in place of the model."""

    @property
    def connection(self) -> ServedConnection:
        """The one connection that there is."""
        (found,) = self.model.connections
        assert isinstance(found, ServedConnection)
        return found

    async def __call__(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            self.targets.append(request.path)
            self.headers.append(dict(request.headers))
            websocket = await request.accept()
            served = ServedConnection(self, websocket, request.path)
            nursery.start_soon(served.write)
            await served.read()
            nursery.cancel_scope.cancel()
