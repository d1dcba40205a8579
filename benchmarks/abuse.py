"""The worst clients inside all limits: the share of a core that each takes, and the delay for other clients.

A room of 1,000 members that read, on a server with its default limits and its log on disk. Each run plays
one kind of abuse there for some seconds, on a fresh server. Meanwhile bystanders talk in rooms of their own:
their delay is the time from a message to its echo. They are a process of their own, and don't wait for this
one. The share of a core is the server's CPU time beyond that of a run in which the members only read, or of
the same run without the abuse.

A kind of abuse is a class below, listed in `ABUSES`: `begin` before the clock runs, `act` again and again.
"""

import argparse
import gc
import json
import multiprocessing
import re
import select
import socket
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

from benchmarks import wire
from benchmarks.idle import await_welcome
from benchmarks.systems import BUILD, OURS, Server, chosen, options, prepare_generator, running

ROOM = "bench"
BUFFER = 1 << 20
SETTLE = 1.0  # seconds between the last of the members and the clock
BYSTANDERS = 20
PACE = 4.0  # messages a second of each bystander
TALKERS, TALK_PACE = 10, 4.0


# The stage


@dataclass(slots=True)
class Client:
    """A connection that was welcomed; what comes is read and thrown away."""

    name: str
    sock: socket.socket
    queued: bytearray = field(default_factory=bytearray)  # what the socket didn't take

    def send(self, event: str, **data: object) -> None:
        """Send an event; nothing is lost where the server doesn't read on, but it goes out later."""
        frame = json.dumps({"event": event, "data": data}).encode()
        self.queued += wire.masked(frame) if len(frame) < 126 else wire.masked_long(frame)
        self.flush()

    def flush(self) -> None:
        """Send on, as far as it goes."""
        with suppress(BlockingIOError):
            del self.queued[: self.sock.send(self.queued)]


