"""A server that sends whatever a test wants, by WebSocket, to a client that it takes as it is.

    with FakeServer(welcome(), {"event": "message", …}, rooms={…}) as server:
        … a client at server.url …

1. Each connection gets `frames` in their order: texts as they are, all else as JSON.
2. A command that is among `answers` is answered by that frame, with its `cid`; others aren't answered.
   All are in `asked`.
3. `close` ends the connections with a code and a reason.
"""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

Frame = dict[str, Any]


def welcome(username: str = "alice", room: str = "general", *, last_id: int = 0, **more: Any) -> Frame:
    """A welcome; `more` replaces what it says."""
    return {
        "event": "welcome",
        "data": {"message": "Welcome!", "members": []},
        "room": room,
        "username": username,
        "epoch": "e",
        "last_id": last_id,
        "replay": last_id,
        **more,
    }


class FakeServer:
    """One such server, on a free port of this machine."""

    def __init__(self, *frames: object, **answers: Frame) -> None:
        self.asked: list[Frame] = []
        self._frames = frames
        self._answers = answers
        self._open: list[ServerConnection] = []
        self._server = serve(self._talk, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def _talk(self, connection: ServerConnection) -> None:
        self._open.append(connection)
        try:
            for frame in self._frames:
                connection.send(frame if isinstance(frame, str) else json.dumps(frame))
            for text in connection:
                command = json.loads(text)
                self.asked.append(command)
                if (answer := self._answers.get(command["event"])) is not None:
                    connection.send(json.dumps({**answer, "cid": command.get("cid")}))
        except ConnectionClosed:
            pass

    def send(self, frame: object) -> None:
        """Send another frame to everybody."""
        for connection in self._open:
            connection.send(json.dumps(frame))

    def close(self, code: int, reason: str) -> None:
        """End all connections."""
        for connection in self._open:
            connection.close(code, reason)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
