"""The cost of readers that have stopped, to the others: a flooded room, with and without them.

In each round a fresh server with its log on disk has one big room: once all members read, once some of them
have stopped. A sender posts at a steady pace. The delay is the time until a reader has the message, over all
messages and all readers. In the end each stopped member reads on, and must get every message once, in order.
Memory is the growth during the flood.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wire
from benchmarks.idle import await_welcome
from benchmarks.report import spread
from benchmarks.systems import BUILD, OURS, Server, chosen, options, prepare_generator, running

ROOM = "bench"
MARK = b"Q"
TEXT = "x" * 1999 + MARK.decode()
"""So long that what the stopped are owed is far more than their sockets take; its last letter is counted."""
SETTLE = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """Milliseconds that messages took, and bytes by which the server has grown."""

    median: float
    p99: float
    grown: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """A member that has stopped reading after its welcome."""

    sock: socket.socket
    received: bytes

    @classmethod
    def enter(cls, server: Server, name: str) -> "Stopped":
        sock = wire.connect(server.port, name, ROOM)
        return cls(sock, await_welcome(sock))

    def read_on(self, messages: int) -> None:
        """It is given everything that it lacks, in order, once."""
        received = bytearray(self.received)
        del received[: wire.after_head(received)]
        while received.count(MARK) < messages:
            wire.wait_readable(self.sock)
            received += self.sock.recv(1 << 20)
        frames = [json.loads(payload) for payload, _ in wire.frames(received)]
        ids = [frame["id"] for frame in frames if frame["event"] == "message"]
        if ids[:messages] != list(range(1, messages + 1)):
            raise wire.WrongDeliveryError(f"not every message in order: {ids[:5]} … {ids[-5:]}")


def enter(server: Server, name: str) -> socket.socket:
    """A member, welcomed."""
    sock = wire.connect(server.port, name, ROOM)
    await_welcome(sock)
    return sock


def flood(readers: list[socket.socket], sender: socket.socket, messages: int, pace: float) -> list[float]:
    """Post `messages` at `pace` a second, and read; the delay of each delivery."""
    delays: list[float] = []
    posted: list[float] = []
    seen = {sock.fileno(): 0 for sock in readers}
    by_fd = {sock.fileno(): sock for sock in readers}
    frame = wire.masked_long(json.dumps({"event": "message", "data": {"text": TEXT}}).encode())
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        begin = time.perf_counter()
        while len(delays) < messages * len(readers):
            now = time.perf_counter()
            if len(posted) < messages and now >= begin + len(posted) / pace:
                posted.append(time.perf_counter())
                sender.sendall(frame)
            due = begin + len(posted) / pace - now if len(posted) < messages else wire.PATIENCE
            ready = epoll.poll(max(0.0, due))
            if not ready and len(posted) == messages:
                raise wire.WrongDeliveryError(f"{len(delays)} of {messages * len(readers)} deliveries")
            for fd, _ in ready:
                count = by_fd[fd].recv(1 << 18).count(MARK)
                now = time.perf_counter()
                delays += (now - posted[at] for at in range(seen[fd], seen[fd] + count))
                seen[fd] += count
    return delays


def measure(args: argparse.Namespace, folder: Path, stopped: int) -> Result:
    """One flood."""
    extra = (
        "--db",
        str(folder / f"{time.monotonic_ns()}.db"),
        "--send-timeout",
        "5m",
        "--max-connections",
        "5000",
    )
    with running(chosen(args, *extra)[0]) as server:
        lazy = [Stopped.enter(server, f"s{number}") for number in range(stopped)]
        readers = [enter(server, f"r{number}") for number in range(args.members - stopped)]
        time.sleep(SETTLE)
        for sock in readers:
            with suppress(BlockingIOError):
                sock.recv(1 << 20)  # who came after it
        before = server.rss()
        delays = flood(readers, readers[0], args.messages, args.pace)
        grown = server.rss() - before
        for member in lazy:
            member.read_on(args.messages)
            member.sock.close()
        for sock in readers:
            sock.close()
    quantiles = statistics.quantiles(delays, n=100)
    return Result(quantiles[49] * 1000, quantiles[98] * 1000, grown)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,), builds=False)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--stopped", type=int, default=200)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--pace", type=float, default=30.0, help="messages a second; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=str(BUILD), help="where the databases lie; default: %(default)s")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure both kinds of room in turn, and print what differs."""
    args = parse(argv)
    prepare_generator()
    gc.disable()
    owed = args.stopped * args.messages * len(TEXT) / 1e6
    print(
        f"stalled: {args.messages} messages of {len(TEXT):,} letters at {args.pace:g}/s to {args.members}; "
        f"{args.stopped} who don't read are owed {owed:.0f} MB"
    )
    found: dict[int, list[Result]] = {0: [], args.stopped: []}
    with tempfile.TemporaryDirectory(prefix="bench-stalled-", dir=args.folder) as name:
        for _ in range(args.rounds):
            for stopped, results in found.items():
                results.append(measure(args, Path(name), stopped))
    for stopped, results in found.items():
        print(
            f"  {stopped:4} stopped: median {spread([each.median for each in results])} ms, "
            f"p99 {spread([each.p99 for each in results])} ms, "
            f"memory {spread([each.grown / 1e6 for each in results], '+.1f')} MB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
