"""The needs of a server: bytes on disk for a message, memory for connections, deliveries of a core.

1. `disk`: messages of several lengths are stored by a server that is then stopped. The growth of its database
   is divided by their number.
2. `load`: a thousand members in rooms of one size, at a steady pace that is far from saturation, as in chats:
   then a message shares its write with no other, and costs the most. The figures for a whole core follow from
   the CPU time of the server.
3. `memory`: of the same members, before the first message, and while they talk.
4. Plain and by TLS that the server ends itself. The log is on disk, synced as always.
5. Every member must get every message of its room. Frames are counted by their first byte, which occurs
   nowhere else in the traffic.

Ours alone is measured. The database lies where `--folder` says, which should be a real disk.
"""

import argparse
import select
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import wire
from benchmarks.systems import BUILD, LOGGED, Server, chosen, options, prepare_generator, running

BEFORE = 100  # connections, so that what is loaded and reserved once is there
AT_ONCE = 50
SETTLE = 1.0  # seconds
PATIENCE = 15.0
LENGTHS = (40, 400, 4000)  # characters of a text
ROOMS = {2: 600.0, 20: 200.0, 200: 40.0}  # members of a room, and messages a second in all
MIB = 1 << 20
ECHO = b'{"event":"message"'


@dataclass(slots=True)
class Client:
    """A member that counts what it is given."""

    sock: socket.socket
    frames: int = 0
    received: bytearray = field(default_factory=bytearray)

    def receive(self) -> bytes:
        """All that has come."""
        pieces: list[bytes] = []
        while True:
            try:
                piece = self.sock.recv(1 << 18)
            except (BlockingIOError, ssl.SSLWantReadError):
                return b"".join(pieces)
            if not piece:
                raise wire.WrongDeliveryError("the connection ended")
            pieces.append(piece)


@dataclass(frozen=True, slots=True)
class Load:
    """What members in rooms of one size cost."""

    size: int
    idle: float  # bytes of memory for each connection
    busy: float
    base: float  # bytes of the process itself
    message: float  # seconds of CPU for each message


def enter(port: int, numbers: range, size: int, tls: ssl.SSLContext | None) -> list[Client]:
    """Members in rooms of this size, a bunch at a time, each with its welcome."""
    entered: list[Client] = []
    for begin in range(numbers.start, numbers.stop, AT_ONCE):
        bunch = range(begin, min(begin + AT_ONCE, numbers.stop))
        clients = [
            Client(wire.connect(port, f"u{number:05}", f"room-{number // size}", tls)) for number in bunch
        ]
        for client in clients:
            while b'"event":"welcome"' not in client.received:
                wire.wait_readable(client.sock)
                client.received += client.receive()
            client.received.clear()
        entered += clients
    return entered


def fall_silent(clients: list[Client]) -> None:
    """Take what comes of the joining until nothing has come for a while."""
    by_fd = {client.sock.fileno(): client for client in clients}
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        while ready := epoll.poll(SETTLE):
            for fd, _ in ready:
                by_fd[fd].receive()


def talk(server: Server, clients: list[Client], size: int, rate: float, seconds: float) -> tuple[int, int]:
    """Have the members speak in turn, room after room, at `rate` a second; how often, and the most memory."""
    by_fd = {client.sock.fileno(): client for client in clients}
    frame = wire.masked(b'{"event":"message","data":{"text":"a usual text of some forty characters!"}}')
    rooms = len(clients) // size
    total = int(rate * seconds)
    sent = received = most = 0
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        begin = looked = time.perf_counter()
        while received < total * size:
            now = time.perf_counter()
            if now > begin + seconds + PATIENCE:
                raise wire.WrongDeliveryError(f"{received} frames have come of {total * size}")
            while sent < total and now >= begin + sent / rate:
                clients[sent % rooms * size + sent // rooms % size].sock.send(frame)
                sent += 1
            if now - looked > 0.5:
                looked, most = now, max(most, server.rss())
            for fd, _ in epoll.poll(max(0.0, begin + sent / rate - now) if sent < total else 0.1):
                count = by_fd[fd].receive().count(wire.TEXT)
                by_fd[fd].frames += count
                received += count
    for number, client in enumerate(clients):
        if client.frames != total // rooms + (number // size < total % rooms):
            raise wire.WrongDeliveryError(f"{client.frames} frames came to number {number}")
    return total, max(most, server.rss())


@contextmanager
def started(args: argparse.Namespace, tls: bool = False) -> Iterator[Server]:
    """Our server with its log in a folder of its own."""
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as folder,
        running(chosen(args, folder=folder, tls=tls)[0]) as server,
    ):
        yield server


