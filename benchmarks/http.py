"""Posts and streams by HTTP, against the same by WebSocket.

1. `post`: CPU of the server for a message that is posted on a kept connection, against one by WebSocket. Both
   wait for their answer before the next one, in rooms of their own, and take turns at one server.
2. `durable`: posts per second of many kept connections, each in a room of its own, with the log on disk.
3. `streams`: readers of one room by streams of events, against as many by WebSocket: CPU for a delivery, and
   memory for a reader. Each has a fresh server, in turn.

Ours alone is measured. Each answer and each delivery is checked.
"""

import argparse
import gc
import json
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks import wire
from benchmarks.idle import await_welcome
from benchmarks.report import spread
from benchmarks.systems import (
    BUILD,
    LOGGED,
    OURS,
    Server,
    chosen,
    go_first,
    options,
    prepare_generator,
    running,
)

TEXT = "a usual message of a user, of a usual length"
BODY = json.dumps({"text": TEXT}).encode()
FRAME = wire.masked(json.dumps({"event": "message", "data": {"text": TEXT}}).encode())
MARK = TEXT.encode()
SETTLE = 1.0


def request(room: str, *, plain: bool = False) -> bytes:
    """A post as a usual HTTP library sends it."""
    body, media = (TEXT.encode(), "text/plain") if plain else (BODY, "application/json")
    lines = (
        f"POST /rooms/{room}/messages HTTP/1.1",
        f"Host: {wire.HOST}",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "User-Agent: benchmark/1.0",
        "Authorization: Bearer dev-token",
        f"Content-Type: {media}",
        f"Content-Length: {len(body)}",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body


def connect(server: Server) -> socket.socket:
    """A plain connection."""
    sock = socket.create_connection((wire.HOST, server.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def posting(server: Server, room: str) -> Callable[[], None]:
    """What posts one message on a kept connection, and waits for its answer."""
    sock, data = connect(server), request(room)

    def post() -> None:
        sock.sendall(data)
        answer = sock.recv(65536)
        if not answer.startswith(b"HTTP/1.1 201 "):
            raise wire.WrongDeliveryError(repr(answer[:200]))

    return post


def posting_to_one(server: Server) -> Callable[[], None]:
    """The same into a room with one member, who gets it."""
    post, member = posting(server, "with-member"), open_socket(server, 0, "with-member")
    await_welcome(member)

    def post_and_read() -> None:
        post()
        await_mark(member)

    return post_and_read


def saying(server: Server) -> Callable[[], None]:
    """What sends one message by WebSocket, and waits for its echo."""
    sock = wire.connect(server.port, "alice", "by-websocket")
    await_welcome(sock)
    sock.setblocking(True)

    def say() -> None:
        sock.sendall(FRAME)
        if MARK not in sock.recv(65536):
            raise wire.WrongDeliveryError("no echo")

    return say


def measure_posts(server: Server, args: argparse.Namespace) -> list[dict[str, float]]:
    """Microseconds of CPU for a message, round by round."""
    ways = {
        "post": posting(server, "empty"),
        "post to one": posting_to_one(server),
        "websocket": saying(server),
    }
    for do in ways.values():
        for _ in range(200):
            do()
    rounds = []
    for _ in range(args.rounds):
        found = {}
        for name, do in ways.items():
            before = server.cpu_seconds()
            for _ in range(args.messages):
                do()
            found[name] = (server.cpu_seconds() - before) / args.messages * 1e6
        rounds.append(found)
    return rounds


def measure_durable(server: Server, args: argparse.Namespace) -> float:
    """Posts per second of many connections in a closed loop."""
    socks = [connect(server) for _ in range(args.connections)]
    data = {sock.fileno(): request(f"room-{number}") for number, sock in enumerate(socks)}
    by_fd = {sock.fileno(): sock for sock in socks}
    done = 0
    with select.epoll() as epoll:
        for fd, sock in by_fd.items():
            epoll.register(fd, select.EPOLLIN)
            sock.sendall(data[fd])
        begin = time.perf_counter()
        while (now := time.perf_counter()) < begin + args.seconds:
            for fd, _ in epoll.poll(wire.PATIENCE):
                answer = by_fd[fd].recv(65536)
                if not answer.startswith(b"HTTP/1.1 201 "):
                    raise wire.WrongDeliveryError(repr(answer[:300]))
                done += 1
                by_fd[fd].sendall(data[fd])
    for sock in socks:
        sock.close()
    return done / (now - begin)


def open_stream(server: Server, number: int) -> socket.socket:
    """A reader by a stream of events."""
    sock = connect(server)
    head = f"GET /rooms/big/events?token=dev-token&username=u{number} HTTP/1.1\r\nHost: {wire.HOST}\r\n\r\n"
    sock.sendall(head.encode())
    sock.setblocking(False)
    return sock


def open_socket(server: Server, number: int, room: str = "big") -> socket.socket:
    """A reader by WebSocket."""
    return wire.connect(server.port, f"u{number}", room)


READERS: dict[str, Callable[[Server, int], socket.socket]] = {"stream": open_stream, "websocket": open_socket}


def measure_readers(args: argparse.Namespace, way: str) -> tuple[float, float]:
    """Microseconds of CPU for a delivery, and kilobytes for a reader."""
    with running(chosen(args, "--max-connections", "5000", "--max-per-user", "5000")[0]) as server:
        poster = posting(server, "big")
        warm = [READERS[way](server, number) for number in range(100)]
        for sock in warm:
            await_welcome(sock)
        time.sleep(SETTLE)
        before = server.rss()
        socks = [READERS[way](server, 100 + number) for number in range(args.readers)]
        for sock in socks:
            await_welcome(sock)
        time.sleep(SETTLE)
        memory = (server.rss() - before) / args.readers / 1000
        for sock in warm:
            sock.close()
        time.sleep(SETTLE)
        for sock in socks:
            drain(sock)
        began = server.cpu_seconds()
        for _ in range(args.deliveries):
            poster()
            for sock in socks:
                await_mark(sock)
        cpu = (server.cpu_seconds() - began) / args.deliveries / args.readers * 1e6
        for sock in socks:
            sock.close()
    return cpu, memory


def drain(sock: socket.socket) -> None:
    """Read what has come."""
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        pass


def await_mark(sock: socket.socket) -> None:
    """Wait for the message that was just posted: one, and nothing else."""
    wire.wait_readable(sock)
    if sock.recv(65536).count(MARK) != 1:
        raise wire.WrongDeliveryError("not the one message")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,), builds=False)
    parser.add_argument("--parts", nargs="+", default=["post", "durable", "streams"], metavar="PART")
    parser.add_argument("--folder", default=str(BUILD), help="where the database lies; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=2000, help="of each kind in a round of `post`")
    parser.add_argument("--connections", type=int, default=200, help="of `durable`")
    parser.add_argument("--seconds", type=float, default=5.0, help="of `durable`")
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--deliveries", type=int, default=100, help="messages to all readers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure what is asked for."""
    args = parse(argv)
    prepare_generator()
    go_first()
    gc.disable()
    if "post" in args.parts:
        with running(chosen(args)[0]) as server:
            rounds = measure_posts(server, args)
        for name in rounds[0]:
            ratio = spread([each[name] / each["websocket"] for each in rounds], ".2f")
            cost = spread([each[name] for each in rounds])
            print(f"  {name:11} {cost} µs of CPU for a message, {ratio} of a WebSocket's")
    if "durable" in args.parts:
        rates = []
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory(prefix="bench-http-", dir=args.folder) as folder:
                args.systems = [LOGGED]
                with running(chosen(args, folder=folder)[0]) as server:
                    rates.append(measure_durable(server, args))
        args.systems = [OURS]
        print(f"  {args.connections} connections, log on disk: {spread(rates, ',.0f')} posts/s")
    if "streams" in args.parts:
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in READERS}
        for _ in range(args.rounds):
            for way in READERS:
                found[way].append(measure_readers(args, way))
        for way, numbers in found.items():
            cpu, memory = zip(*numbers, strict=True)
            print(
                f"  {way:10} {spread(cpu)} µs for a delivery, {statistics.median(memory):.1f} kB for a reader"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
