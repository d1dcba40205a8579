"""A reader of Server-Sent Events that comes back as a browser does: with the last id that it has.

    reader = EventSource(port, "/rooms/ops/events", ("Authorization", "Bearer …"))
    reader.read_until(lambda: len(reader.texts) == 3)

1. What it reads is read as the standard says (HTML, section 9.2.6): an event that isn't whole is dropped.
2. Every read has a deadline. `read_until` connects again where the connection has ended; `read_end` doesn't.
"""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from tests.support.raw import PATIENCE, head


class EventSource:
    """One reader. `status` is that of the last answer."""

    def __init__(self, port: int, path: str, *headers: tuple[str, str]) -> None:
        self.port = port
        self.path = path
        self._headers = headers
        self._socket: socket.socket | None = None
        self._rest = b""
        self._chunks: bytes | None = None  # what isn't unpacked yet, where a proxy sends chunks
        self.status = 0
        self.answer_head = b""
        self.last_id = ""
        self.retry_ms: int | None = None
        self.comments: list[str] = []
        self.frames: list[dict[str, Any]] = []
        self.connections = 0

    @property
    def stored(self) -> list[dict[str, Any]]:
        """The frames of records."""
        return [frame for frame in self.frames if "id" in frame]

    @property
    def ids(self) -> list[int]:
        return [frame["id"] for frame in self.stored]

    @property
    def texts(self) -> list[str]:
        return [frame["data"]["text"] for frame in self.stored if frame["event"] == "message"]

    def connect(self) -> None:
        """Ask for the stream, with the last id if there is one. Raises OSError if nobody listens."""
        self.close()
        last = (("Last-Event-ID", self.last_id),) if self.last_id else ()
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self._socket, self._rest = sock, b""
        sock.sendall(head(f"GET {self.path} HTTP/1.1", ("Host", "localhost"), *self._headers, *last))
        while b"\r\n\r\n" not in self._rest:
            if not (data := sock.recv(65536)):
                raise ConnectionResetError("no answer")
            self._rest += data
        self.answer_head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        self.status = int(self.answer_head.split(b" ")[1])
        self._chunks = None
        if b"\r\ntransfer-encoding: chunked" in self.answer_head.lower():
            self._chunks, self._rest = self._rest, b""
            self._unpack()
        self.connections += 1
        if self.status == 200:
            self._take()

    def read_until(self, enough: Callable[[], object]) -> None:
        """Read on, and come back as often as it takes."""
        deadline = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < deadline, (self.status, self.frames[-3:])
            try:
                if self._socket is None:
                    self.connect()
                if self.status != 200 or not self._read():
                    self.close()
            except OSError:
                self.close()
                time.sleep(0.05)

    def read_end(self) -> bytes:
        """Read to the end of this connection; for a refusal, its text."""
        if self._socket is None:
            self.connect()
        while self._read():
            pass
        self.close()
        return self._rest

    def _read(self) -> bool:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if self._chunks is None:
            self._rest += data
        else:
            self._chunks += data
            self._unpack()
        if self.status == 200:
            self._take()
        return bool(data)

    def _unpack(self) -> None:
        assert self._chunks is not None
        while b"\r\n" in self._chunks:
            line, _, rest = self._chunks.partition(b"\r\n")
            size = int(line, 16)
            if len(rest) < size + 2:
                return
            self._rest += rest[:size]
            self._chunks = rest[size + 2 :]

    def _take(self) -> None:
        *blocks, self._rest = self._rest.split(b"\n\n")
        for block in blocks:
            data = None
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not name:
                    self.comments.append(value)
                elif name == "id":
                    self.last_id = value
                elif name == "retry":
                    self.retry_ms = int(value)
                else:
                    assert name == "data", line
                    data = value
            if data is not None:
                self.frames.append(json.loads(data))

    def close(self) -> None:
        """Leave; may be called again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
