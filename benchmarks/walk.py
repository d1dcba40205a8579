"""The cost of one message and of one join in steps: calls, files, turns and tasks, from socket to sockets.

The program counts in the real server, in this process, by hooks of Python and Trio. So these numbers, unlike
times, are the same on every machine.

1. *calls* are functions entered, in Python or in C, and coroutines that were resumed; *files* are those of
   our package that hold any of them.
2. *turns* are steps that Trio gave to tasks; *tasks* are the tasks that got them.
3. The client is a thread, which is not counted. It begins when nothing moves any more, and waits a moment for
   late work.
"""

import argparse
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

import trio

import chatroom
from benchmarks import wire
from benchmarks.idle import await_welcome
from chatroom import cli
from chatroom.config.settings import Settings
from chatroom.server import serve

ROOM = "bench"
MESSAGE = wire.masked(b'{"event":"message","data":{"text":"a usual message of a user"}}')
SETTLE = 0.2  # seconds in which all that belongs to a step is over
WARMUP = 5


PACKAGE = str(Path(chatroom.__file__).parent)
NOT_COUNTED = {__file__, trio._abc.__file__, trio._core._instrumentation.__file__}
"""What is there only because it is counted."""


@dataclass(slots=True)
class Steps:
    """What was counted. `calls` by the file of the function, or of the caller of one in C."""

    calls: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    tasks: set[int] = field(default_factory=set)

    @property
    def files(self) -> list[str]:
        return [name for name in self.calls if name.startswith(PACKAGE)]


class StepCounter(trio.abc.Instrument):
    """Counts the thread that it is installed in, as long as it is told to."""

    def __init__(self) -> None:
        self._steps: Steps | None = None

    def count(self, action: Callable[[], None]) -> Steps:
        """What the server does about an action of a client, which is called from another thread."""
        time.sleep(SETTLE)
        steps = self._steps = Steps()
        action()
        time.sleep(SETTLE)
        self._steps = None
        return steps

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """For `sys.setprofile`."""
        if (steps := self._steps) is not None and event in ("call", "c_call"):
            name = frame.f_code.co_filename
            if name not in NOT_COUNTED:
                steps.calls[name] += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """One turn."""
        if (steps := self._steps) is not None:
            steps.turns += 1
            steps.tasks.add(id(task))


def enter(port: int, name: str) -> socket.socket:
    """A member, welcomed."""
    sock = wire.connect(port, name, ROOM)
    await_welcome(sock)
    return sock


def join(port: int, name: str, joined: list[socket.socket]) -> None:
    """Enter, and remember the member."""
    joined.append(enter(port, name))


def say(speaker: socket.socket, *listeners: socket.socket) -> None:
    """Send a message, and wait until all have it."""
    speaker.send(MESSAGE)
    for listener in listeners:
        wire.wait_readable(listener)
        listener.recv(65536)


def walk(port: int, counter: StepCounter, times: int) -> dict[str, list[Steps]]:
    """Messages in a room of two, and joins of a third."""
    alice, bob = enter(port, "alice"), enter(port, "bob")
    time.sleep(SETTLE)
    alice.recv(65536)  # that bob has joined
    for _ in range(WARMUP):
        say(alice, alice, bob)
    messages = [counter.count(lambda: say(alice, alice, bob)) for _ in range(times)]
    joins = []
    for number in range(times + 1):
        thirds: list[socket.socket] = []
        joins.append(counter.count(partial(join, port, f"u{number}", thirds)))
        thirds[0].close()
    return {"a message in a room of two": messages, "a join into a room of two": joins[1:]}


def run(options: list[str], times: int) -> dict[str, list[Steps]]:
    """Serve in this thread, with a client in another, until that has done its walk."""
    counter = StepCounter()
    found: dict[str, list[Steps]] = {}
    reading, writing = os.pipe()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]

    def client() -> None:
        try:
            with os.fdopen(reading) as said:
                found.update(walk(int(said.readline().rsplit(":", 1)[1]), counter, times))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def serve_counted(settings: Settings) -> int:
        sys.setprofile(counter.profile)
        try:
            return trio.run(serve, settings, instruments=[counter])
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=client)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(writing, 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        thread.start()
        cli.main(options, {}, run=serve_counted)
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(writing)
        thread.join()
    return found


def describe(walks: list[Steps]) -> str:
    """The medians."""
    counts = {
        "calls": [steps.calls.total() for steps in walks],
        "files": [len(steps.files) for steps in walks],
        "turns": [steps.turns for steps in walks],
        "tasks": [len(steps.tasks) for steps in walks],
    }
    return ", ".join(f"{statistics.median(values):,g} {what}" for what, values in counts.items())


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", action="store_true", help="keep the log on disk")
    parser.add_argument("--times", type=int, default=5, help="default: %(default)s; medians are printed")
    parser.add_argument("--files", action="store_true", help="name the files, with the calls in each")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Count, and print."""
    args = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        database = f"{folder}/chat.db" if args.log else "none"
        found = run(["--port", "0", "--db", database, "--rate", "0", "--ping-interval", "10m"], args.times)
    print(f"walk: {'the log on disk' if args.log else 'messages in memory'}")
    for what, walks in found.items():
        print(f"  {what}: {describe(walks)}")
        if args.files:
            print("\n".join(f"    {calls:5} {name}" for name, calls in walks[0].calls.most_common()))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
