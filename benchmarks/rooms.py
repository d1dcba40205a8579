"""Rooms without messages leave nothing behind.

A handful of connections switch through new rooms: a first 100,000 of them, then a second, and leave them all
again. The growth of the server's memory during the second lot is the cost of rooms that are gone. Ours alone
is measured.
"""

import argparse
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field

from benchmarks import wire
from benchmarks.idle import await_welcome
from benchmarks.systems import OURS, Server, chosen, options, prepare_generator, running

MEGABYTE = 1_000_000
PATIENCE = 30.0


@dataclass(slots=True)
class Walker:
    """A connection that goes from room to room, with a few switches under way."""

    sock: socket.socket
    prefix: str
    wanted: int
    under_way: int
    asked: int = 0
    arrived: int = 0
    received: bytearray = field(default_factory=bytearray)

    def step(self) -> None:
        """Ask for as many more rooms as may be under way."""
        until = min(self.wanted, self.arrived + self.under_way)
        commands = [
            f'{{"event":"switch_room","data":{{"room":"{self.prefix}{n}"}}}}'
            for n in range(self.asked, until)
        ]
        self.asked = until
        self.sock.sendall(b"".join(wire.masked(command.encode()) for command in commands))

    def arrive(self) -> None:
        """Take the answers that have come; each must name the next room."""
        data = self.sock.recv(65536)
        if not data:
            raise wire.WrongDeliveryError("disconnected")
        self.received += data
        taken = 0
        for payload, end in wire.frames(self.received):
            frame = json.loads(payload)
            if frame["event"] != "switched" or frame["data"]["room"] != f"{self.prefix}{self.arrived}":
                raise wire.WrongDeliveryError(f"not the next room: {payload[:120]!r}")
            self.arrived, taken = self.arrived + 1, end
        del self.received[:taken]


def walk(sockets: list[socket.socket], prefix: str, rooms: int, under_way: int) -> None:
    """Make and leave `rooms` rooms, the same number by each connection."""
    walkers = {
        sock.fileno(): Walker(sock, f"{prefix}{n}-", rooms // len(sockets), under_way)
        for n, sock in enumerate(sockets)
    }
    with select.epoll() as epoll:
        for fd, walker in walkers.items():
            epoll.register(fd, select.EPOLLIN)
            walker.step()
        while any(walker.arrived < walker.wanted for walker in walkers.values()):
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise wire.WrongDeliveryError("no answer")
            for fd, _ in ready:
                walkers[fd].arrive()
                walkers[fd].step()


def measure(server: Server, args: argparse.Namespace) -> int:
    """Bytes that the second lot added."""
    sockets = [wire.connect(server.port, f"u{n}", f"home{n}") for n in range(args.connections)]
    for sock in sockets:
        await_welcome(sock)
        sock.setblocking(True)
    sizes = [server.rss()]
    for lot in ("first", "second"):
        begin = time.perf_counter()
        walk(sockets, lot, args.rooms, args.under_way)
        walk(sockets, f"{lot}-end", len(sockets), 1)
        sizes.append(server.rss())
        print(
            f"  {lot} {args.rooms:,} rooms: {(sizes[-1] - sizes[-2]) / MEGABYTE:+.2f} MB, "
            f"{args.rooms / (time.perf_counter() - begin):,.0f} rooms/s",
            flush=True,
        )
    for sock in sockets:
        sock.close()
    return sizes[2] - sizes[1]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,), builds=False)
    parser.add_argument("--rooms", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=5)
    parser.add_argument("--under-way", type=int, default=8, help="switches under way on each connection")
    parser.add_argument(
        "--at-most", type=float, default=2.0, metavar="MB", help="exit 1 if the second lot adds more"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, and judge the second lot."""
    args = parse(argv)
    prepare_generator()
    print(f"rooms: made and left by {args.connections} connections, nothing stored")
    with running(chosen(args)[0]) as server:
        grown = measure(server, args) / MEGABYTE
    if grown < args.at_most:
        return 0
    print(f"  more than {args.at_most:g} MB")
    return 1


if __name__ == "__main__":
    sys.exit(main())
