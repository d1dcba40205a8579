"""Messages from one node to the other while the store is killed and started: lost, doubled, out of order.

1. A crew is some senders on the first node and one listener on the second, all in one room. A sender has one
   message under way, and sends the next when that is acknowledged: by its own echo on ours, by Socket.IO's
   acknowledgement on the other. A message that is refused, or isn't answered in time, is sent again: on ours
   under the same `cid`.
2. Both crews talk at the same time, on one store. After each kill there is a pause without a store, then a
   time with one.
3. The program waits for all messages under way at the end. A message is lost if it was acknowledged and never
   came to the listener, doubled if it came again, out of order if it came after a later one of its sender.

Doesn't know: how nodes and stores are started.
"""

import json
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import wire
from benchmarks.stores import Store

ROOM = "faults"
SENDERS = 10
PAUSE = 0.05  # seconds between an acknowledgement and the next message
AGAIN = 0.1  # seconds until what was refused is sent again
ANSWER = 10.0  # seconds until what wasn't answered is
UP = 3.0  # seconds with a store, after each kill
SETTLE = 5.0  # seconds without a message for the listener
PATIENCE = 60.0  # seconds for what is under way in the end


@dataclass(frozen=True, slots=True)
class News:
    """What a frame says: of a message by its text, acknowledged, refused or shown; or another frame to answer
    with."""

    acknowledged: str = ""
    refused: str = ""
    shown: str = ""
    answer: bytes = b""
    welcome: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server is spoken to."""

    opening: Callable[[str, str], bytes]
    message: Callable[[str], bytes]
    read: Callable[[bytes, str], News]


def _ours_message(text: str) -> bytes:
    return json.dumps({"event": "message", "data": {"text": text}, "cid": f"cid-{text}"}).encode()


def _ours_read(payload: bytes, username: str) -> News:
    frame = json.loads(payload)
    text = str(frame.get("cid", "")).removeprefix("cid-")
    match frame["event"]:
        case "welcome":
            return News(welcome=True)
        case "message":
            own = frame["data"]["username"] == username
            return News(shown=frame["data"]["text"], acknowledged=text if own else "")
        case "ack":
            return News(acknowledged=text)
        case "error":
            if frame["code"] != "unavailable":
                raise wire.WrongDeliveryError(f"{username} got {payload!r}")
            return News(refused=text)
    return News()


def _socket_io_opening(user: str, room: str) -> bytes:
    path = f"/socket.io/?EIO=4&transport=websocket&username={user}&room={room}"
    _, _, rest = wire.opening(user, room).partition(b" HTTP/1.1")
    return f"GET {path} HTTP/1.1".encode() + rest


def _socket_io_message(text: str) -> bytes:
    _, number = text.split(".")
    return f"42{number}{json.dumps(['message', {'text': text}])}".encode()


def _socket_io_read(payload: bytes, username: str) -> News:
    if payload.startswith(b"0"):
        return News(answer=b"40")
    if payload.startswith(b"40"):
        return News(welcome=True)
    if payload.startswith(b"43"):
        return News(acknowledged=f"{username}.{int(payload[2:].partition(b'[')[0])}")
    if payload.startswith(b"42"):
        return News(shown=json.loads(payload[2:])[1]["text"])
    raise wire.WrongDeliveryError(f"{username} got {payload!r}")


OURS = Dialect(wire.opening, _ours_message, _ours_read)
SOCKET_IO = Dialect(_socket_io_opening, _socket_io_message, _socket_io_read)


@dataclass(slots=True)
class Client:
    """A connection: what it has received and not read, and its message under way."""

    sock: socket.socket
    username: str
    crew: "Crew"
    received: bytearray = field(default_factory=bytearray)
    upgraded: bool = False
    number: int = 0
    due: float = 0.0
    under_way: bool = False

    @property
    def text(self) -> str:
        """The message that it is at."""
        return f"{self.username}.{self.number}"

    def receive(self) -> Iterator[News]:
        """What has come."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise wire.WrongDeliveryError(
                f"the connection of {self.username} ended: {bytes(self.received)!r}"
            )
        self.received += data
        start = 0
        if not self.upgraded:
            start = wire.after_head(self.received)
            self.upgraded = start > 0
        if self.upgraded:
            for payload, after in wire.frames(self.received, start):
                start = after
                yield self.crew.dialect.read(payload, self.username)
        del self.received[:start]

    def send(self, payload: bytes) -> None:
        """One frame."""
        masked = wire.masked if len(payload) < 126 else wire.masked_long
        self.sock.send(masked(payload))


