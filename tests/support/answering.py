"""A server by HTTP that answers what a test tells it, on a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from chatroom.client.address import Place


def answer(
    body: object, status: str = "200 OK", kind: str = "application/json", *headers: str, close: bool = False
) -> bytes:
    """An answer whose body is JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(content)}",
        *(["Connection: close"] if close else []),
        *headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def refusal(status: str, text: str, *headers: str) -> bytes:
    """A refusal as the server sends it."""
    return answer(text.encode(), status, "text/plain; charset=utf-8", *headers)


class Answering:
    """Gives one answer to each request, in their order; None closes the connection instead.

    `requests` has what was asked: the head and the body of each.
    """

    def __init__(self, *answers: bytes | None, unix: Path | None = None) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self._answers: Sequence[bytes | None] = answers
        if unix is None:
            self._socket = socket.create_server(("127.0.0.1", 0))
            self.place = Place("127.0.0.1", self._socket.getsockname()[1])
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(unix))
            self._socket.listen()
            self.place = Place(unix=str(unix))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        answers = list(self._answers)
        while answers:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                while answers and (head := self._read(lines)) is not None:
                    self.requests.append(head)
                    reply = answers.pop(0)
                    if reply is None:
                        break
                    connection.sendall(reply)
                    if b"Connection: close" in reply:
                        break

    @staticmethod
    def _read(lines: object) -> tuple[str, bytes] | None:
        head = []
        while (line := lines.readline()) not in (b"\r\n", b""):  # type: ignore[attr-defined]
            head.append(line.decode().rstrip())
        if not head:
            return None
        sizes = [int(each.split(":")[1]) for each in head if each.lower().startswith("content-length")]
        return "\n".join(head), lines.read(sizes[0]) if sizes else b""  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
