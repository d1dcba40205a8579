"""Memory per idle connection.

Some connections come first, so that what a server loads and reserves once is there; then n more, and the
growth of its resident memory is divided by n. The kernel's socket buffers are not in it; they are the same
for all. With `--tls` every server ends the TLS itself.
"""

import argparse
import socket
import ssl
import sys
import time

from benchmarks import wire
from benchmarks.report import print_ratios
from benchmarks.systems import Server, chosen, options, prepare_generator, running

FIRST = 200
AT_ONCE = 50
SETTLE = 1.0  # seconds, before memory is read


def enter(port: int, numbers: range, per_room: int, tls: ssl.SSLContext | None) -> list[socket.socket]:
    """Connect clients, a bunch at a time, each waiting for its welcome."""
    entered = []
    for begin in range(numbers.start, numbers.stop, AT_ONCE):
        bunch = [
            wire.connect(port, f"u{n}", f"room-{n // per_room}", tls)
            for n in range(begin, min(begin + AT_ONCE, numbers.stop))
        ]
        for sock in bunch:
            await_welcome(sock)
        entered += bunch
    return entered


def await_welcome(sock: socket.socket) -> bytes:
    """Wait until a client has its welcome; return all that has come."""
    received = b""
    while b'"event":"welcome"' not in received:
        wire.wait_readable(sock)
        try:
            data = sock.recv(65536)
        except ssl.SSLWantReadError:  # it was none of the server's data
            continue
        if not data:
            raise wire.WrongDeliveryError(f"refused: {received[:200]!r}")
        received += data
    return received


def measure(server: Server, args: argparse.Namespace) -> float:
    """Bytes per connection."""
    tls = wire.trusting() if args.tls else None
    sockets = enter(server.port, range(FIRST), args.per_room, tls)
    time.sleep(SETTLE)
    before = server.rss()
    sockets += enter(server.port, range(FIRST, FIRST + args.connections), args.per_room, tls)
    time.sleep(SETTLE)
    grown = server.rss() - before
    for sock in sockets:
        sock.close()
    return grown / len(sockets[FIRST:])


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--per-room", type=int, default=2)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--at-most",
        type=float,
        default=float("inf"),
        metavar="KB",
        help="exit 1 if a connection to the first system takes more kB (1,000 bytes)",
    )
    return parser.parse_args(argv)


def measure_all(args: argparse.Namespace) -> list[dict[str, float]]:
    """Kilobytes (1,000 bytes) per connection, round by round."""
    how = "by TLS" if args.tls else "plain"
    print(f"idle: {args.connections} connections more than {FIRST}, {how}, rooms of {args.per_room}")
    rounds = []
    for _ in range(args.rounds):
        sizes = {}
        for system in chosen(args, tls=args.tls):
            with running(system) as server:
                sizes[system.name] = measure(server, args) / 1000
            print(f"  {system.name:13} {sizes[system.name]:6.1f} kB per connection", flush=True)
        rounds.append(sizes)
    return rounds


def main(argv: list[str] | None = None) -> int:
    """Measure all systems, and print what a connection takes."""
    args = parse(argv)
    prepare_generator()
    rounds = measure_all(args)
    print_ratios("memory per connection", rounds)
    most = max(sizes[args.systems[0]] for sizes in rounds)
    if most <= args.at_most:
        return 0
    print(f"  more than {args.at_most:g} kB")
    return 1


if __name__ == "__main__":
    sys.exit(main())