class Stage:
    """The server's room and its members."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.members: list[Client] = []
        self.received = 0
        self._epoll = select.epoll()
        self._reading: dict[int, Client] = {}
        self._buffer = bytearray(BUFFER)

    def enter(self, name: str, room: str = ROOM) -> Client:
        """Somebody comes in, waits for the welcome, and reads from now on."""
        client = Client(name, wire.connect(self.server.port, name, room))
        await_welcome(client.sock)
        self.read(client)
        return client

    def read(self, client: Client) -> None:
        """Read what comes for it from now on."""
        self._reading[client.sock.fileno()] = client
        self._epoll.register(client.sock.fileno(), select.EPOLLIN)

    def stop_reading(self, client: Client) -> None:
        """Let lie what comes for it."""
        self._epoll.unregister(client.sock.fileno())
        del self._reading[client.sock.fileno()]

    def leave(self, client: Client) -> None:
        """Go without a word."""
        self.stop_reading(client)
        client.sock.close()

    def pump(self, until: float) -> None:
        """Take what has come, or wait for it."""
        for fd, _ in self._epoll.poll(max(0.0, until - time.perf_counter())):
            client = self._reading[fd]
            try:
                size = client.sock.recv_into(self._buffer)
            except BlockingIOError:
                continue
            if not size:
                raise wire.WrongDeliveryError(f"{client.name} was dropped")
            self.received += size

    def close(self) -> None:
        """All go."""
        for client in [*self._reading.values()]:
            self.leave(client)
        self._epoll.close()


# The abuses


class Abuse:
    """One kind of clients; `against` is the run that it is compared with."""

    name: ClassVar[str]
    what: ClassVar[str]
    against: ClassVar[str] = "nothing"

    def begin(self, stage: Stage) -> None:
        """Get ready, before the clock runs."""

    def act(self, stage: Stage, now: float) -> float:
        """Do what is due at `now` (seconds since the begin); return when there is more to do."""
        raise NotImplementedError


class Nothing(Abuse):
    """The room is there, and quiet."""

    name, what = "nothing", "1,000 members only read"

    def act(self, stage: Stage, now: float) -> float:
        return now + 1.0


class Talk(Abuse):
    """An ordinary busy room."""

    name, what = "talk", f"{TALKERS} members send {TALK_PACE:g} messages a second each"

    def __init__(self) -> None:
        self.said = 0

    def act(self, stage: Stage, now: float) -> float:
        pace = TALKERS * TALK_PACE
        while self.said < now * pace:
            stage.members[self.said % TALKERS].send("message", text=f"a usual message, number {self.said}")
            self.said += 1
        return self.said / pace


class TypingOfAll(Abuse):
    """All begin and stop typing at the same moments, four times in three seconds."""

    name, what = "typing", "1,000 members begin and stop typing at the same moments"

    def __init__(self) -> None:
        self.times = 0

    def act(self, stage: Stage, now: float) -> float:
        if now >= self.times * 0.75:
            self.times += 1
            for client in stage.members:
                client.send("typing", active=self.times % 2 == 1)
        return self.times * 0.75


class MembersAsked(Abuse):
    """A client asks for the members as often as it may."""

    name, what = "members", "a client asks for the members 200 times a second"

    def __init__(self) -> None:
        self.asked = 0

    def act(self, stage: Stage, now: float) -> float:
        while self.asked < now * 200:
            self.asked += 1
            if not stage.members[0].queued:
                stage.members[0].send("members")
            else:
                stage.members[0].flush()
        return self.asked / 200


class Commands(Abuse):
    """One sends commands, as many as the limit on them seems to allow: 200 a second."""

    def begin(self, stage: Stage) -> None:
        self.sent = 0
        self.client = self.enter(stage)

    def enter(self, stage: Stage) -> Client:
        """The client that sends them."""
        return stage.enter("abuser")

    def act(self, stage: Stage, now: float) -> float:
        while self.sent < now * 200:
            self.sent += 1
            if self.client.queued:  # the server doesn't read on: no more is asked for than it takes
                self.client.flush()
            else:
                self.ask(self.sent)
        return self.sent / 200

    def ask(self, number: int) -> None:
        """Send one."""
        raise NotImplementedError


class Pings(Commands):
    """The cheapest command."""

    name, what = "ping", "a client sends 200 pings a second"

    def ask(self, number: int) -> None:
        self.client.send("ping")


class HugePings(Commands):
    """The same, with all that fits into a frame beside them."""

    name, what = "huge", "a client sends 200 pings of 60 KiB a second, each 15,000 lists and an escaped emoji"

    def ask(self, number: int) -> None:
        self.client.send("ping", more=[[]] * 15_000, face="😀")


class Histories(Commands):
    """Pages as large as can be."""

    name, what = "history", "a client asks for pages of texts of 4,000 characters 200 times a second"

    def enter(self, stage: Stage) -> Client:
        fill_archive(stage, leave=False)
        return stage.enter("abuser", ARCHIVE)

    def ask(self, number: int) -> None:
        self.client.send("history", limit=200)


class Switches(Commands):
    """In and out of the big room."""

    name, what = "switch", "a client switches into the big room and out of it, 200 times a second in all"

    def ask(self, number: int) -> None:
        self.client.send("switch_room", room=ROOM if number % 2 else "elsewhere")


class SmallSwitches(Commands):
    """From one room of one's own to the next."""

    name, what = "rooms", "a client switches through new rooms of its own, 200 a second"

    def ask(self, number: int) -> None:
        self.client.send("switch_room", room=f"room-{number}")


class CatchingUp(Commands):
    """An empty room is read from the log each time."""

    name, what = (
        "catch-up",
        "a client switches again and again to a room in which it has missed 480 texts of 4,000 characters",
    )

    def enter(self, stage: Stage) -> Client:
        self.epoch = fill_archive(stage, leave=True)
        return stage.enter("abuser", "elsewhere")

    def ask(self, number: int) -> None:
        if number % 2:
            self.client.send("switch_room", room=ARCHIVE, since=0, epoch=self.epoch)
        else:
            self.client.send("switch_room", room="elsewhere")


ARCHIVE = "archive"
WRITERS, TEXTS = 24, 20


