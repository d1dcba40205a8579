"""The log on disk: messages accepted, a page of history, and the start, each with a large file.

1. `senders`: 200 clients, each in a room of its own, each sends its next message when its last has come back.
2. `engine`: the same without sockets: batches of 200 drafts, one after the other.
3. `page`: 50 messages from the middle of a room of five million, and from a room of fifty.
4. `start`: from the command to `Listening`, on a file of a million messages.

Ours alone is measured. The database lies where `--folder` says, which should be a real disk.
"""

import argparse
import gc
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import trio

from benchmarks import talk, wire
from benchmarks.generator import compile_generator
from benchmarks.report import spread
from benchmarks.systems import BUILD, LOGGED, chosen, go_first, options, prepare_generator, running
from chatroom.core.messages import Draft, Message
from chatroom.engines.engine import Feed
from chatroom.engines.sqlite.engine import SqliteEngine
from chatroom.engines.sqlite.opening import open_database

NO_FEED = cast("Feed", None)
"""A store that is nobody else's tells nothing unasked."""
TEXT = "a usual message of a user, of a usual length"


def senders(args: argparse.Namespace, *, cids: bool) -> list[dict[str, float]]:
    """Messages per second, of servers with a fresh database each, round by round."""
    options = [f"{args.senders}x1", "--folder", args.folder, "--seconds", f"{args.seconds:g}"]
    talking = talk.parse([*options, "--rounds", str(args.rounds), *(("--cids",) if cids else ())])
    talking.ours, talking.before, talking.systems = args.ours, args.before, args.systems
    rounds = talk.measure(talking, talking.workloads[0])
    rates = [{name: found.deliveries / found.seconds for name, found in loads.items()} for loads in rounds]
    for name in rates[0]:
        shown = spread([each[name] for each in rates], ",.0f")
        print(f"  {name:13} {'with' if cids else 'without'} cids: {shown} messages/s", flush=True)
    return rates


async def append(folder: Path, batch: int, seconds: float, *, cids: bool) -> float:
    """Drafts per second that the engine stores, batch after batch."""
    engine = SqliteEngine(str(folder / f"engine-{cids}.db"), lambda: "bench")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(engine.serve, NO_FEED))
        answers, answer = trio.open_memory_channel[Any](1)
        rooms = [f"room-{number}" for number in range(batch)]
        for room in rooms:
            engine.open(room, answers.send_nowait)
            await answer.receive()
        stored, begin = 0, time.perf_counter()
        for turn in count():
            drafts = [
                Draft(room, "alice", TEXT, f"{turn:08}-0000-4000-8000-{at:012}" if cids else None, 1)
                for at, room in enumerate(rooms)
            ]
            engine.append(drafts, answers.send_nowait)
            stored += sum(isinstance(outcome, Message) for outcome in await answer.receive())
            if time.perf_counter() - begin > seconds:
                break
        elapsed = time.perf_counter() - begin
        nursery.cancel_scope.cancel()
    return stored / elapsed


def make(path: Path, rooms: dict[str, int]) -> None:
    """A database with that many messages in each room, written as fast as can be."""
    opened = open_database(str(path), lambda: "bench", renew=False)
    opened.connection.close()
    opened.lock.release()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        for key, (room, size) in enumerate(rooms.items(), 1):
            connection.execute("BEGIN")
            connection.execute("INSERT INTO room VALUES (?, ?, 0)", (key, room))
            connection.executemany(
                "INSERT INTO message VALUES (?, ?, ?, 'alice', ?, ?)",
                (
                    (key, number, number, TEXT, f"{number}" if number % 4 == 0 else None)
                    for number in range(1, size + 1)
                ),
            )
            connection.execute("COMMIT")


async def pages(path: Path, rooms: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """Milliseconds that a page took, each from another place."""
    engine = SqliteEngine(str(path), lambda: "bench")
    chance = random.Random(1)
    found: dict[str, list[float]] = {room: [] for room in rooms}
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(engine.serve, NO_FEED))
        answers, answer = trio.open_memory_channel[object](1)
        for room, size in rooms.items():
            engine.open(room, answers.send_nowait)
            await answer.receive()
            for _ in range(rounds):
                before = chance.randint(51, size + 1) if size > 50 else None
                begin = time.perf_counter()
                page = await engine.history(room, "bench", before=before, after=None, upto=size, limit=50)
                found[room].append((time.perf_counter() - begin) * 1000)
                if len(page.messages) != 50:
                    raise wire.WrongDeliveryError(f"{len(page.messages)} messages in a page")
        nursery.cancel_scope.cancel()
    return found


def starts(args: argparse.Namespace, path: Path) -> list[float]:
    """Seconds to `Listening`."""
    system = chosen(args, "--db", str(path))[0]
    times = []
    for _ in range(args.starts + 1):
        begin = time.perf_counter()
        with running(system):
            times.append(time.perf_counter() - begin)
    return times[1:]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(LOGGED,))
    parser.add_argument("--parts", nargs="+", default=["senders", "engine", "page", "start"], metavar="PART")
    parser.add_argument("--folder", default=str(BUILD), help="where the databases lie; default: %(default)s")
    parser.add_argument("--senders", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=4, help="of senders")
    parser.add_argument("--messages", type=int, default=5_000_000, help="in the large room")
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--start-messages", type=int, default=1_000_000)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--at-least", type=float, default=0.0, metavar="MESSAGES", help="exit 1 below it")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure what is asked for; the durability is that of every run: WAL, synchronous=FULL."""
    args = parse(argv)
    compile_generator()
    prepare_generator()
    gc.disable()
    least = float("inf")
    print(f"log: SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL, in {args.folder}")
    with tempfile.TemporaryDirectory(prefix="bench-log-", dir=args.folder) as name:
        folder = Path(name)
        if "senders" in args.parts:
            go_first()
            print(f" {args.senders} senders, each in a room of its own and waiting for its echo")
            rounds = [rates for cids in (False, True) for rates in senders(args, cids=cids)]
            least = min(rates[LOGGED] for rates in rounds)
        if "engine" in args.parts:
            for cids in (False, True):
                rate = trio.run(partial(append, folder, args.senders, args.seconds, cids=cids))
                print(
                    f" engine alone, batches of {args.senders}, cids {'on' if cids else 'off'}: {rate:,.0f}/s"
                )
        if "page" in args.parts:
            rooms = {"large": args.messages, "small": 50}
            make(folder / "page.db", rooms)
            for room, times in trio.run(pages, folder / "page.db", rooms, args.pages).items():
                print(f" a page of 50 in a room of {rooms[room]:,}: {spread(times)} ms")
            (folder / "page.db").unlink()
        if "start" in args.parts:
            make(folder / "start.db", {"general": args.start_messages})
            times = starts(args, folder / "start.db")
            print(f" start on a file of {args.start_messages:,} messages: {spread(times)} s")
    if least >= args.at_least:
        return 0
    print(f"  below {args.at_least:,.0f} messages/s")
    return 1


if __name__ == "__main__":
    sys.exit(main())
