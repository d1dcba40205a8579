"""Several nodes on one store, against one node, SQLite, and Socket.IO on its Redis Streams adapter.

1. `senders`: messages per second of 200 senders, each in a room of its own and waiting for its echo: a node
   on the store against a node on SQLite.
2. `pace`: a node's CPU for a message if messages come one at a time: on the store, and on SQLite.
3. `scale`: rooms of 20 over two nodes: their deliveries for a second of CPU, against one node.
4. `latency`: the time of a message to a member on the other node, against one node on SQLite; and the time of
   a sync of the disk.
5. `idle`: a node that has 10,000 rooms of one member open, without traffic; and while another node talks in
   rooms of its own.
6. `joins`: 1,000 clients come into one room over two nodes, against one node.
7. `others`: the CPU of two nodes for a delivery, in rooms of 20: ours and Socket.IO's.
8. `faults`: the messages of a member on the other node while the store is killed repeatedly (see faults.py).
9. `sizing`: bytes in the store for a message, a member, a room.

The program starts the store itself, with `appendonly yes`. All nodes are on core 0; the generator and the
store are on core 1, where the store goes first. So two nodes share one core here, and the figure is CPU time:
with a core for each they deliver twice as much in the same time.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import faults, idle, joins, storesize
from benchmarks.generator import Crowd, Load, Workload, compile_generator, crowd
from benchmarks.report import spread
from benchmarks.stores import ALWAYS, EVERYSEC, Store, running_store
from benchmarks.systems import (
    BUILD,
    HERE,
    NODE_MODULES,
    Server,
    System,
    alone,
    go_first,
    options,
    ours,
    prepare_generator,
    running,
)

SQLITE, SOCKET_IO = "SQLite", "Socket.IO"
PACES = ("1x100@200", "500x2@3000")
SCALES = ("100x20@1000", "100x20")
LATENCY_SECONDS = 2.0
SYNCS = 300
BUSY = "100x2@1000"
"""What the other node does while the idle one is watched."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Nodes that are measured: how many, and the store that they share; without one it is SQLite."""

    name: str
    nodes: int = 1
    store: Store | None = None
    socket_io: bool = False

    def commands(self, args: argparse.Namespace, folder: Path, *extra: str) -> Iterator[System]:
        """How each node is started, with keys or a database that no other variant has."""
        name = self.name.replace(" ", "-")
        for number in range(self.nodes):
            if self.store is None:
                yield ours(name, args.ours, "--db", str(folder / f"{name}.db"), *extra)
            elif self.socket_io:
                script = str(HERE / "servers" / "socketio_room.cjs")
                yield System(
                    name, ("node", script, "--store", self.store.url), {"NODE_PATH": str(NODE_MODULES)}
                )
            else:
                where = ("--redis", self.store.url, "--redis-prefix", name, "--node", f"node-{number}")
                yield ours(name, args.ours, *where, *extra)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Running nodes that behave as one server."""

    each: tuple[Server, ...]
    store: Store | None = None

    @property
    def ports(self) -> tuple[int, ...]:
        """Where they listen."""
        return tuple(server.port for server in self.each)

    def cpu_seconds(self) -> float:
        """User and system time of all nodes."""
        return sum(server.cpu_seconds() for server in self.each)

    def store_seconds(self) -> float:
        """That of the store."""
        return 0.0 if self.store is None else self.store.cpu_seconds()

    def waited_seconds(self) -> float:
        """How long they were kept from their core, by each other as well."""
        return sum(server.waited_seconds() for server in self.each)


@contextmanager
def started(args: argparse.Namespace, variant: Variant, folder: Path, *extra: str) -> Iterator[Nodes]:
    """The nodes of a variant."""
    with ExitStack() as stack:
        servers = [stack.enter_context(running(system)) for system in variant.commands(args, folder, *extra)]
        yield Nodes(tuple(servers), variant.store)


@dataclass(frozen=True, slots=True)
class Figure:
    """One result: a value for each round, and the limit that was wanted, `least` or else the most."""

    what: str
    values: Sequence[float]
    wanted: float | None = None
    least: bool = False
    form: str = ".2f"

    @property
    def good(self) -> bool:
        """The median is within the limit."""
        middle = statistics.median(self.values)
        return self.wanted is None or (middle >= self.wanted if self.least else middle <= self.wanted)

    @property
    def row(self) -> str:
        """A line of the table."""
        limit = "" if self.wanted is None else f"{'at least' if self.least else 'at most'} {self.wanted:g}"
        missed = "" if self.good else " (missed)"
        return f"| {self.what} | {spread(self.values, self.form)}{missed} | {limit} |"


Rounds = Sequence[Mapping[str, Load]]


def talk(
    args: argparse.Namespace,
    variants: Sequence[Variant],
    workload: Workload,
    *extra: str,
    seconds: float | None = None,
) -> list[dict[str, Load]]:
    """Load all variants in turn, round by round; the first one, in which all is new to them, is left out."""
    print(f" {workload}", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="talk-", dir=args.folder)))
        crowds: dict[str, Crowd] = {}
        for variant in variants:
            nodes = stack.enter_context(started(args, variant, folder))
            how = (*extra, "-s", f"{seconds or args.seconds:g}", *(("-i",) if variant.socket_io else ()))
            crowds[variant.name] = stack.enter_context(crowd(nodes, workload, *how, shared=True))
        rounds = [{name: members.talk() for name, members in crowds.items()} for _ in range(args.rounds + 1)]
    for variant in variants:
        if variant.store is not None:
            variant.store.client.flushall()
    del rounds[0]
    for name in rounds[0]:
        print(describe(name, [loads[name] for loads in rounds]), flush=True)
    return rounds


def describe(name: str, loads: Sequence[Load]) -> str:
    """One variant in one line, with medians."""

    def middle(of: Callable[[Load], float]) -> float:
        return statistics.median(of(found) for found in loads)

    def wait(kind: Callable[[Load], Mapping[str, float]]) -> str:
        p50, p99 = (middle(lambda load, p=p: kind(load)[p]) for p in ("p50", "p99"))  # type: ignore[misc]
        return f"{p50:,.0f}/{p99:,.0f}"

    costs = [_per_message(load) for load in loads]
    return (
        f"  {name:24} {middle(lambda load: load.messages / load.seconds):9,.0f} messages/s, "
        f"CPU µs for a message: nodes {spread(costs, '.1f')}, "
        f"store {middle(lambda load: load.store_cpu * 1e6 / load.messages):.1f}; "
        f"for a delivery: nodes {middle(lambda load: load.cost):.2f}; "
        f"of a core: nodes {middle(lambda load: load.server_cpu / load.seconds):.0%}, "
        f"store {middle(lambda load: load.store_cpu / load.seconds):.0%}, "
        f"generator {middle(lambda load: load.generator_cpu / load.seconds):.0%}; "
        f"µs p50/p99: echo {wait(lambda load: load.echo)}, delivery {wait(lambda load: load.delivery)}"
    )


def ratio(rounds: Rounds, above: str, below: str, of: Callable[[Load], float]) -> list[float]:
    """By round, one variant's figure for each of another's."""
    return [of(loads[above]) / of(loads[below]) for loads in rounds]


def _per_message(load: Load) -> float:
    return load.server_cpu * 1e6 / load.messages


# Parts


def senders(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """200 senders, each in a room of its own."""
    name = f"store, {args.fsync}"
    variants = (Variant(SQLITE), Variant(name, store=stores[args.fsync]))
    for cids in (False, True):
        rounds = talk(args, variants, Workload(args.senders, 1), *(("-c",) if cids else ()))
        yield Figure(
            f"{args.senders} senders {'with' if cids else 'without'} `cid`s, messages/s: "
            f"one node on the store ({args.fsync}) / on SQLite",
            ratio(rounds, name, SQLITE, lambda load: load.messages / load.seconds),
            0.5,
            least=True,
        )


def pace(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """Messages one at a time."""
    name = f"store, {args.fsync}"
    variants = (Variant(SQLITE), Variant(name, store=stores[args.fsync]))
    for workload in PACES:
        rounds = talk(args, variants, Workload.parse(workload))
        yield Figure(
            f"{workload}: CPU of the node for a message: on the store ({args.fsync}) / on SQLite",
            ratio(rounds, name, SQLITE, _per_message),
            2,
        )


def scale(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """Rooms of 20 over two nodes."""
    one, two = "one node", "two nodes"
    store = stores[args.fsync]
    for workload in SCALES:
        rounds = talk(args, (Variant(one, store=store), Variant(two, 2, store)), Workload.parse(workload))
        yield Figure(
            f"{workload}: what two nodes deliver with a core each / one node (twice the deliveries for "
            "a CPU second of both)",
            [2 * value for value in ratio(rounds, one, two, lambda load: load.cost)],
            1.6,
            least=True,
        )


def latency(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """To a member on another node."""
    lazy, strict = (f"two nodes, {fsync}" for fsync in (EVERYSEC, ALWAYS))
    variants = (Variant(SQLITE), Variant(lazy, 2, stores[EVERYSEC]), Variant(strict, 2, stores[ALWAYS]))
    syncs = sync_times(Path(args.folder))
    rounds = talk(args, variants, Workload.parse(args.latency), seconds=LATENCY_SECONDS)
    syncs = sorted(syncs + sync_times(Path(args.folder)))
    for point, share in (("p50", 0.5), ("p99", 0.99)):
        waits = [{name: load.delivery[point] for name, load in loads.items()} for loads in rounds]
        for name, wanted in ((lazy, 3 if point == "p99" else None), (strict, None)):
            yield Figure(
                f"{args.latency}: {point} from one node to another ({name}) / on one node on SQLite",
                [each[name] / each[SQLITE] for each in waits],
                wanted,
            )
        sync = syncs[int(share * len(syncs))]
        print(f" a sync of the disk by itself: {point} {sync:,.0f} µs")
        yield Figure(
            f"{args.latency}: what `always` adds to the {point}, in syncs of the disk by itself, {point}",
            [(each[strict] - each[lazy]) / sync for each in waits],
            2 if point == "p99" else None,
        )


def sync_times(folder: Path) -> list[float]:
    """Microseconds that the sync of a small write takes."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(b"x" * 200)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begin) * 1e6)
            time.sleep(0.002)
    return times


