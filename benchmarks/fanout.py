"""Deliveries per second of server CPU in a saturated room.

Members of one room; some of them send, and a fixed number of messages is under way in the room: a sender
sends its next as soon as one of its own comes back. What counts is the CPU time of the server for what its
members received.

1. A member's bytes are not parsed while the clock runs: usernames and JSON keys are lower case, so a sender's
   capital letter in its texts, and the first byte of a frame (0x81; all lengths are below 126 and all text is
   ASCII), can simply be counted.
2. Every member must get the same bytes: a running CRC of each must equal that of the witness, whose bytes are
   parsed when all is over: ids dense and in order, every text of every sender once and in its order. That
   proves exactly-once, in order, to each member.
"""

import argparse
import gc
import json
import select
import socket
import string
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from zlib import crc32

from benchmarks import wire
from benchmarks.report import print_ratios, spread, verdict
from benchmarks.systems import BUILD, Server, chosen, options, prepare_generator, running

ROOM = "bench"
BUFFER = 1 << 18
SETTLE = 0.2  # seconds without a byte for any member
PATIENCE = 15.0  # seconds for the last messages to arrive


@dataclass(slots=True)
class Member:
    """One connection in the room."""

    sock: socket.socket
    username: str
    crc: int = 0
    frames: int = 0
    mark: int = 0  # the capital letter in the texts of a sender, 0 for others
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What one run cost, in the window after the warm-up."""

    deliveries: int
    seconds: float
    server_cpu: float
    generator_cpu: float
    frame: int

    @property
    def cost(self) -> float:
        """Seconds of server CPU for a million deliveries."""
        return self.server_cpu * 1e6 / self.deliveries


@dataclass(slots=True)
class Room:
    """All members, and what they have received since the room fell silent."""

    members: list[Member]
    padding: str
    buffer: bytearray = field(default_factory=lambda: bytearray(BUFFER))
    witnessed: list[bytes] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    sending: bool = True

    def post(self, member: Member, count: int) -> None:
        """Send the next `count` messages of a member, in one write."""
        mark = chr(member.mark)
        burst = b"".join(self.command(mark, n) for n in range(member.sent, member.sent + count))
        if member.sock.send(burst) != len(burst):
            raise wire.WrongDeliveryError("the server doesn't read what little its senders have under way")
        member.sent += count
        self.sent += count

    def command(self, mark: str, n: int) -> bytes:
        """The frame of the n-th message of the sender with this mark."""
        return wire.masked(f'{{"event":"message","data":{{"text":"{self.text(mark, n)}"}}}}'.encode())

    def text(self, mark: str, n: int) -> str:
        """What that message says."""
        return f"{mark}{n}{self.padding}"

    def pump(self, until: float, wanted: int = sys.maxsize) -> None:
        """Receive, and send what is due, up to a moment or until `wanted` frames have come to members."""
        buffer, view, witness = self.buffer, memoryview(self.buffer), self.members[-1]
        by_fd = {member.sock.fileno(): member for member in self.members}
        with select.epoll() as epoll:
            for fd in by_fd:
                epoll.register(fd, select.EPOLLIN)
            while (now := time.perf_counter()) < until and self.received < wanted:
                for fd, _ in epoll.poll(until - now):
                    member = by_fd[fd]
                    size = member.sock.recv_into(buffer)
                    if not size:
                        raise wire.WrongDeliveryError(f"the connection of {member.username} ended")
                    member.crc = crc32(view[:size], member.crc)
                    count = buffer.count(wire.TEXT, 0, size)
                    member.frames += count
                    self.received += count
                    if member is witness:
                        self.witnessed.append(bytes(view[:size]))
                    if member.mark and self.sending and (echoes := buffer.count(member.mark, 0, size)):
                        self.post(member, echoes)


def enter(port: int, n: int) -> Member:
    """Connect one member and wait for its welcome."""
    username = f"u{n:03}"
    sock = wire.connect(port, username, ROOM)
    received, start = b"", 0
    while not (start and any(True for _ in wire.frames(received, start))):
        wire.wait_readable(sock)
        received += sock.recv(BUFFER)
        start = start or wire.after_head(received)
    frame, _ = next(wire.frames(received, start))
    if json.loads(frame)["event"] != "welcome":
        raise wire.WrongDeliveryError(f"not a welcome: {frame[:80]!r}")
    return Member(sock, username)


def fall_silent(members: list[Member]) -> None:
    """Take what still comes of the joining, until nothing has come for a moment."""
    by_fd = {member.sock.fileno(): member.sock for member in members}
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        while ready := epoll.poll(SETTLE):
            for fd, _ in ready:
                by_fd[fd].recv(BUFFER)


def padding(size: int) -> str:
    """What to add to the texts so that frames have `size` bytes, at five-digit ids and counters."""
    frame = {
        "event": "message",
        "data": {"username": "u000", "text": "A12345"},
        "room": ROOM,
        "id": 12345,
        "ts": 1764000001000,
    }
    return "." * max(0, size - len(json.dumps(frame, separators=(",", ":"))))


def measure(server: Server, args: argparse.Namespace) -> Result:
    """Fill a room, saturate it, and measure a window of it."""
    members = [enter(server.port, n) for n in range(args.members)]
    fall_silent(members)
    room = Room(members, padding(args.size))
    senders = members[: args.senders]
    for n, member in enumerate(senders):
        member.mark = ord(string.ascii_uppercase[n])
        room.post(member, args.outstanding // len(senders) + (n < args.outstanding % len(senders)))
    room.pump(time.perf_counter() + args.warmup)
    deliveries, server_cpu, own_cpu = room.received, server.cpu_seconds(), time.process_time()
    begin = time.perf_counter()
    room.pump(begin + args.seconds)
    seconds, own_cpu = time.perf_counter() - begin, time.process_time() - own_cpu
    deliveries, server_cpu = room.received - deliveries, server.cpu_seconds() - server_cpu
    room.sending = False
    room.pump(time.perf_counter() + PATIENCE, room.sent * len(members))
    room.pump(time.perf_counter() + SETTLE)
    for member in members:
        member.sock.close()
    return Result(deliveries, seconds, server_cpu, own_cpu, check(room, senders))


def check(room: Room, senders: list[Member]) -> int:
    """Every message came to each member once and in order; returns the usual length of a frame.

    Raises `WrongDeliveryError` if not.
    """
    witness = room.members[-1]
    for member in room.members:
        if member.frames != room.sent:
            raise wire.WrongDeliveryError(f"{member.username} got {member.frames} frames of {room.sent}")
        if member.crc != witness.crc:
            raise wire.WrongDeliveryError(f"{member.username} got other bytes than {witness.username}")
    payloads = [payload for payload, _ in wire.frames(b"".join(room.witnessed))]
    messages = [json.loads(payload) for payload in payloads]
    if any(later["id"] != earlier["id"] + 1 for earlier, later in pairwise(messages)):
        raise wire.WrongDeliveryError("ids are not dense and ascending")
    for sender in senders:
        own = [message["data"] for message in messages if message["data"]["username"] == sender.username]
        sent = [room.text(chr(sender.mark), n) for n in range(sender.sent)]
        if [data["text"] for data in own] != sent:
            raise wire.WrongDeliveryError(f"the messages of {sender.username} are not what was sent")
    return sorted(map(len, payloads))[len(payloads) // 2]


def line(name: str, result: Result) -> str:
    """One run in one line."""
    server, generator = result.server_cpu / result.seconds, result.generator_cpu / result.seconds
    return (
        f"  {name:13} {result.cost:7.3f} CPU s per million deliveries "
        f"{result.deliveries / result.server_cpu:12,.0f} deliveries per CPU s "
        f"{result.deliveries / result.seconds:12,.0f}/s   server {server:.0%}, generator {generator:.0%} "
        f"of a core, {result.frame}-byte frames"
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--senders", type=int, default=10, help="at most 26")
    parser.add_argument("--outstanding", type=int, default=64, help="messages under way in the room")
    parser.add_argument("--size", type=int, default=108, help="bytes of a frame")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--log", action="store_true", help="ours keeps its log on disk, in WAL with FULL sync"
    )
    parser.add_argument(
        "--at-least", type=float, default=0.0, metavar="RATIO", help="exit 1 below this median ratio"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure all systems round by round, and print the ratios."""
    args = parse(argv)
    prepare_generator()
    gc.disable()
    print(f"fan-out: {args.members} members, {args.senders} senders, {args.outstanding} messages under way")
    rounds = []
    for _ in range(args.rounds):
        costs = {}
        with tempfile.TemporaryDirectory(prefix="bench-log-", dir=BUILD) as folder:
            for system in chosen(args, *(("--db", f"{folder}/chat.db") if args.log else ())):
                with running(system) as server:
                    result = measure(server, args)
                print(line(system.name, result), flush=True)
                costs[system.name] = result.cost
        rounds.append(costs)
    for name in rounds[0]:
        print(f"  {name:13} {spread([costs[name] for costs in rounds], '.3f')} CPU s per million deliveries")
    return verdict(print_ratios("deliveries per CPU second", rounds), args.at_least)


if __name__ == "__main__":
    sys.exit(main())
