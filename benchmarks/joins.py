"""A storm of joins: many clients enter one room, and every join is announced to all its members.

The time runs from the first connect to the last byte of the last announcement. A server may send a `members`
frame in the place of announcements that it withheld from a client that wasn't reading yet. Each client must
know the whole roster in the end; that is checked when the clock has stopped. n clients make n(n-1)/2
announcements.

Each username holds one capital letter that stands nowhere else, so that a client's names can be counted
without parsing: its own name comes twice (in the welcome's text and beside it), every other at least once.
"""

import argparse
import gc
import json
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import wire
from benchmarks.generator import Loaded
from benchmarks.report import print_ratios, spread, verdict
from benchmarks.systems import alone, chosen, go_first, options, prepare_generator, running

ROOM = "bench"
MARK = ord("Q")
BUFFER = 1 << 18
PATIENCE = 60.0
SETTLE = 0.5  # seconds without a byte for any client


@dataclass(slots=True)
class Joiner:
    """One client, with all that it has received."""

    sock: socket.socket
    username: str
    received: bytearray = field(default_factory=bytearray)
    names: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a storm cost; `kinds` counts the frames that the clients got."""

    seconds: float
    server_cpu: float
    generator_cpu: float
    kinds: Counter[str]


@dataclass(slots=True)
class Storm:
    """Clients that enter by the ports in turn, at most `at_once` of them between connect and first frame."""

    ports: tuple[int, ...]
    clients: int
    at_once: int
    joiners: dict[int, Joiner] = field(default_factory=dict)
    entering: int = 0
    complete: int = 0
    last: float = 0.0

    def run(self) -> None:
        """Let all enter, and receive until every roster may be whole and nothing more comes."""
        deadline = time.perf_counter() + PATIENCE
        with select.epoll() as epoll:
            while time.perf_counter() < deadline:
                self.connect_more(epoll)
                ready = epoll.poll(SETTLE)
                if not ready and self.complete == self.clients:
                    return
                for fd, _ in ready:
                    self.receive(self.joiners[fd])
        raise wire.WrongDeliveryError(
            f"{self.clients - self.complete} of {self.clients} clients "
            f"don't know everybody after {PATIENCE:g} s"
        )

    def connect_more(self, epoll: select.epoll) -> None:
        """Start as many clients as may be entering."""
        while self.entering < self.at_once and len(self.joiners) < self.clients:
            number = len(self.joiners)
            username = f"uQ{number:04}"
            sock = wire.connect(self.ports[number % len(self.ports)], username, ROOM)
            self.joiners[sock.fileno()] = Joiner(sock, username)
            epoll.register(sock.fileno(), select.EPOLLIN)
            self.entering += 1

    def receive(self, joiner: Joiner) -> None:
        """Take what has come for one client."""
        data = joiner.sock.recv(BUFFER)
        if not data:
            raise wire.WrongDeliveryError(f"{joiner.username} was dropped: {bytes(joiner.received[:200])!r}")
        joiner.received += data
        self.last = time.perf_counter()
        before = joiner.names
        joiner.names += data.count(MARK)
        self.entering -= not before and joiner.names > 0
        self.complete += before <= self.clients < joiner.names


def measure(server: Loaded, args: argparse.Namespace) -> Result:
    """One storm."""
    storm = Storm(server.ports, args.clients, args.at_once)
    server_cpu, own_cpu, begin = server.cpu_seconds(), time.process_time(), time.perf_counter()
    storm.run()
    own_cpu, server_cpu = time.process_time() - own_cpu, server.cpu_seconds() - server_cpu
    kinds: Counter[str] = Counter()
    for joiner in storm.joiners.values():
        joiner.sock.close()
        kinds += check(joiner, args.clients)
    return Result(storm.last - begin, server_cpu, own_cpu, kinds)


def check(joiner: Joiner, clients: int) -> Counter[str]:
    """This client knows all members, and got no announcement twice; else `WrongDeliveryError`."""
    kinds: Counter[str] = Counter()
    roster: set[str] = set()
    for payload, _ in wire.frames(joiner.received, wire.after_head(joiner.received)):
        frame = json.loads(payload)
        kind, data = frame["event"], frame["data"]
        kinds[kind] += 1
        if kind == "joined":
            if data["username"] in roster:
                raise wire.WrongDeliveryError(f"{joiner.username} was told twice of {data['username']}")
            roster.add(data["username"])
        elif kind in ("welcome", "members"):
            roster = set(data["members"]) - {joiner.username}
        else:
            raise wire.WrongDeliveryError(f"{joiner.username} got {payload[:80]!r}")
    if len(roster) != clients - 1:
        raise wire.WrongDeliveryError(f"{joiner.username} knows {len(roster)} of {clients - 1}")
    return kinds


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=50, help="clients between connect and first frame")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--at-least",
        type=float,
        default=0.0,
        metavar="RATIO",
        help="exit 1 below this median ratio of server CPU",
    )
    return parser.parse_args(argv)


def measure_all(args: argparse.Namespace) -> list[dict[str, Result]]:
    """A storm on each system, round by round."""
    print(
        f"joins: {args.clients} clients into one room, {args.at_once} at once, "
        f"{args.clients * (args.clients - 1) // 2:,} announcements"
    )
    rounds = []
    for _ in range(args.rounds):
        results = {}
        for system in chosen(args):
            with running(system) as server, alone():
                result = results[system.name] = measure(server, args)
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.kinds.items())
            print(
                f"  {system.name:13} {result.seconds:6.2f} s wall, {result.server_cpu:6.2f} s server CPU, "
                f"{result.generator_cpu:6.2f} s generator CPU; {kinds}",
                flush=True,
            )
        rounds.append(results)
    return rounds


def costs(rounds: Sequence[Mapping[str, Result]]) -> list[dict[str, float]]:
    """Seconds of server CPU."""
    return [{name: result.server_cpu for name, result in results.items()} for results in rounds]


def main(argv: list[str] | None = None) -> int:
    """Measure all systems, and print the ratios."""
    args = parse(argv)
    prepare_generator()
    go_first()
    gc.disable()
    rounds = measure_all(args)
    walls = [{name: result.seconds for name, result in results.items()} for results in rounds]
    cpu = costs(rounds)
    for name in walls[0]:
        print(
            f"  {name:13} {spread([wall[name] for wall in walls])} s wall, "
            f"{spread([cost[name] for cost in cpu])} s server CPU"
        )
    print_ratios("wall time", walls)
    return verdict(print_ratios("server CPU", cpu), args.at_least)


if __name__ == "__main__":
    sys.exit(main())