def measure_disk(args: argparse.Namespace, length: int) -> float:
    """Bytes of the database for each message with a text of this length."""
    count = args.messages * LENGTHS[0] // length
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        (system,) = chosen(args, "--max-text", "100000", folder=folder)
        database = Path(folder) / f"{system.name}.db"
        sizes = []
        for messages in (0, count):
            with running(system) as server:
                (client,) = enter(server.port, range(1), 1, None)
                client.receive()
                say_all(client, messages, length)
            sizes.append(database.stat().st_size)
        return (sizes[1] - sizes[0]) / count


def say_all(client: Client, count: int, length: int) -> None:
    """MemberDraft texts with a `cid` each, 20 under way at a time."""
    answered = sent = 0
    while answered < count:
        while sent < count and sent - answered < 20:
            text = f"{sent:06}".ljust(length, "x")
            cid = f"{sent:08}-0000-4000-8000-000000000000"
            frame = f'{{"event":"message","data":{{"text":"{text}"}},"cid":"{cid}"}}'.encode()
            client.sock.setblocking(True)
            client.sock.sendall(wire.masked(frame) if len(frame) < 126 else wire.masked_long(frame))
            client.sock.setblocking(False)
            sent += 1
        wire.wait_readable(client.sock)
        client.received += client.receive()
        answered = client.received.count(ECHO)


def measure_load(args: argparse.Namespace, size: int, tls: bool) -> Load:
    """What members in rooms of this size need."""
    context = wire.trusting() if tls else None
    with started(args, tls) as server:
        base = server.rss()
        before = enter(server.port, range(BEFORE), size, context)
        fall_silent(before)
        first = server.rss()
        numbers = range(BEFORE + -BEFORE % size, BEFORE + -BEFORE % size + args.connections)
        clients = enter(server.port, numbers, size, context)
        fall_silent(clients)
        idle = server.rss()
        cpu = server.cpu_seconds()
        count, most = talk(server, clients, size, ROOMS[size], args.seconds)
        cpu = server.cpu_seconds() - cpu
        for client in (*before, *clients):
            client.sock.close()
    number = len(clients)
    return Load(size, (idle - first) / number, (most - first) / number, base, cpu / count)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(LOGGED,), builds=False)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=10_000, help="of the shortest text, for the disk")
    parser.add_argument("--seconds", type=float, default=5.0, help="of talk, for each size of a room")
    parser.add_argument("--folder", default=str(BUILD), help="default: %(default)s")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the tables as they stand in docs/operations.md."""
    args = parse(argv)
    prepare_generator()
    print("| a text of | bytes on disk for each message, with a `cid` |\n|---|---|")
    for length in LENGTHS:
        print(f"| {length:,} characters | {measure_disk(args, length):,.0f} |", flush=True)
    print()
    loads = {tls: [measure_load(args, size, tls) for size in ROOMS] for tls in (False, True)}
    print("| memory | plain | TLS |\n|---|---|---|")
    for name, of in (
        ("the process itself", lambda load: load.base),
        ("1,000 idle connections", lambda load: load.idle * 1000),
        ("1,000 connections that are talked to", lambda load: load.busy * 1000),
    ):
        cells = [
            f"{statistics.median(of(load) for load in loads[tls]) / MIB:.0f} MiB" for tls in (False, True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| of one core, a second | plain | TLS |\n|---|---|---|")
    for plain, tls in zip(loads[False], loads[True], strict=True):
        cells = [
            f"{1 / load.message:,.0f} messages, {load.size / load.message:,.0f} deliveries"
            for load in (plain, tls)
        ]
        print(f"| rooms of {plain.size} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