def idling(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """10,000 open rooms; then another node talks in others."""
    store = stores[args.fsync]
    with tempfile.TemporaryDirectory(prefix="idle-", dir=args.folder) as name, ExitStack() as stack:
        variant = Variant("idle", 2, store)
        watched, other = stack.enter_context(
            started(args, variant, Path(name), "--max-connections", "20000")
        ).each
        own: dict[str, float] = {}
        stored: dict[str, float] = {}

        def watch(what: str) -> None:
            with alone():
                begin, cpu, spent = time.perf_counter(), watched.cpu_seconds(), store.cpu_seconds()
                time.sleep(args.watch)
                elapsed = time.perf_counter() - begin
                own[what] = (watched.cpu_seconds() - cpu) / elapsed
                stored[what] = (store.cpu_seconds() - spent) / elapsed
            print(f"  {what:40} node {own[what]:.2%}, store {stored[what]:.2%} of a core", flush=True)

        watch("no rooms")
        sockets = idle.enter(watched.port, range(args.rooms), 1, None)
        time.sleep(1)
        watch(f"{args.rooms:,} rooms")
        members = stack.enter_context(
            crowd(other, Workload.parse(BUSY), "-s", f"{args.watch:g}", shared=True)
        )
        cpu = watched.cpu_seconds()
        load = members.talk()
        busy = (watched.cpu_seconds() - cpu) / load.seconds
        print(f"  {'while another node talks':40} node {busy:.2%} of a core", flush=True)
        for sock in sockets:
            sock.close()
    store.client.flushall()
    yield Figure(
        f"an idle node with {args.rooms:,} rooms open: % of a core", [own[f"{args.rooms:,} rooms"] * 100], 2
    )
    yield Figure(
        f"what {load.messages / load.seconds:,.0f} messages/s elsewhere, on another node, add: % of a core",
        [(busy - own[f"{args.rooms:,} rooms"]) * 100],
        0.2,
    )


def joining(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """A storm of joins over two nodes."""
    one, two = "one node", "two nodes"
    store = stores[args.fsync]
    rounds = []
    for _ in range(args.storms):
        results = {}
        for variant in (Variant(SQLITE), Variant(one, store=store), Variant(two, 2, store)):
            with (
                tempfile.TemporaryDirectory(prefix="joins-", dir=args.folder) as name,
                started(args, variant, Path(name)) as nodes,
                alone(),
            ):
                spent = nodes.store_seconds()
                result = results[variant.name] = joins.measure(nodes, args)
                spent = nodes.store_seconds() - spent
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.kinds.items())
            print(
                f"  {variant.name:10} {result.seconds:6.2f} s wall, CPU: nodes {result.server_cpu:5.2f} s, "
                f"store {spent:5.2f} s, generator {result.generator_cpu:5.2f} s; {kinds}",
                flush=True,
            )
            store.client.flushall()
        rounds.append(results)
    for below, where, wanted in ((one, "the store", 1.5), (SQLITE, SQLITE, None)):
        yield Figure(
            f"{args.clients:,} join a room: CPU of two nodes / of one on {where}",
            [results[two].server_cpu / results[below].server_cpu for results in rounds],
            wanted,
        )


def others(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """Two nodes of ours, and two of Socket.IO."""
    own = "chatroom"
    store = stores[args.fsync]
    variants = (Variant(own, 2, store), Variant(SOCKET_IO, 2, store, socket_io=True))
    for workload in SCALES:
        rounds = talk(args, variants, Workload.parse(workload))
        yield Figure(
            f"{workload} over two nodes: CPU of both for a delivery: ours / Socket.IO's",
            ratio(rounds, own, SOCKET_IO, lambda load: load.cost),
            0.25,
            form=".3f",
        )


def breaking(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """The store is killed, again and again."""
    store = stores[ALWAYS]
    with tempfile.TemporaryDirectory(prefix="faults-", dir=args.folder) as name, ExitStack() as stack:
        crews = []
        for variant, dialect in (
            (Variant("chatroom", 2, store), faults.OURS),
            (Variant(SOCKET_IO, 2, store, socket_io=True), faults.SOCKET_IO),
        ):
            nodes = stack.enter_context(started(args, variant, Path(name)))
            crews.append(faults.Crew(variant.name, dialect, nodes.ports))
        with alone():
            faults.run(crews, store, times=args.kills, down=args.down)
    for crew in crews:
        print(f"  {crew.describe()}", flush=True)
        for what, count in crew.wrong().items():
            yield Figure(
                f"{crew.name}: {what} at the other node, of {crew.acknowledged:,} acknowledged, while "
                f"the store was killed {args.kills} times",
                [count],
                0 if crew.dialect is faults.OURS else None,
                form=".0f",
            )


def sizing(args: argparse.Namespace, stores: Mapping[str, Store]) -> Iterator[Figure]:
    """Bytes in the store."""
    for what, size in storesize.measure(stores[args.fsync], args.stored):
        print(f"  {what} {size:,.0f} bytes", flush=True)
        yield Figure(f"{what}, bytes", [size], form=",.0f")


PARTS: dict[str, Callable[[argparse.Namespace, Mapping[str, Store]], Iterator[Figure]]] = {
    "senders": senders,
    "pace": pace,
    "scale": scale,
    "latency": latency,
    "idle": idling,
    "joins": joining,
    "others": others,
    "faults": breaking,
    "sizing": sizing,
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(), builds=False)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--fsync", default=EVERYSEC, choices=(EVERYSEC, ALWAYS), help="default: %(default)s")
    parser.add_argument("--folder", default=str(BUILD), help="where the data lie; default: %(default)s")
    parser.add_argument("--senders", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each talk; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="of talks; default: %(default)s")
    parser.add_argument("--latency", default="100x2@200", help="the workload; default: %(default)s")
    parser.add_argument("--rooms", type=int, default=10_000, help="of `idle`; default: %(default)s")
    parser.add_argument("--watch", type=float, default=20.0, help="seconds of `idle`; default: %(default)s")
    parser.add_argument("--clients", type=int, default=1000, help="of `joins`; default: %(default)s")
    parser.add_argument("--at-once", type=int, default=50, help="between connect and first frame")
    parser.add_argument("--storms", type=int, default=3, help="of `joins`; default: %(default)s")
    parser.add_argument("--kills", type=int, default=20, help="of `faults`; default: %(default)s")
    parser.add_argument("--down", type=float, default=1.0, help="seconds; default: %(default)s")
    parser.add_argument("--stored", type=int, default=20_000, help="messages of `sizing`")
    parser.add_argument(
        "--judge", action="store_true", help="exit 1 if a number that is wanted isn't reached"
    )
    args = parser.parse_args(argv)
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"no part: {', '.join(sorted(unknown))}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure the parts, and print a table in the end."""
    args = parse(argv)
    compile_generator()
    prepare_generator()
    go_first()
    gc.disable()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bench-cluster-", dir=args.folder) as name, ExitStack() as stack:
        stores = {
            fsync: stack.enter_context(running_store(Path(name) / fsync, fsync))
            for fsync in (EVERYSEC, ALWAYS)
        }
        server = stores[EVERYSEC].info("server")
        print(f"cluster: {server.get('server_name', 'redis')} {server.get('valkey_version', '')}")
        for part in args.parts or PARTS:
            print(part, flush=True)
            for figure in PARTS[part](args, stores):
                print(f"  {figure.row}", flush=True)
                figures.append(figure)
    print("\n| what | measured | wanted |\n| --- | --- | --- |")
    for figure in figures:
        print(figure.row)
    return int(args.judge and not all(figure.good for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