def fill_archive(stage: Stage, *, leave: bool) -> str:
    """Have 480 long texts said in a room of its own; the room's epoch."""
    writers = [stage.enter(f"writer{number}", ARCHIVE) for number in range(WRITERS)]
    reader = Client("reader", wire.connect(stage.server.port, "reader", ARCHIVE))
    welcome = await_welcome(reader.sock)
    for writer in writers:
        for _ in range(TEXTS):
            writer.send("message", text="x" * 4000)
        while writer.queued:
            writer.flush()
            stage.pump(time.perf_counter() + 0.01)
    before = -1
    while before < stage.received:
        before, quiet = stage.received, time.perf_counter() + 0.5
        while time.perf_counter() < quiet:
            stage.pump(quiet)
    reader.sock.close()
    if leave:
        for writer in writers:
            stage.leave(writer)
    (epoch,) = re.findall(rb'"epoch":"([^"]+)"', welcome)
    return str(epoch.decode())


class InAndOut(Abuse):
    """One comes and goes, so that there is always presence to tell."""

    name, what = "in-out", "a client comes in and leaves 25 times a second"

    def __init__(self) -> None:
        self.times = 0
        self.inside: Client | None = None

    def act(self, stage: Stage, now: float) -> float:
        if now >= self.times / 50:
            self.times += 1
            if self.inside is None:
                self.inside = Client("guest", wire.connect(stage.server.port, "guest", ROOM))
                stage.read(self.inside)
            else:
                stage.leave(self.inside)
                self.inside = None
        return self.times / 50


class InAndOutWithMembers(Abuse):
    """Both together."""

    name, what = "both", "these two together"

    def __init__(self) -> None:
        self.parts = (InAndOut(), MembersAsked())

    def act(self, stage: Stage, now: float) -> float:
        return min(part.act(stage, now) for part in self.parts)


class Joins(Abuse):
    """A storm: as many more come in at once, and stay."""

    name, what = "joins", "1,000 more clients come in at once, within the measured time"

    def __init__(self) -> None:
        self.done = False

    def act(self, stage: Stage, now: float) -> float:
        if not self.done:
            self.done = True
            for number in range(1000):
                name = f"late{number:04}"
                stage.read(Client(name, wire.connect(stage.server.port, name, ROOM)))
        return now + 1.0


class Laggards(Talk):
    """Half of a busy room has stopped reading, and half of the others begins and stops typing."""

    name, what = "laggards", "500 members don't read, while the others talk"
    against = "talk"

    def begin(self, stage: Stage) -> None:
        for client in stage.members[500:]:
            stage.stop_reading(client)


ABUSES: tuple[type[Abuse], ...] = (
    Nothing,
    Talk,
    TypingOfAll,
    MembersAsked,
    Pings,
    HugePings,
    Histories,
    Switches,
    SmallSwitches,
    CatchingUp,
    InAndOut,
    InAndOutWithMembers,
    Joins,
    Laggards,
)


# The bystanders


def stand_by(port: int, pipe: Connection) -> None:
    """The bystanders' process: talk until told to stop, then report what each message took."""
    sockets = [wire.connect(port, f"by{number}", f"aside{number // 2}") for number in range(BYSTANDERS)]
    for sock in sockets:
        await_welcome(sock)
    pipe.send("ready")
    pipe.recv()
    delays: list[float] = []
    sent = dict.fromkeys(range(BYSTANDERS), 0.0)  # when the message under way was sent
    begin = time.perf_counter()
    due = 0
    with select.epoll() as epoll:
        epoll.register(pipe.fileno(), select.EPOLLIN)
        for sock in sockets:
            epoll.register(sock.fileno(), select.EPOLLIN)
        by_fd = {sock.fileno(): number for number, sock in enumerate(sockets)}
        while not pipe.poll():
            now = time.perf_counter()
            if now >= begin + due / (PACE * BYSTANDERS):
                number, due = due % BYSTANDERS, due + 1
                if not sent[number]:  # else the last one waits still: it counts when it comes
                    sent[number] = now
                    text = {"event": "message", "data": {"text": f"from {number}."}}
                    sockets[number].sendall(wire.masked(json.dumps(text).encode()))
            for fd, _ in epoll.poll(max(0.0, begin + due / (PACE * BYSTANDERS) - time.perf_counter())):
                if fd in by_fd:
                    number = by_fd[fd]
                    if f'"from {number}."'.encode() in sockets[number].recv(BUFFER) and sent[number]:
                        delays.append(time.perf_counter() - sent[number])
                        sent[number] = 0.0
    now = time.perf_counter()
    pipe.send(delays + [now - since for since in sent.values() if since])


