"""The little of WebSocket that a load generator needs, on sockets with or without TLS.

Owns: the opening request, masked text frames, and the cutting of a server's bytes into payloads.

1. Nothing here is on the hot path of a measurement except `masked`; what was received is cut into frames
   after the clock has stopped.
2. A frame that a measured server has no business sending (fragmented, masked, binary, close) raises
   `WrongDeliveryError`.

Doesn't know: what is measured, and which server answers.
"""

import select
import socket
import ssl
from collections.abc import Iterator

HOST = "127.0.0.1"
PATIENCE = 15.0  # seconds for an answer
TEXT = 0x81  # FIN and the opcode of a text frame
MASK = bytes((0x37, 0xFA, 0x21, 0x3D))  # not zero: `ws` doesn't unmask at all by a zero key
_ROUNDS = 64
_MASK_BITS = int.from_bytes(MASK * _ROUNDS)


class WrongDeliveryError(Exception):
    """A server delivered something else than it should have: the run is void."""


def opening(user: str, room: str) -> bytes:
    """The request that takes `user` into `room`."""
    lines = (
        f"GET /?token=dev-token&username={user}&room={room} HTTP/1.1",
        f"Host: {HOST}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def masked(payload: bytes) -> bytes:
    """One client's text frame of at most 125 bytes of payload."""
    length = len(payload)
    mask = _MASK_BITS >> (8 * (4 * _ROUNDS - length))
    return bytes((TEXT, 0x80 | length)) + MASK + (int.from_bytes(payload) ^ mask).to_bytes(length)


def masked_long(payload: bytes) -> bytes:
    """The same for one of 126 bytes to 64 KiB."""
    length = len(payload)
    mask = (MASK * (length // 4 + 1))[:length]
    body = (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(length)
    return bytes((TEXT, 0x80 | 126)) + length.to_bytes(2) + MASK + body


def trusting() -> ssl.SSLContext:
    """For clients that don't ask whose certificate it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(port: int, user: str, room: str, tls: ssl.SSLContext | None = None) -> socket.socket:
    """A non-blocking socket on which the opening request was sent; the answer is still to come."""
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        sock = tls.wrap_socket(sock)
    sock.sendall(opening(user, room))
    sock.setblocking(False)
    return sock


def wait_readable(sock: socket.socket) -> None:
    """Wait for input. Raises WrongDeliveryError after PATIENCE seconds."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(PATIENCE * 1000):
        raise WrongDeliveryError("no answer")


def after_head(received: bytes | bytearray) -> int:
    """Where the frames begin in what was received; 0 while the head isn't complete."""
    if b"\r\n\r\n" not in received:
        return 0
    if not received.startswith(b"HTTP/1.1 101 "):
        raise WrongDeliveryError(f"no upgrade: {bytes(received[:200])!r}")
    return received.index(b"\r\n\r\n") + 4


def frames(received: bytes | bytearray, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The payload of each complete text frame from `start`, with the place where the frame ends."""
    size = len(received)
    while start + 2 <= size:
        if received[start] != TEXT:
            raise WrongDeliveryError(f"not a text frame: {bytes(received[start : start + 40])!r}")
        length, body = received[start + 1], start + 2
        if length > 125:
            extra = 2 if length == 126 else 8
            length, body = int.from_bytes(received[body : body + extra]), body + extra
        if body > size or body + length > size:
            return
        start = body + length
        yield bytes(received[body:start]), start
