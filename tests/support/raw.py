"""Bytes to and from the built server: what no well-behaved client would send.

1. A `Raw` sends exactly the bytes that it is given, and parses frames that a server sends, nothing else.
2. Every read has a deadline. An end of stream is None, a reset is ConnectionResetError.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

PATIENCE = 20.0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIN = 0x80


def head(line: str, *headers: tuple[str, str]) -> bytes:
    """A request."""
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


def handshake(target: str, *headers: tuple[str, str]) -> bytes:
    """A request to be let in, with `headers` in addition."""
    return head(f"GET {target} HTTP/1.1", *UPGRADE, *headers)


def frame(
    payload: bytes | str = b"",
    opcode: int = TEXT,
    *,
    first: int | None = None,
    mask: bytes | None = b"\x11\x22\x33\x44",
    length: int | None = None,
) -> bytes:
    """A client's frame. `first` replaces its first byte, `length` the one declared; `mask` None: unmasked."""
    body = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    size = len(body) if length is None else length
    bit = 0 if mask is None else 0x80
    out = bytes([FIN | opcode if first is None else first])
    if size < 126:
        out += bytes([bit | size])
    elif size < 1 << 16:
        out += struct.pack("!BH", bit | 126, size)
    else:
        out += struct.pack("!BQ", bit | 127, size)
    if mask is None:
        return out + body
    key = mask * (len(body) // 4 + 1)
    masked = int.from_bytes(body, "big") ^ int.from_bytes(key[: len(body)], "big")
    return out + mask + masked.to_bytes(len(body), "big")


def command(event: str, cid: str | None = None, **data: Any) -> bytes:
    """The frame of a command."""
    return frame(json.dumps({"event": event, "data": data} | ({} if cid is None else {"cid": cid})))


def close(code: int, reason: str = "") -> bytes:
    """A client's close frame."""
    return frame(struct.pack("!H", code) + reason.encode(), CLOSE)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names are lower case, the values of one that came twice are joined."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Raw:
    """A bare TCP connection."""

    def __init__(self, port: int, *, receive_buffer: int | None = None, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect((host, port))
        except BaseException:
            self.socket.close()
            raise
        self._buffer = bytearray()

    def send(self, *data: bytes) -> None:
        """Send it all, in one piece."""
        self.socket.sendall(b"".join(data))

    def upgrade(self, target: str, *headers: tuple[str, str]) -> Answer:
        """Ask to be let in, and be."""
        self.send(handshake(target, *headers))
        answer = self.read_answer()
        assert answer.status == 101, answer
        assert answer.headers["sec-websocket-accept"] == ACCEPT
        return answer

    # Reading

    def read_answer(self, *, bodiless: bool = False) -> Answer:
        """An HTTP answer, with its body by the length declared."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            assert self._fill(), f"ended in a head: {bytes(self._buffer)!r}"
        lines = self._pop(end + 4).decode("latin-1").split("\r\n")[:-2]
        pairs = [line.split(": ", 1) for line in lines[1:]]
        headers: dict[str, str] = {}
        for name, value in pairs:
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        size = 0 if bodiless else int(headers.get("content-length", "0"))
        return Answer(int(lines[0].split(" ")[1]), headers, self._read(size))

    def read_frame(self) -> tuple[int, bytes] | None:
        """Opcode and payload of the next frame; None at the end of the stream."""
        if not self._buffer and not self._fill():
            return None
        first, size = self._read(2)
        assert first & 0x70 == 0
        assert first & FIN, "a server of ours never fragments"
        assert size < 128, "a server never masks"
        if size >= 126:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        return first & 0x0F, self._read(size)

    def read_text(self) -> dict[str, Any]:
        """The next frame, which must be text, as JSON."""
        found = self.read_frame()
        assert found is not None, "the stream has ended"
        assert found[0] == TEXT, found
        value = json.loads(found[1])
        assert isinstance(value, dict)
        return value

    def read_event(self, event: str) -> dict[str, Any]:
        """The next frame of this event; others before it are skipped."""
        while (found := self.read_text())["event"] != event:
            pass
        return found

    def read_closing(self) -> tuple[int, str]:
        """Read until a close frame, and then the end of the stream: its code and reason."""
        while (found := self.read_frame()) is not None:
            opcode, payload = found
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big") if payload else 1005
                return code, payload[2:].decode()
        raise AssertionError("no close frame came")

    def read_end(self) -> bytes:
        """Everything up to the end of the stream, be it orderly or a reset."""
        with contextlib.suppress(ConnectionResetError):
            while self._fill():
                pass
        return self._pop(len(self._buffer))

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            assert self._fill(), "the stream has ended in mid-frame"
        return self._pop(size)

    def _pop(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> bool:
        data = self.socket.recv(65536)
        self._buffer += data
        return bool(data)

    # Ending

    def reset(self) -> None:
        """End with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        """MemberDraft that nothing more will be sent, if anybody still hears it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go; may be called again."""
        self.socket.close()


def exchange(port: int, request: bytes, *, bodiless: bool = False) -> Answer:
    """One request and its answer."""
    raw = Raw(port)
    try:
        raw.send(request)
        return raw.read_answer(bodiless=bodiless)
    finally:
        raw.close()


def get(port: int, target: str, *headers: tuple[str, str]) -> Answer:
    """A plain GET."""
    return exchange(port, head(f"GET {target} HTTP/1.1", ("Host", "localhost"), *headers))


def knock(port: int, target: str, *headers: tuple[str, str]) -> Answer:
    """What a handshake is answered. One that succeeds is left at once."""
    return exchange(port, handshake(target, *headers))


def ask(port: int, target: str, *headers: tuple[str, str]) -> Answer:
    """What `GET /handshake` says of the handshake at `target`."""
    return get(port, "/handshake" + target.removeprefix("/"), *headers)


def seed() -> int:
    """A seed that is shown when a test fails, and that `CHAT_SEED` repeats."""
    value = int(os.environ.get("CHAT_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"CHAT_SEED={value}")
    return value