class Bystanders:
    """The process of the bystanders."""

    def __init__(self, server: Server) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=stand_by, args=(server.port, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def begin(self) -> None:
        """Let them talk."""
        self._pipe.send("begin")

    def end(self) -> list[float]:
        """Stop them; seconds from each message to its echo."""
        self._pipe.send("end")
        delays: list[float] = self._pipe.recv()
        self._process.join()
        return delays


# The measurement


@dataclass(frozen=True, slots=True)
class Result:
    """Of one run: share of a core, what bystanders waited (ms), by how much memory rose at most (MB)."""

    share: float
    median: float
    p99: float
    worst: float
    grown: float


def play(stage: Stage, abuse: Abuse, seconds: float) -> tuple[float, float]:
    """Have it played; the share of a core that the server took, and bytes that it grew by at most."""
    before = most = stage.server.rss()
    cpu, begin = stage.server.cpu_seconds(), time.perf_counter()
    next_act = next_look = begin
    while (now := time.perf_counter()) < begin + seconds:
        if now >= next_act:
            next_act = begin + abuse.act(stage, now - begin)
        if now >= next_look:
            most = max(most, stage.server.rss())
            next_look = now + 0.02
        stage.pump(min(next_act, next_look, begin + seconds))
    wall = time.perf_counter() - begin
    return (stage.server.cpu_seconds() - cpu) / wall, most - before


def measure(args: argparse.Namespace, kind: type[Abuse], folder: Path) -> Result:
    """One run on a fresh server."""
    database = folder / f"{time.monotonic_ns()}.db"
    extra = ("--db", str(database), "--rate", "5", "--max-connections", "5000")
    with running(chosen(args, *extra)[0]) as server:
        bystanders = Bystanders(server)
        stage = Stage(server)
        stage.members = [stage.enter(f"member{number:04}") for number in range(args.members)]
        abuse = kind()
        settled = time.perf_counter() + SETTLE
        while time.perf_counter() < settled:
            stage.pump(settled)
        abuse.begin(stage)
        bystanders.begin()
        share, grown = play(stage, abuse, args.seconds)
        delays = [1000 * delay for delay in bystanders.end()]
        stage.close()
    quantiles = statistics.quantiles(delays, n=100)
    return Result(share, quantiles[49], quantiles[98], max(delays), grown / 1e6)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,), builds=False)
    known = [kind.name for kind in ABUSES]
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each abuse; default: %(default)s")
    parser.add_argument(
        "--only", nargs="+", choices=known, default=known, metavar="ABUSE", help=", ".join(known)
    )
    parser.add_argument("--folder", default=str(BUILD), help="where the databases lie; default: %(default)s")
    parser.add_argument(
        "--at-most",
        type=float,
        default=float("inf"),
        metavar="PERCENT",
        help="exit 1 if one takes more of a core",
    )
    parser.add_argument(
        "--p99", type=float, default=float("inf"), metavar="MS", help="exit 1 if bystanders wait longer"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Play all kinds of abuse, print what each takes, and judge."""
    args = parse(argv)
    prepare_generator()
    gc.disable()
    print(f"abuse: a room of {args.members}, {args.seconds:g} s each; {BYSTANDERS} bystanders elsewhere")
    print("            of a core   bystanders wait: median, p99, worst   memory")
    wanted = set(args.only)
    wanted |= {kind.against for kind in ABUSES if kind.name in wanted}
    results: dict[str, Result] = {}
    passed = True
    with tempfile.TemporaryDirectory(prefix="bench-abuse-", dir=args.folder) as name:
        for kind in ABUSES:
            if kind.name not in wanted:
                continue
            result = results[kind.name] = measure(args, kind, Path(name))
            share = 100 * (result.share - (results[kind.against].share if kind is not Nothing else 0.0))
            print(
                f"  {kind.name:9} {share:8.1f} %   "
                f"{result.median:7.1f} {result.p99:7.1f} {result.worst:7.1f} ms"
                f"   {result.grown:+7.1f} MB   {kind.what}",
                flush=True,
            )
            if issubclass(kind, Nothing) or kind is Talk:
                continue
            passed = passed and share <= args.at_most and result.p99 <= args.p99
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