class Crew:
    """Senders on the first of some ports, a listener on the last."""

    def __init__(self, name: str, dialect: Dialect, ports: Sequence[int]) -> None:
        self.name = name
        self.dialect = dialect
        self.senders = [self._enter(ports[0], f"u{number}") for number in range(SENDERS)]
        self.listener = self._enter(ports[-1], "listener")
        self.acknowledged = 0
        self.refused = 0
        self.seen: Counter[str] = Counter()
        self.disordered = 0
        self._acknowledged: list[str] = []
        self._latest: Counter[str] = Counter()
        self.last_shown = 0.0

    def _enter(self, port: int, username: str) -> Client:
        sock = socket.create_connection((wire.HOST, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(self.dialect.opening(username, ROOM))
        client = Client(sock, username, self)
        welcome = False
        while not welcome:
            wire.wait_readable(sock)
            for news in client.receive():
                welcome = welcome or news.welcome
                if news.answer:
                    client.send(news.answer)
        sock.setblocking(False)
        return client

    def send_due(self, now: float) -> None:
        """Send what is to be sent by now, for the first time or again."""
        for client in self.senders:
            if now >= client.due:
                client.under_way = True
                client.due = now + ANSWER
                client.send(self.dialect.message(client.text))

    def receive(self, client: Client) -> None:
        """Take what has come for a client."""
        now = time.monotonic()
        for news in client.receive():
            if client is self.listener:
                if news.shown:
                    self._show(news.shown, now)
            elif news.acknowledged == client.text:
                self.acknowledged += 1
                self._acknowledged.append(client.text)
                client.number += 1
                client.under_way = False
                client.due = now + PAUSE
            elif news.refused == client.text:
                self.refused += 1
                client.due = now + AGAIN

    def _show(self, text: str, now: float) -> None:
        self.last_shown = now
        self.seen[text] += 1
        sender, number = text.split(".")
        if self.seen[text] == 1:
            self.disordered += int(number) + 1 < self._latest[sender]
            self._latest[sender] = max(self._latest[sender], int(number) + 1)

    @property
    def complete(self) -> bool:
        """Everything acknowledged has been shown."""
        return all(text in self.seen for text in self._acknowledged)

    def wrong(self) -> dict[str, int]:
        """What is wrong with what the listener got, in numbers."""
        return {
            "lost": sum(text not in self.seen for text in self._acknowledged),
            "doubled": sum(times - 1 for times in self.seen.values()),
            "out of order": self.disordered,
        }

    def describe(self) -> str:
        """In one line."""
        wrong = ", ".join(f"{count} {what}" for what, count in self.wrong().items())
        return (
            f"{self.name:12} {self.acknowledged:,} acknowledged, {self.refused:,} refused and sent again, "
            f"{len(self.seen):,} shown at the other node; {wrong}"
        )

    def close(self) -> None:
        """The end."""
        for client in (*self.senders, self.listener):
            client.sock.close()


def run(crews: Sequence[Crew], store: Store, *, times: int, down: float) -> None:
    """Have all talk while the store is killed so many times, and wait for what is under way."""
    clients = {client.sock.fileno(): client for crew in crews for client in (*crew.senders, crew.listener)}
    with select.epoll() as epoll:
        for fd in clients:
            epoll.register(fd, select.EPOLLIN)

        def go_on(until: float, *, sending: bool = True) -> None:
            while (now := time.monotonic()) < until:
                if sending:
                    for crew in crews:
                        crew.send_due(now)
                for fd, _ in epoll.poll(0.005):
                    clients[fd].crew.receive(clients[fd])

        go_on(time.monotonic() + UP)
        for _ in range(times):
            store.kill()
            go_on(time.monotonic() + down)
            store.launch()
            go_on(time.monotonic() + UP)
        settle(crews, go_on)


def settle(crews: Sequence[Crew], go_on: Callable[..., None]) -> None:
    """Let each sender get its last message through, and wait until the listeners have heard nothing more for
    a while."""
    until = time.monotonic() + PATIENCE
    for crew in crews:
        for client in crew.senders:
            if not client.under_way:
                client.due = float("inf")
    while time.monotonic() < until:
        go_on(time.monotonic() + 0.2)
        for crew in crews:
            for client in crew.senders:
                if not client.under_way:
                    client.due = float("inf")
        idle = time.monotonic() - max(crew.last_shown for crew in crews)
        if idle > SETTLE and not any(client.under_way for crew in crews for client in crew.senders):
            return
